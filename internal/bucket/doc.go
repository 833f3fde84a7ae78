// Package bucket has what both the library for services (kv) and the workers (worker/store) need of the
// buckets: the names of streams, keys and API subjects; two feeds that deliver the changes of a bucket; and
// [Latest], the rule that decides which of the delivered credentials is the current one.
//
// The feeds are [Watch], which has a JetStream consumer, and [Poll], which reads each record by a request of its own:
// to the workers ([Requests]), or to the server ([Direct]).
//
// A feed runs in sessions. The first session begins with a snapshot (Reset, then the entries, then Ready), and each
// session delivers the changes after that. After any error the next session begins. A Watch continues where the last
// session ended, or with another snapshot; a Poll reads all records again.
package bucket
