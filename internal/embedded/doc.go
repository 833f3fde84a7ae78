// Package embedded is the NATS server inside a worker. It runs if NATS_URL is not set, so that a small
// installation needs no second process.
//
// It is one server with JetStream on a local directory. It has two NATS accounts: workers are in one, with JetStream,
// and consumers in the other, which sees only what the first exports. A client authenticates with a token, which the
// server generates into its directory, and is in the account of its token; [Find] finds the server and the token. It
// keeps its directory for itself (mode 0700, locked against a second process), trusts no file there that another user
// could have made, and syncs every write to the disk before it acknowledges it: the fences of a refresh rely on
// acknowledged writes.
//
// An error about a variable is a [setting.Error].
package embedded
