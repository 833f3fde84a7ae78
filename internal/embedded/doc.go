// Package embedded is the NATS server inside a worker. It runs if NATS_URL is not set, so that a small
// installation needs no second process.
//
// It is one server with JetStream on a local directory. It accepts clients from other machines only with
// authentication. It keeps its directory for itself (mode 0700, locked against a second process), and syncs
// every write to the disk before it acknowledges it: the fences of a refresh rely on acknowledged writes.
//
// An error about a variable is a [setting.Error].
package embedded
