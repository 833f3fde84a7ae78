package kvtest

import (
	"context"
	"slices"
	"strings"

	"github.com/wxkeeper/wxkeeper/kv/internal/feed"
	"github.com/wxkeeper/wxkeeper/messages"
)

// source feeds one Reader.
type source struct {
	bucket *Bucket
	appids []string // that the Reader follows; none: all
	events chan delivery
}

// delivery is what a Reader is told, and what is closed when it has taken it.
type delivery struct {
	events []feed.Event
	taken  chan struct{}
}

func (s *source) Run(ctx context.Context, emit func(feed.Event)) {
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

func (s *source) Report(ctx context.Context, req messages.RefreshCredential) (messages.Refreshed, error) {
	return s.bucket.Report(ctx, req)
}

// tell returns when the Reader has taken the events, or has ended.
func (s *source) tell(events ...feed.Event) {
	d := delivery{events, make(chan struct{})}
	select {
	case s.events <- d:
		<-d.taken
	case <-s.bucket.closing.Done():
	}
}
