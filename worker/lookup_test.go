package worker

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// readLog is a store that notes which records are read. It reads for as long as a busy machine needs.
type readLog struct {
	turnStore
	mu    sync.Mutex
	reads []string // by messages.Key
}

func (s *readLog) Get(ctx context.Context, appid string, kind messages.Kind) (messages.Credential, error) {
	s.mu.Lock()
	s.reads = append(s.reads, messages.Key(appid, kind))
	s.mu.Unlock()
	return s.turnStore.Get(context.WithoutCancel(ctx), appid, kind)
}

// A worker that has just started, or was frozen, may not have received yet what the other workers have published.
// Found by chaos.
func TestWhatMemoryMissesIsLookedUpAtTheLeader(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(nil)
	published := w.await(messages.AccessToken, 0)

	leader := &readLog{turnStore: w.store}
	empty := newMemory(f.clock.Now, slog.New(slog.DiscardHandler)) // no watch feeds it
	l := &lookup{store: leader, memory: empty, scheduler: w.scheduler, now: f.clock.Now}
	a := w.accounts.get(appid)
	var requests sync.WaitGroup
	for range 100 {
		requests.Go(func() {
			c, err := l.current(f.context(), a, messages.AccessToken)
			if err != nil {
				t.Error(err)
			}
			if c.Value != published.Value {
				t.Errorf("got %v, want %v", c, published)
			}
		})
	}
	requests.Wait()
	lookUpTicket := func() {
		t.Helper()
		_, err := l.current(f.context(), a, messages.JSAPITicket)
		checkSymbol(t, "a ticket that does not exist", err, messages.NoCredential)
	}
	for range 100 { // the leader is asked once in lookupEvery
		lookUpTicket()
	}
	f.clock.advance(lookupEvery)
	lookUpTicket()

	token, ticket := messages.Key(appid, messages.AccessToken), messages.Key(appid, messages.JSAPITicket)
	checkDiff(t, "the reads at the leader", leader.reads, []string{token, ticket, ticket})
}
