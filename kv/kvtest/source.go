package kvtest

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// source feeds one Reader.
type source struct {
	bucket *Bucket
	appids []string // the accounts that the Reader follows; empty: all
	events chan delivery
}

// snapshot returns the events that begin a session of a Reader.
func (s *source) snapshot() []bucket.Event {
	b := s.bucket
	events := []bucket.Event{{Reset: true}}
	for _, key := range slices.Sorted(maps.Keys(b.records)) {
		events = append(events, entry(b.records[key]))
	}
	return append(events, bucket.Event{Ready: true}, bucket.Event{Up: true})
}

// delivery has events for a Reader. done is closed when the Reader has handled them.
type delivery struct {
	events []bucket.Event
	done   chan struct{}
}

func (s *source) Run(ctx context.Context, emit func(bucket.Event)) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-s.events:
			for _, e := range d.events {
				if appid, _, ok := strings.Cut(e.Key, "."); !ok || len(s.appids) == 0 ||
					slices.Contains(s.appids, appid) {
					emit(e)
				}
			}
			close(d.done)
		}
	}
}

func (s *source) Report(ctx context.Context, req messages.RefreshCredentialRequest) (messages.Refreshed, error) {
	return s.bucket.Report(ctx, req)
}

// deliver returns when the Reader has handled the events, or has stopped.
func (s *source) deliver(events ...bucket.Event) {
	d := delivery{events, make(chan struct{})}
	select {
	case s.events <- d:
		<-d.done
	case <-s.bucket.closing.Done():
	}
}
