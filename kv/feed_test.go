package kv

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/wxkeeper/wxkeeper/kv/internal/feed"
	"github.com/wxkeeper/wxkeeper/messages"
)

// scripted is a source that tells what a test sends.
type scripted struct{ events chan feed.Event }

func (s scripted) Run(ctx context.Context, emit func(feed.Event)) {
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
func put(tb testing.TB, c messages.Credential) feed.Event {
	tb.Helper()
	body, err := json.Marshal(c)
	if err != nil {
		tb.Fatal(err)
	}
	return feed.Event{Key: messages.Key(c.AppID, c.Kind), Value: body, Rev: c.Generation}
}

// scriptedReader is a running Reader, and what it is told by. It may be used in a bubble of synctest; stop ends it.
func scriptedReader(tb testing.TB, cfg ReaderConfig) (r *Reader, events chan<- feed.Event, stop func()) {
	tb.Helper()
	source := scripted{make(chan feed.Event)}
	cfg.Source = source
	r, err := NewReader(nil, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return r, source.events, runReader(tb, r)
}
