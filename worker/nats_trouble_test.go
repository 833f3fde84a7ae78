package worker

import (
	"bytes"
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

// The leaders of both buckets step down again and again in the middle of many refreshes: none is made twice, and a
// consumer has every one of them.
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
	s := &stage{TB: t, cluster: natstest.StartCluster(t), wechat: wechattest.Start(t, cfg)}
	nc := s.connect()
	var fleet []*actor
	for range 2 {
		fleet = append(fleet, s.worker(func(c *Config) { c.Accounts, c.RefreshConcurrency, c.WeChat.Timeout = list, 1, 5*time.Second }))
	}
	for calls := 0; calls < accounts; calls += accounts / 3 {
		s.eventually("some more refreshes are made", func() bool { return s.wechat.Calls("", "token") >= calls })
		for _, stream := range []string{"KV_wechat", "KV_wechat_ledger"} {
			if _, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil, patience); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, a := range list {
		for i, w := range fleet {
			c, err := w.reader.Wait(s.context(), a.AppID, messages.AccessToken)
			if v := s.wechat.Judge(a.AppID, "access_token", c.Value); err != nil || v != wechattest.Valid || c.Generation != 1 {
				t.Errorf("worker %d has %v of %s, WeChat says %s: %v", i, c, a.AppID, v, err)
			}
		}
	}
	if n := s.wechat.Calls("", "token"); n != accounts {
		t.Errorf("%d calls for %d tokens", n, accounts)
	}
}

// lines is a log that a test can read.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.buf.String(), text)
}

// A process that does not read for a while is cut by its server. It says so, and goes on where it was.
func TestWorkerThatIsCutAsASlowConsumerComesBack(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	s.nats = natstest.Start(t, func(o *server.Options) { o.MaxPending = 1 << 20 })
	g, log := natstest.NewGate(), new(lines)
	nc, err := natsconn.Connect(s.context(), natsconn.Config{URL: s.nats.URL(), Logger: slog.New(slog.NewTextHandler(log, nil))},
		g.Option(), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	w := s.workerOn(nc.Conn, nil)
	held := w.await(messages.AccessToken, 0)
	if _, err := nc.Subscribe("flood", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}

	g.Hold()
	other, flood := s.nats.Connect(), make([]byte, 512<<10)
	s.eventually("the server cuts it", func() bool {
		if err := other.Publish("flood", flood); err != nil {
			t.Fatal(err)
		}
		return s.nats.SlowConsumers() > 0
	})
	if c, err := w.reader.Get(appid, messages.AccessToken); err != nil || c != held {
		t.Errorf("meanwhile it serves %v, %v", c, err)
	}
	g.Open()
	s.eventually("it says so", func() bool { return log.has("disconnected from NATS, reconnecting") && log.has("reconnected to NATS") })

	js, err := jetstreamOf(other)
	if err != nil {
		t.Fatal(err)
	}
	b, err := js.KeyValue(s.context(), "wechat")
	if err == nil {
		err = b.Delete(s.context(), messages.Key(appid, messages.AccessToken))
	}
	if err != nil {
		t.Fatal(err)
	}
	s.eventually("it sees what changes, and writes", func() bool {
		c, err := w.store.Get(s.context(), appid, messages.AccessToken)
		return err == nil && c.Value == held.Value
	})
	if n := s.wechat.Calls("", ""); n != 1 {
		t.Errorf("%d upstream calls, want the first", n)
	}
}

// Both buckets are deleted under a fleet: they are made anew and filled once, without a call, and not again and again.
func TestBucketsLostUnderAFleetAreFilledOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	var fleet []*actor
	for range 3 {
		fleet = append(fleet, s.worker(everything))
	}
	held := map[messages.Kind]messages.Credential{}
	for _, w := range fleet {
		for _, k := range messages.Kinds {
			held[k] = w.await(k, 0)
		}
	}
	calls := s.wechat.Calls("", "")
	js, err := jetstreamOf(s.nats.Connect())
	if err != nil {
		t.Fatal(err)
	}
	for _, bucket := range []string{"wechat", "wechat_ledger"} {
		if err := js.DeleteKeyValue(s.context(), bucket); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range messages.Kinds {
		s.eventually(string(k)+" is published again", func() bool {
			c, err := fleet[0].store.Get(s.context(), appid, k)
			return err == nil && c.Value == held[k].Value && c.Generation == held[k].Generation
		})
		for _, w := range fleet {
			s.eventually("a worker has nothing more to do for the "+string(k), func() bool { return w.isQuiet(messages.Key(appid, k)) })
		}
	}
	if n := s.wechat.Calls("", "") - calls; n != 0 {
		t.Errorf("%d upstream calls", n)
	}
	st, err := js.Stream(s.context(), "KV_wechat")
	if err != nil {
		t.Fatal(err)
	}
	// Each worker may have had a turn of each credential: a lease, the record, the end of the lease and its marker's.
	if n := st.CachedInfo().State.LastSeq; n > uint64(4*len(fleet)*len(messages.Kinds)) {
		t.Errorf("%d writes for %d credentials and %d workers", n, len(messages.Kinds), len(fleet))
	}
}

// A full worker answers overloaded at once; who asks again soon is answered by another.
func TestWhoIsRefusedByAFullWorkerIsAnsweredByAnother(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{AnyCode: true})
	stuck := &stuckTransport{release: make(chan struct{}), asked: make(chan struct{}, 1)}
	full := s.worker(func(c *Config) { c.ResolveConcurrency, c.ResolveTimeout, c.WeChat.Transport = 1, patience, stuck })
	other := s.worker(nil)
	full.await(messages.AccessToken, 0)
	other.await(messages.AccessToken, 0)
	var hung sync.WaitGroup
	hung.Go(func() {
		_, _ = full.service.resolver.resolve(context.Background(), full.accounts.get(appid), openid, "hangs")
	})
	<-stuck.asked
	refused := false
	s.eventually("the full worker was asked, and the other answered", func() bool {
		_, err := other.resolve()
		if err != nil && symbol(err) != "overloaded" {
			t.Fatal(err)
		}
		refused = refused || err != nil
		return refused && err == nil
	})
	close(stuck.release)
	hung.Wait()
}

// stuckTransport never answers a resolution until it is released.
type stuckTransport struct{ asked, release chan struct{} }

func (s *stuckTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.HasSuffix(req.URL.Path, "tickettocode") {
		s.asked <- struct{}{}
		<-s.release
	}
	return http.DefaultTransport.RoundTrip(req)
}
