// Package embedded is the NATS server inside a worker: what runs when NATS_URL is not set, so that a small installation
// needs no second process.
//
// It is one server with JetStream on a local directory. It trusts nobody beyond this machine unless authentication is
// set, keeps its directory to itself (mode 0700, locked against a second process), and syncs every write to the disk
// before it is acknowledged: the fences of the refresh stand on what was acknowledged.
package embedded
