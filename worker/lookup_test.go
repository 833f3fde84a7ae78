package worker

import (
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// A worker that has just started, or was frozen, has not received yet what the other workers have published.
// Found by chaos.
func TestWhatMemoryMissesIsLookedUpAtTheLeader(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(nil)
	published := w.await(messages.AccessToken, 0)

	const read = "$JS.API.STREAM.MSG.GET.KV_wechat"
	nc := f.connect()
	reads, err := nc.SubscribeSync(read)
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	empty := newMemory(f.clock.Now, slog.New(slog.DiscardHandler)) // no watch feeds it
	l := &lookup{store: w.store, memory: empty, scheduler: w.scheduler, now: f.clock.Now}
	a := w.accounts.get(appid)
	var requests sync.WaitGroup
	for range 100 {
		requests.Go(func() {
			c, err := l.current(f.context(), a, messages.AccessToken)
			if err != nil {
				t.Error(err)
			}
			checkDiff(t, "the token", c, published)
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

	for i, want := range []messages.Kind{messages.AccessToken, messages.JSAPITicket, messages.JSAPITicket} {
		m, err := reads.NextMsg(patience)
		if err != nil || !strings.Contains(string(m.Data), string(want)) {
			t.Fatalf("read %d at the leader: %v, want one of the %s", i+1, err, want)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := reads.Pending(); err != nil || n > 0 {
		t.Errorf("%d more reads at the leader, %v", n, err)
	}
}
