// Package bucket has what both the library for services (kv) and the workers (worker/store) need of the
// buckets: the names of streams, keys and API subjects; two feeds that deliver the changes of a bucket, [Watch]
// and, for users with few permissions, [Direct]; and [Latest], the rule that decides which of the delivered
// credentials is the current one.
//
// A feed runs in sessions. A session begins with a snapshot (Reset, then the entries, then Ready), or continues
// where the last session ended, and delivers each change after that. After any error the next session begins.
package bucket
