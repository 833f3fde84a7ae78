package worker

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// A worker that has just started, or was frozen, has not heard yet of what the others have published. Found by chaos.
func TestWhatMemoryMissesIsLookedUpAtTheLeader(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(nil)
	published := w.await(messages.AccessToken, 0)

	reader, err := kv.NewReader(s.nats.Connect(), kv.ReaderConfig{}) // it does not run: it hears of nothing
	if err != nil {
		t.Fatal(err)
	}
	asked := s.nats.Connect()
	questions, err := asked.SubscribeSync("$JS.API.STREAM.MSG.GET.KV_wechat")
	if err == nil {
		err = asked.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	l := &lookup{store: w.store, reader: reader, now: func() time.Time { return now }, missing: w.missing}
	a := w.accounts.get(appid)
	var askers sync.WaitGroup
	for range 100 {
		askers.Go(func() {
			if c, err := l.current(s.context(), a, messages.AccessToken); err != nil || c.Value != published.Value {
				t.Errorf("generation %d, %v", c.Generation, err)
			}
		})
	}
	askers.Wait()
	none := func() {
		t.Helper()
		if _, err := l.current(s.context(), a, messages.JSAPITicket); !errors.Is(err, &messages.Error{Symbol: messages.NoCredential}) {
			t.Errorf("of what is not there: %v", err)
		}
	}
	for range 100 { // the leader is asked once a second
		none()
	}
	now = now.Add(lookupEvery)
	none()
	for i, want := range []string{"access_token", "jsapi_ticket", "jsapi_ticket"} {
		m, err := questions.NextMsg(patience)
		if err != nil || !strings.Contains(string(m.Data), want) {
			t.Fatalf("question %d to the leader: %v", i+1, err)
		}
	}
	if err := asked.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := questions.Pending(); err != nil || n > 0 {
		t.Errorf("the leader was asked %d times more, %v; want once for the token, and once a second for the ticket", n, err)
	}
}
