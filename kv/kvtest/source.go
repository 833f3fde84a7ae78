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
	appids []string // that the Reader follows; none: all
	events chan delivery
	told   int // the number of the bucket of its last snapshot; 0: there was none
}

// snapshot is what a Reader is told at the beginning of a session. One of named accounts may not ask whether the bucket is
// still the same, and reckons with another each time, as a real one does.
func (s *source) snapshot() []bucket.Event {
	b := s.bucket
	events := []bucket.Event{{Reset: true, Recreated: s.told != b.number || len(s.appids) > 0}}
	s.told = b.number
	for _, key := range slices.Sorted(maps.Keys(b.records)) {
		events = append(events, entry(b.records[key]))
	}
	return append(events, bucket.Event{Ready: true}, bucket.Event{Up: true})
}

// delivery is what a Reader is told, and what is closed when it has taken it.
type delivery struct {
	events []bucket.Event
	taken  chan struct{}
}

func (s *source) Run(ctx context.Context, emit func(bucket.Event)) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-s.events:
			for _, e := range d.events {
				if appid, _, ok := strings.Cut(e.Key, "."); !ok || len(s.appids) == 0 || slices.Contains(s.appids, appid) {
					emit(e)
				}
			}
			close(d.taken)
		}
	}
}

func (s *source) Report(ctx context.Context, req messages.RefreshCredentialRequest) (messages.Refreshed, error) {
	return s.bucket.Report(ctx, req)
}

// tell returns when the Reader has taken the events, or has ended.
func (s *source) tell(events ...bucket.Event) {
	d := delivery{events, make(chan struct{})}
	select {
	case s.events <- d:
		<-d.taken
	case <-s.bucket.closing.Done():
	}
}
