package kv

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// scripted is a source that tells what a test sends.
type scripted struct{ events chan bucket.Event }

func (s scripted) Run(ctx context.Context, emit func(bucket.Event)) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-s.events:
			emit(e)
		}
	}
}

func (scripted) Report(context.Context, messages.RefreshCredentialRequest) (messages.Refreshed, error) {
	return messages.Refreshed{}, messages.ErrOverloaded
}

// put is the event of a record whose revision is its generation.
func put(tb testing.TB, c messages.Credential) bucket.Event {
	tb.Helper()
	body, err := json.Marshal(c)
	if err != nil {
		tb.Fatal(err)
	}
	return bucket.Event{Key: messages.Key(c.AppID, c.Kind), Value: body, Revision: c.Generation}
}

// scriptedReader is a running Reader, and what it is told by. It may be used in a bubble of synctest; stop ends it.
func scriptedReader(tb testing.TB, cfg ReaderConfig) (r *Reader, events chan<- bucket.Event, stop func()) {
	tb.Helper()
	source := scripted{make(chan bucket.Event)}
	cfg.Source = source
	r, err := NewReader(nil, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return r, source.events, runReader(tb, r)
}
