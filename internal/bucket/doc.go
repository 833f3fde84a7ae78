// Package bucket has what the library of the services (kv) and the workers (worker/store) both need of the buckets: the
// names of streams, keys and API subjects, two feeds that deliver the changes of a bucket (a [Watch], and [Direct] for
// users with few permissions), and [Latest], the rule which of the delivered credentials is the current one.
package bucket
