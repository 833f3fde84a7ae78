// Package store is the workers' side of the buckets: it creates and verifies them, reads from the leader of
// their streams (a get of the KV client may be answered by a replica that lags), takes leases, publishes
// records behind the fence of a lease, and keeps the ledger. Package storetest has a store in memory, for tests
// of what is built on it.
//
// # What happens on each failure
//
//   - NATS is not available: methods return [ErrUnavailable]. Nothing is buffered to be written later.
//   - A worker dies while it holds a lease: the server ends the lease after its TTL.
//   - A worker freezes while it holds a lease: its late publication is refused with [ErrLeaseLost], because the
//     publication carries a condition: the last message on the lease's subject is this lease
//     (docs/architecture.md#refresh-2).
//   - The answer to a publication is lost: the record is read back from the leader, and published again if it
//     is missing.
//   - All workers are dead: the server removes each record when the credential's life ends.
//   - A bucket is deleted or recreated: the watches notice that within seconds, create the bucket again if it
//     does not exist, and deliver a new snapshot.
package store
