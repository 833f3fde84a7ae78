package worker

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// The leaders of both buckets step down several times during many refreshes: no credential is refreshed twice,
// and each worker has all of them.
func TestLeadersThatStepDownCostNoCall(t *testing.T) {
	t.Parallel()
	const accounts = 30
	cfg := wechattest.Config{Latency: 20 * time.Millisecond}
	var list []Account
	for i := range accounts {
		id := fmt.Sprintf("wx-%02d", i)
		cfg.Accounts = append(cfg.Accounts, wechattest.Account{AppID: id, Secret: secret})
		list = append(list, Account{AppID: id, Secret: secret, TokenAPI: messages.SourceToken})
	}
	f := newClusterFixture(t, cfg)
	nc := f.connect()
	var workers []*testWorker
	for range 2 {
		workers = append(workers, f.worker(func(c *Config) { c.Accounts, c.RefreshConcurrency = list, 1 }))
	}
	for calls := 0; calls < accounts; calls += accounts / 3 {
		f.eventually("some more refreshes", func() bool { return f.calls("token") >= calls })
		for _, stream := range []string{"KV_wechat", "KV_wechat_ledger"} {
			if _, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil, patience); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, a := range list {
		for i, w := range workers {
			c := w.awaitOf(a.AppID, messages.AccessToken, 0)
			if c.Generation != 1 {
				t.Errorf("worker %d holds generation %d of %s, want 1", i, c.Generation, a.AppID)
			}
			f.checkValid(c)
		}
	}
	f.checkCalls("token", accounts)
}

// A NATS server closes the connection of a process that does not read for a while. The worker logs that, and
// continues.
func TestWorkerThatIsCutAsASlowConsumerComesBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.hurried = true
	f.nats = natstest.Start(t, func(o *server.Options) { o.MaxPending = 1 << 20 })
	gate, log := natstest.NewGate(), new(logLines)
	cfg := natsconn.Config{URL: f.nats.URL(), Logger: slog.New(slog.NewTextHandler(log, nil))}
	nc, err := natsconn.Connect(f.context(), cfg, gate.Option(), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	w := f.workerOn(nc.Conn, nil)
	held := w.await(messages.AccessToken, 0)
	if _, err := nc.Subscribe("flood", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}

	gate.Hold()
	other, flood := f.connect(), make([]byte, 512<<10)
	f.eventually("the server closes the connection", func() bool {
		if err := other.Publish("flood", flood); err != nil {
			t.Fatal(err)
		}
		return f.nats.SlowConsumers() > 0
	})
	if c, err := w.memory.get(appid, messages.AccessToken); err != nil {
		t.Errorf("while it is cut off it holds no valid token: %v", err)
	} else {
		checkDiff(t, "the token while the worker is cut off", *c, held)
	}
	gate.Open()
	for _, text := range []string{"disconnected from NATS, reconnecting", "reconnected to NATS"} {
		f.eventually("the log has: "+text, func() bool { return log.count(text) > 0 })
	}

	if err := f.bucket("wechat").Delete(f.context(), messages.Key(appid, messages.AccessToken)); err != nil {
		t.Fatal(err)
	}
	f.eventually("the worker receives changes, and writes", func() bool {
		c, err := w.stored(messages.AccessToken)
		return err == nil && c.Value == held.Value
	})
	f.checkCalls("", 1)
}

// Both buckets are deleted under a fleet: they are recreated and filled once, without a call, and not again and
// again.
func TestBucketsLostUnderAFleetAreFilledOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.hurried = true
	var workers []*testWorker
	for range 3 {
		workers = append(workers, f.worker(everything))
	}
	held := map[messages.Kind]messages.Credential{}
	for _, w := range workers {
		for _, k := range messages.Kinds {
			held[k] = w.await(k, 0)
		}
	}
	calls := f.calls("")
	js := f.jetstream()
	for _, bucket := range []string{"wechat", "wechat_ledger"} {
		if err := js.DeleteKeyValue(f.context(), bucket); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range messages.Kinds {
		workers[0].awaitStored(held[k])
		for _, w := range workers {
			w.awaitQuiet(k)
		}
	}
	f.checkCalls("", calls)
	// Each worker may have had a turn of each credential: a lease, the record, the release of the lease, and
	// its marker's end.
	const most = 4 * 3 * len(messages.Kinds)
	if n := f.stream("wechat").CachedInfo().State.LastSeq; n > uint64(most) {
		t.Errorf("%d writes to the new bucket, want at most %d", n, most)
	}
}

// A full worker answers overloaded at once. A request that is sent again soon is answered by another worker.
func TestRequestThatAFullWorkerRefusesIsAnsweredByAnother(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{AnyCode: true})
	stuck := &stuckTransport{release: make(chan struct{}), called: make(chan struct{}, 1)}
	full := f.worker(func(c *Config) {
		c.ResolveConcurrency, c.ResolveTimeout = 1, patience
		c.WeChat.Timeout, c.WeChat.Transport = patience, stuck
	})
	other := f.worker(nil)
	full.await(messages.AccessToken, 0)
	other.await(messages.AccessToken, 0)
	var stuckRequest sync.WaitGroup
	stuckRequest.Go(func() {
		_, _ = full.service.resolver.resolve(context.Background(), full.accounts.get(appid), openid, "hangs")
	})
	<-stuck.called
	refused := false
	f.eventually("the full worker refused a request, and the other one answered it", func() bool {
		_, err := other.resolve()
		if err != nil && symbol(err) != messages.Overloaded {
			t.Fatal(err)
		}
		refused = refused || err != nil
		return refused && err == nil
	})
	close(stuck.release)
	stuckRequest.Wait()
}

// stuckTransport holds back each resolution until it is released.
type stuckTransport struct{ called, release chan struct{} }

func (s *stuckTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.HasSuffix(req.URL.Path, "tickettocode") {
		s.called <- struct{}{}
		<-s.release
	}
	return http.DefaultTransport.RoundTrip(req)
}
