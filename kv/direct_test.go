package kv

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
)

func TestDirectReaderNeedsItsAccounts(t *testing.T) {
	t.Parallel()
	if _, err := NewReader(new(nats.Conn), ReaderConfig{Direct: true}); err == nil || !strings.Contains(err.Error(), "AppIDs") {
		t.Errorf("%v, want what is missing", err)
	}
}

// A republished record is sent at most once: what was published while the connection was away is read.
func TestDirectReaderReadsWhatItHasNotHeard(t *testing.T) {
	t.Parallel()
	srv := gated{natstest.Start(t), natstest.NewGate()}
	s := newStore(t, srv.Server, "w")
	publish(t, s, credential(1, time.Hour))
	r := startReader(t, srv, ReaderConfig{Direct: true, AppIDs: []string{"wx1"}})
	changes := make(chan Change, 10)
	r.observe(changes)
	srv.gate.Hold()
	publish(t, s, credential(2, time.Hour))
	srv.gate.Cut()
	if _, err := r.WaitNewer(testContext(t), "wx1", AccessToken, 1); err != nil {
		t.Fatal(err)
	}
	// The same record again, read after another reconnection, is no news.
	srv.gate.Cut()
	publishSoon(t, s, credential(3, time.Hour))
	if _, err := r.WaitNewer(testContext(t), "wx1", AccessToken, 2); err != nil {
		t.Fatal(err)
	}
	for _, want := range []uint64{2, 3} {
		if c := <-changes; c.Record == nil || c.Record.Generation != want {
			t.Errorf("%+v is told, want generation %d", c, want)
		}
	}
}

func TestDirectReaderIsToldThatARecordHasGone(t *testing.T) {
	t.Parallel()
	srv := gated{natstest.Start(t), natstest.NewGate()}
	s := newStore(t, srv.Server, "w")
	r := startReader(t, srv, ReaderConfig{Direct: true, AppIDs: []string{"wx1"}})
	changes := make(chan Change, 10)
	r.observe(changes)
	publish(t, s, credential(1, time.Hour))
	<-changes
	if err := s.creds.Delete(testContext(t), "wx1.access_token"); err != nil {
		t.Fatal(err)
	}
	if c := <-changes; c.Record != nil || c.Kind != AccessToken {
		t.Errorf("after the deletion %+v is told", c)
	}
	publish(t, s, credential(2, time.Hour))
	<-changes
	st, err := s.js.Stream(testContext(t), "KV_wechat")
	if err == nil {
		err = st.Purge(testContext(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	srv.gate.Cut() // so that it reads at once
	awaitChange(t, changes, "the purge is not noticed", func(c Change) bool { return c.Record == nil && c.Kind == AccessToken })
	if c, err := r.Get("wx1", AccessToken); err != nil || c.Generation != 2 {
		t.Errorf("what is valid is no longer served: %v, %v", c, err)
	}
}

// Who runs such a Reader has few permissions, and sees which one is missing.
func TestDirectReaderSaysWhatItMayNotDo(t *testing.T) {
	t.Parallel()
	const password = "only-for-this-test"
	allow := func(publish, subscribe []string) *server.Permissions {
		return &server.Permissions{Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: subscribe}}
	}
	read := func(appid string) string { return "$JS.API.DIRECT.GET.KV_wechat.$KV.wechat." + appid + ".*" }
	srv := natstest.Start(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "worker", Password: password},
			{Username: "deaf", Password: password, Permissions: allow([]string{read("*")}, []string{"_INBOX.>"})},
			{Username: "blind", Password: password, Permissions: allow([]string{read("wx1")}, []string{"_INBOX.>", "wechat.published.>"})},
		}
	})
	s, err := NewStore(srv.Connect(nats.UserInfo("worker", password)), StoreConfig{Worker: "w"})
	if err == nil {
		err = s.Ensure(testContext(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	publish(t, s, credential(1, time.Hour))
	for user, want := range map[string]string{"deaf": `Subscription to "wechat.published.wx`, "blind": `Publish to "$JS.API.DIRECT.GET.KV_wechat.$KV.wechat.wx2.`} {
		var mu sync.Mutex
		said := ""
		told := make(chan struct{}, 1)
		r, err := NewReader(srv.Connect(nats.UserInfo(user, password)), ReaderConfig{
			Direct: true, AppIDs: []string{"wx1", "wx2"}, OnTrouble: func(err error) {
				mu.Lock()
				defer mu.Unlock()
				said += err.Error() + "\n"
				if strings.Contains(said, want) {
					select {
					case told <- struct{}{}:
					default:
					}
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		stop := runReader(t, r)
		select {
		case <-told:
		case <-testContext(t).Done():
			mu.Lock()
			t.Errorf("%s: nothing says %s, but:\n%s", user, want, said)
			mu.Unlock()
		}
		if _, err := r.Wait(testContext(t), "wx1", AccessToken); err != nil { // what it may do, it does
			t.Errorf("%s: %v", user, err)
		}
		stop()
	}
}
