// Package feed is what stands between a kv.Reader and the place where it hears of the bucket. kv has two such places, a
// watch and direct gets; kv/kvtest has a third, for tests without NATS.
package feed

import (
	"context"

	"github.com/wxkeeper/wxkeeper/messages"
)

// Event is one thing that a feed tells: one of Reset, Ready, Up, Down, Tick; or else an entry of the bucket.
type Event struct {
	Reset bool  // a snapshot begins: the first one, one after a loss, or that of a bucket made anew
	Ready bool  // the snapshot is complete
	Up    bool  // the feed works: what changes from now on arrives
	Down  error // the feed does not work, and why; more than one may come in a row
	Tick  bool  // the clock has moved by itself

	Key   string
	Value []byte
	Rev   uint64
	Gone  bool // deleted, purged or expired

	// Anew, with Reset, with an entry or alone: it is another bucket than before, or nobody knows whether it is.
	Anew bool
}

// Source is where a Reader hears of the bucket, and whom it tells of dead tokens.
type Source interface {
	// Run tells emit, from one goroutine at a time, until ctx ends.
	Run(ctx context.Context, emit func(Event))
	// Report tells the workers that WeChat refuses a credential.
	Report(ctx context.Context, req messages.RefreshCredentialRequest) (messages.Refreshed, error)
}
