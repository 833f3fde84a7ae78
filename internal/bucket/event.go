package bucket

import (
	"context"

	"github.com/wxkeeper/wxkeeper/messages"
)

// Event is one event of a feed: one of Reset, Ready, Up, Down and Tick, or else an entry of the bucket.
type Event struct {
	Reset bool  // a snapshot begins: at the start, after a loss, or because the bucket was recreated
	Ready bool  // the snapshot is complete
	Up    bool  // the feed works: changes from now on are delivered
	Down  error // why the feed does not work; several such events may follow each other
	Tick  bool  // the time has been changed by a test

	Key      string // of the entry
	Value    []byte // as stored
	Revision uint64
	Removed  bool // deleted, purged or expired; Value is empty
}

// Source delivers the events of a bucket to a kv.Reader, and the reports of the Reader's Transports to the
// workers. kv implements it on NATS, kv/kvtest in memory.
type Source interface {
	// Run calls emit, from one goroutine at a time, until ctx ends.
	Run(ctx context.Context, emit func(Event))
	// Report reports to the workers that WeChat refused a credential.
	Report(ctx context.Context, req messages.RefreshCredentialRequest) (messages.Refreshed, error)
}
