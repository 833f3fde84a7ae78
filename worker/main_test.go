package worker

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func TestMain(m *testing.M) {
	// These tests wait for lives to end and servers to answer, not for the processor.
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// patience bounds waits for events that must come; it is not a claim about speed.
const patience = 30 * time.Second

const (
	appid  = "wx0123456789abcdef"
	secret = "CANARY-SECRET-0123456789"
	// The sample of tickettocode.txt.
	openid     = "oiV2luCau8Cx0TMOy9lvZSLqRcKc"
	codeTicket = "6cb4bc95e1f1abc97034cbe8fd484989"
)

// stage is a real NATS server and a simulated WeChat, on which workers play.
type stage struct {
	testing.TB
	nats    *natstest.Server
	cluster *natstest.Cluster // in its place, where three servers are wanted
	wechat  *wechattest.Server
	gate    *natstest.Gate // between workers and NATS, where faults are wanted; nil: none
	lease   time.Duration  // of workers; 0: as their timeout says
}

// connect opens a connection as a worker's.
func (s *stage) connect() *nats.Conn {
	s.Helper()
	var opts []nats.Option
	if s.gate != nil {
		opts = append(opts, s.gate.Option())
	}
	if s.cluster != nil {
		return s.cluster.Connect(opts...)
	}
	return s.nats.Connect(opts...)
}

func newStage(tb testing.TB, cfg wechattest.Config) *stage {
	tb.Helper()
	if cfg.Accounts == nil {
		cfg.Accounts = []wechattest.Account{{AppID: appid, Secret: secret}}
	}
	return &stage{TB: tb, nats: natstest.Start(tb), wechat: wechattest.Start(tb, cfg)}
}

// seed puts a living token that is due for renewal into the bucket, as an earlier worker left it.
func (s *stage) seed(endpoint string) messages.Credential {
	s.Helper()
	ctx := s.context()
	st, err := store.New(s.nats.Connect(), store.Config{Worker: "earlier"})
	if err == nil {
		err = st.Ensure(ctx)
	}
	if err != nil {
		s.Fatal(err)
	}
	token, err := s.wechat.ForeignRefresh(appid, endpoint)
	if err != nil {
		s.Fatal(err)
	}
	lease, err := st.Acquire(ctx, appid, messages.AccessToken, 5*time.Second)
	if err != nil {
		s.Fatal(err)
	}
	defer lease.Release(ctx)
	now := time.Now().UTC().Truncate(time.Millisecond)
	c := messages.Credential{
		AppID: appid, Kind: messages.AccessToken, Value: token, ObtainedAt: now, ExpiresAt: now.Add(time.Hour), RefreshAt: now,
		Generation: 1, Source: endpoint, Worker: "earlier",
	}
	if c.Revision, err = lease.Publish(ctx, c); err != nil {
		s.Fatal(err)
	}
	return c
}

// actor is a running worker, and a connection to ask it.
type actor struct {
	*Worker
	*stage
	nc     *nats.Conn
	client *messages.Client

	registry *prometheus.Registry
	stop     func() // stops the worker and waits for its end; may be called twice
}

// worker starts a worker with one account (stable_token, no tickets) unless change says otherwise.
func (s *stage) worker(change func(*Config)) *actor {
	s.Helper()
	return s.workerOn(s.connect(), change)
}

// workerOn is worker on a connection of the caller's.
func (s *stage) workerOn(nc *nats.Conn, change func(*Config)) *actor {
	s.Helper()
	cfg := Config{
		Name:     "w",
		Accounts: []Account{{AppID: appid, Secret: secret}},
		WeChat:   wechat.Config{URLs: []string{s.wechat.URL}, Timeout: 2 * time.Second},
	}
	if change != nil {
		change(&cfg)
	}
	registry := prometheus.NewRegistry()
	cfg.Registerer = registry
	w, err := New(nc, cfg)
	if err != nil {
		s.Fatal(err)
	}
	if s.lease != 0 {
		w.refresher.leaseTTL = s.lease
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	stopped := false
	a := &actor{Worker: w, stage: s, nc: w.nc, registry: registry}
	if s.gate == nil {
		a.nc = s.connect()
	}
	a.client = messages.NewClient(a.nc, cfg.SubjectPrefix)
	a.stop = func() {
		cancel()
		if stopped {
			return
		}
		stopped = true
		select {
		case err := <-ended:
			if err != nil {
				s.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			s.Error("Run does not end")
		}
	}
	s.Cleanup(a.stop)
	select {
	case <-w.Ready():
	case err := <-ended:
		s.Fatalf("Run: %v", err)
	case <-time.After(patience):
		s.Fatal("the worker does not become ready")
	}
	return a
}

func (s *stage) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.Cleanup(cancel)
	return ctx
}

// await waits for a credential of a generation above generation.
func (a *actor) await(kind messages.Kind, generation uint64) messages.Credential {
	a.Helper()
	c, err := a.reader.WaitNewer(a.context(), appid, kind, generation)
	if err != nil {
		a.Fatalf("%v; status: %+v", err, a.Worker.status(appid).Credentials)
	}
	return c
}

// pages asks the HTTP handler.
func (a *actor) pages() func(path string) (int, string) {
	h := a.Handler(a.registry)
	return func(path string) (int, string) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
		return rec.Code, rec.Body.String()
	}
}

// resolve asks over NATS for the sample's code.
func (a *actor) resolve() (messages.Code, error) {
	raw, err := a.client.ResolveCode(a.context(), messages.ResolveCodeRequest{AppID: appid, OpenID: openid, CodeTicket: codeTicket})
	if err != nil {
		return messages.Code{}, err
	}
	var c messages.Code
	return c, json.Unmarshal(raw, &c)
}

func (a *actor) report(r messages.RefreshCredentialRequest) (messages.Refreshed, error) {
	r.AppID = appid
	return a.client.RefreshCredential(a.context(), r)
}

// events collects the events of the stage's account from now on.
func (s *stage) events() *eventLog {
	s.Helper()
	nc := s.connect()
	sub, err := nc.SubscribeSync(messages.EventSubject("wechat", "*", "*", "*"))
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		s.Fatal(err)
	}
	return &eventLog{s, sub}
}

type eventLog struct {
	*stage
	sub *nats.Subscription
}

// next waits for the next event of a name, skipping others.
func (e *eventLog) next(name string) messages.Event {
	e.Helper()
	for {
		m, err := e.sub.NextMsg(patience)
		if err != nil {
			e.Fatalf("no event %q: %v", name, err)
		}
		var ev messages.Event
		if err := json.Unmarshal(m.Data, &ev); err != nil {
			e.Fatal(err)
		}
		if ev.Event == name {
			return ev
		}
	}
}

// symbol is the symbol of an error of the contract, or "".
func symbol(err error) messages.Symbol {
	var e *messages.Error
	if errors.As(err, &e) {
		return e.Symbol
	}
	return ""
}

// eventually polls a condition that no event announces.
func (s *stage) eventually(what string, cond func() bool) {
	s.Helper()
	deadline := time.Now().Add(patience)
	every := 5 * time.Millisecond
	if s.gate != nil {
		every *= 4 // there are many such stages at once
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			s.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

func jetstreamOf(nc *nats.Conn) (jetstream.JetStream, error) { return jetstream.New(nc) }
