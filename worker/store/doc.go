// Package store is the workers' side of the buckets: it creates and verifies them, reads from the leader of their streams
// (a get of the KV client may be answered by a replica that lags), takes leases, publishes records behind the fence of a
// lease, and keeps the ledger. Package storetest has a store in memory, for tests of what is built on it.
//
// # What happens on each failure
//
//   - NATS is not available: methods return [ErrUnavailable]. Nothing is buffered to be written later.
//   - A worker dies while it holds a lease: the server ends the lease after its TTL.
//   - A worker freezes while it holds a lease: its late publication is refused with [ErrLeaseLost], because the publication
//     says "only while the last message on the subject of my lease is mine" (docs/architecture.md#refresh-2).
//   - The answer to a publication is lost: the record is read back from the leader, and published again if it is missing.
//   - All workers are dead: each record removes itself, by the server's clock, when the credential's life ends.
//   - A bucket is deleted or recreated: the watches notice within seconds, create it again and deliver a new snapshot.
package store
