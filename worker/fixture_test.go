package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// fixture is a real NATS server, a simulated WeChat, and the workers of a test.
type fixture struct {
	testing.TB
	nats    *natstest.Server
	cluster *natstest.Cluster // instead of nats, if a test needs three servers
	wechat  *wechattest.Server
	clock   *testClock     // of WeChat and of the workers
	gate    *natstest.Gate // between the workers and NATS; nil: none
	user    nats.Option    // of all connections that the test does not open itself; nil: none

	// hurried is for tests in which NATS does not answer: the workers give up a request after the times of
	// production. In other tests they wait longer, so that a busy machine does not make a turn fail.
	hurried bool
	lease   time.Duration // TTL of the workers' leases; 0: of production if hurried, else longLease

	workers []*testWorker
}

// newFixture starts a NATS server and a simulated WeChat, which knows the account of the tests unless cfg has
// others.
func newFixture(tb testing.TB, cfg wechattest.Config) *fixture {
	tb.Helper()
	f := &fixture{TB: tb, nats: natstest.Start(tb)}
	f.startWeChat(cfg)
	return f
}

// newClusterFixture is newFixture with three NATS servers.
func newClusterFixture(tb testing.TB, cfg wechattest.Config) *fixture {
	tb.Helper()
	f := &fixture{TB: tb, cluster: natstest.StartCluster(tb)}
	f.startWeChat(cfg)
	return f
}

func (f *fixture) startWeChat(cfg wechattest.Config) {
	f.Helper()
	f.clock = new(testClock)
	if cfg.Accounts == nil {
		cfg.Accounts = []wechattest.Account{{AppID: appid, Secret: secret}}
	}
	if cfg.Now == nil {
		cfg.Now = f.clock.Now
	}
	f.wechat = wechattest.Start(f.TB, cfg)
}

// connect opens a connection as a worker opens it.
func (f *fixture) connect() *nats.Conn {
	f.Helper()
	var opts []nats.Option
	if f.gate != nil {
		opts = append(opts, f.gate.Option())
	}
	if f.user != nil {
		opts = append(opts, f.user)
	}
	if f.cluster != nil {
		return f.cluster.Connect(opts...)
	}
	return f.nats.Connect(opts...)
}

// admin opens a connection that passes no gate.
func (f *fixture) admin() *nats.Conn {
	f.Helper()
	if f.cluster != nil {
		return f.cluster.Connect()
	}
	if f.user != nil {
		return f.nats.Connect(f.user)
	}
	return f.nats.Connect()
}

func (f *fixture) jetstream() jetstream.JetStream {
	f.Helper()
	js, err := jetstream.New(f.admin())
	if err != nil {
		f.Fatal(err)
	}
	return js
}

// stream is the stream of a bucket.
func (f *fixture) stream(bucket string) jetstream.Stream {
	f.Helper()
	st, err := f.jetstream().Stream(f.context(), "KV_"+bucket)
	if err != nil {
		f.Fatal(err)
	}
	return st
}

// bucket opens a bucket that exists.
func (f *fixture) bucket(name string) jetstream.KeyValue {
	f.Helper()
	b, err := f.jetstream().KeyValue(f.context(), name)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// purge removes everything from the credential bucket. A watch of the bucket receives nothing for that.
func (f *fixture) purge() {
	f.Helper()
	if err := f.stream("wechat").Purge(f.context()); err != nil {
		f.Fatal(err)
	}
}

// endLease ends a lease at the server, as its TTL would.
func (f *fixture) endLease(key string) {
	f.Helper()
	if err := f.bucket("wechat").Purge(f.context(), "lease."+key); err != nil {
		f.Fatal(err)
	}
}

// takeLease takes the lease of the account's token for another worker.
func (f *fixture) takeLease(worker string, ttl time.Duration) (l store.Lease) {
	f.Helper()
	s := f.storeOf(worker)
	f.eventually("the lease is taken", func() bool { // a lease that was released a moment ago may still count as held
		var err error
		l, err = s.Acquire(f.context(), appid, messages.AccessToken, ttl)
		if err != nil && !errors.Is(err, store.ErrLeaseHeld) {
			f.Fatal(err)
		}
		return err == nil
	})
	return l
}

// keysOf has the key that every worker of an account with the secret of these tests has.
func keysOf(appid string) []seal.Key { return []seal.Key{seal.New(appid, secret)} }

// sealed is the JSON of a record with the seal of a worker.
func sealed(tb testing.TB, c messages.Credential) []byte {
	tb.Helper()
	c.Revision = 0
	object, err := json.Marshal(c)
	if err != nil {
		tb.Fatal(err)
	}
	return seal.JSON(keysOf(c.AppID)[0], seal.Place{Bucket: "wechat", Key: messages.Key(c.AppID, c.Kind)}, object)
}

// storeOf is the store of another worker.
func (f *fixture) storeOf(worker string) *store.Store {
	f.Helper()
	s, err := store.New(f.admin(), store.Config{Worker: worker, Now: f.clock.Now, Keys: keysOf})
	if err == nil {
		err = s.Ensure(f.context())
	}
	if err != nil {
		f.Fatal(err)
	}
	return s
}

// seed puts a valid token that is due for renewal into the bucket, as an earlier worker has left it.
func (f *fixture) seed(endpoint string) messages.Credential {
	f.Helper()
	ctx := f.context()
	token := f.foreignRefresh(endpoint)
	lease := f.takeLease("earlier", longLease)
	defer lease.Release(ctx)
	now := f.clock.Now().UTC().Truncate(time.Millisecond)
	c := messages.Credential{
		AppID: appid, Kind: messages.AccessToken, Value: token,
		ObtainedAt: now, ExpiresAt: now.Add(time.Hour), RefreshAt: now,
		Generation: 1, Source: endpoint, Worker: "earlier",
	}
	var err error
	if c.Revision, err = lease.Publish(ctx, c); err != nil {
		f.Fatal(err)
	}
	return c
}

// foreignRefresh fetches a token of the account as another system does.
func (f *fixture) foreignRefresh(endpoint string) string {
	f.Helper()
	token, err := f.wechat.ForeignRefresh(appid, endpoint)
	if err != nil {
		f.Fatal(err)
	}
	return token
}

// killToken makes the published classic token die as another system does: with two calls, because WeChat
// accepts the last token for some minutes after the first.
func (f *fixture) killToken() {
	f.Helper()
	f.foreignRefresh(messages.SourceToken)
	f.foreignRefresh(messages.SourceToken)
}

// validity is whether WeChat accepts a value, or why it does not.
type validity = wechattest.Validity

const valid = wechattest.Valid

// validity is the validity of a value now.
func (f *fixture) validity(appid string, kind messages.Kind, value string) validity {
	return f.wechat.Validity(appid, string(kind), value)
}

// checkValid checks that WeChat accepts a credential.
func (f *fixture) checkValid(c messages.Credential) {
	f.Helper()
	if v := f.validity(c.AppID, c.Kind, c.Value); v != valid {
		f.Errorf("generation %d of %s is %s for WeChat, want valid", c.Generation, messages.Key(c.AppID, c.Kind), v)
	}
}

// calls is the number of calls that WeChat got at an endpoint, or ("") at all of them.
func (f *fixture) calls(endpoint string) int { return f.wechat.Calls("", endpoint) }

// checkCalls checks how many calls WeChat got at an endpoint, or ("") at all of them.
func (f *fixture) checkCalls(endpoint string, want int) {
	f.Helper()
	if n := f.calls(endpoint); n != want {
		f.Errorf("WeChat got %d calls of %q, want %d", n, endpoint, want)
	}
}

// advance advances the clock, and lets the workers notice it. Before that it waits until no turn is running or
// due: the turn that follows would otherwise be planned from the new time.
func (f *fixture) advance(d time.Duration) {
	f.Helper()
	for _, w := range f.workers {
		w.awaitIdle()
	}
	f.clock.advance(d)
	for _, w := range f.workers {
		for _, l := range w.scheduler.lanes { // their timers know nothing of the clock
			select {
			case l.wake <- struct{}{}:
			default:
			}
		}
	}
}

// advanceTo advances the clock to just after a time, unless that is past.
func (f *fixture) advanceTo(at time.Time) {
	if d := at.Sub(f.clock.Now()); d >= 0 {
		f.advance(d + time.Millisecond)
	}
}

// context is a context for one step of a test.
func (f *fixture) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	f.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition that no event announces.
func (f *fixture) eventually(what string, condition func() bool) {
	f.Helper()
	if !f.poll(condition) {
		f.Fatalf("never: %s", what)
	}
}

// poll waits until a condition is true; false: it did not become true.
func (f *fixture) poll(condition func() bool) bool {
	f.Helper()
	deadline := time.Now().Add(patience)
	every := 5 * time.Millisecond
	if f.gate != nil {
		every *= 4 // many such fixtures wait at once
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !condition() {
		if time.Now().After(deadline) {
			return false
		}
		<-tick.C
		if f.clock.isStopped() {
			for _, w := range f.workers {
				w.retryBlocked()
			}
		}
	}
	return true
}

// testWorker is a running worker, and a connection to send requests to it.
type testWorker struct {
	*Worker
	*fixture
	nc     *nats.Conn
	client *messages.Client

	registry *prometheus.Registry
	stop     func() // stops the worker and waits for its end; may be called twice
}

// worker starts a worker with one account (stable_token, no tickets), unless change configures it otherwise.
func (f *fixture) worker(change func(*Config)) *testWorker {
	f.Helper()
	return f.workerOn(f.connect(), change)
}

// workerOn is worker on a given connection. prepare changes the worker before it runs.
func (f *fixture) workerOn(nc *nats.Conn, change func(*Config), prepare ...func(*Worker)) *testWorker {
	f.Helper()
	cfg := Config{
		Name:     "w",
		Accounts: []Account{{AppID: appid, Secret: secret}},
		WeChat:   wechat.Config{URLs: []string{f.wechat.URL}, Timeout: 5 * time.Second},
		Now:      f.clock.Now,
	}
	if !f.hurried {
		cfg.WeChat.Timeout, cfg.ResolveTimeout = patience, patience
	}
	if change != nil {
		change(&cfg)
	}
	registry := prometheus.NewRegistry()
	cfg.Registerer = registry
	w, err := New(nc, cfg)
	if err != nil {
		f.Fatal(err)
	}
	w.refresher.upstream = clockedUpstream{w.upstream, f.clock}
	if !f.hurried {
		w.refresher.leaseTTL = longLease
		w.store, err = store.New(nc, store.Config{
			Worker: cfg.Name, Timeout: longLease / 3, Now: cfg.Now, Keys: w.accounts.keys,
			OnForgedLease: func(appid string, kind messages.Kind) { w.refresher.forged(appid, kind, entryLease) },
			IsForeignLease: func(appid string, kind messages.Kind) bool {
				return w.refresher.foreign(appid, kind, entryLease)
			},
		})
		if err != nil {
			f.Fatal(err)
		}
		w.refresher.store, w.service.lookup.store = w.store, w.store
	}
	if f.lease != 0 {
		w.refresher.leaseTTL = f.lease
	}
	for _, prepare := range prepare {
		prepare(w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t := &testWorker{Worker: w, fixture: f, nc: w.nc, registry: registry}
	if f.gate == nil {
		t.nc = f.connect()
	}
	t.client = messages.NewClient(t.nc, cfg.SubjectPrefix)
	t.stop = sync.OnceFunc(func() {
		f.workers = slices.DeleteFunc(f.workers, func(w *testWorker) bool { return w == t })
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				f.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			f.Error("Run does not end")
		}
	})
	f.Cleanup(t.stop)
	select {
	case <-w.Ready():
	case err := <-ended:
		f.Fatalf("Run: %v", err)
	case <-time.After(patience):
		f.Fatal("the worker does not become ready")
	}
	f.workers = append(f.workers, t)
	return t
}

// await waits until the worker holds a credential of a generation above generation.
func (w *testWorker) await(kind messages.Kind, generation uint64) messages.Credential {
	w.Helper()
	return w.awaitOf(appid, kind, generation)
}

// awaitOf is await for a credential of a given account.
func (w *testWorker) awaitOf(appid string, kind messages.Kind, generation uint64) messages.Credential {
	w.Helper()
	var newer messages.Credential
	if !w.poll(func() bool {
		c, err := w.memory.get(appid, kind)
		if err != nil || c.Generation <= generation {
			return false
		}
		newer = *c
		return true
	}) {
		w.Fatalf("no newer %s than generation %d; status: %+v", kind, generation, w.statusOf(appid))
	}
	return newer
}

// retryBlocked plans turns again at once that were not possible, for example because another worker held the
// lease. They are tried again after some seconds, which do not pass while the clock is stopped.
func (w *testWorker) retryBlocked() {
	s := w.scheduler
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	for _, it := range s.items {
		if !it.running && it.blockedUntil.After(now) {
			it.blockedUntil, it.notBefore = now, now
			s.plan(it)
		}
	}
}

// awaitRetried waits until the worker holds the generation after generation. Meanwhile it advances the clock: a
// turn that was given up is tried again some seconds later.
func (w *testWorker) awaitRetried(generation uint64) {
	w.Helper()
	w.eventually("a newer credential", func() bool {
		w.advance(time.Second)
		return w.memory.held(appid, messages.AccessToken).Generation > generation
	})
	if c := w.await(messages.AccessToken, generation); c.Generation != generation+1 {
		w.Errorf("generation %d follows %d", c.Generation, generation)
	}
}

// isQuiet reports whether the worker has nothing to do for a credential for more than a minute.
func (w *testWorker) isQuiet(key string) bool {
	s := w.scheduler
	s.mu.Lock()
	defer s.mu.Unlock()
	it := s.items[key]
	return it != nil && !it.running && it.next.At.After(s.clock.Now().Add(time.Minute))
}

// awaitQuiet waits until the worker has nothing to do for a credential of the account for more than a minute.
func (w *testWorker) awaitQuiet(kind messages.Kind) {
	w.Helper()
	w.eventually("the worker has nothing more to do for the "+string(kind), func() bool {
		return w.isQuiet(messages.Key(appid, kind))
	})
}

// isIdle reports whether no turn of the worker is running or due.
func (w *testWorker) isIdle() bool {
	now := w.clock.Now()
	s := w.scheduler
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range s.items {
		if it.running || it.blockedUntil.After(now) || !it.next.At.IsZero() && !it.next.At.After(now) {
			return false
		}
	}
	return true
}

// awaitIdle waits until no turn of the worker is running or due.
func (w *testWorker) awaitIdle() {
	w.Helper()
	w.eventually("no turn is running or due", w.isIdle)
}

// planned is when the next turn of a credential of the account is.
func (w *testWorker) planned(kind messages.Kind) time.Time {
	c, _ := w.scheduler.of(messages.Key(appid, kind))
	return c.next.At
}

// statusOf is the worker's status of the credentials of an account.
func (w *testWorker) statusOf(appid string) []messages.CredentialStatus {
	return w.status.of(appid).Credentials
}

// stored is the record that the leader has.
func (w *testWorker) stored(kind messages.Kind) (messages.Credential, error) {
	return w.store.Get(w.context(), appid, kind)
}

// ledger is the ledger entry that the leader has.
func (w *testWorker) ledger(kind messages.Kind) store.Ledger {
	w.Helper()
	l, err := w.store.Ledger(w.context(), appid, kind)
	if err != nil {
		w.Fatal(err)
	}
	return l
}

// page asks the worker's HTTP handler.
func (w *testWorker) page(path string) (code int, body string) {
	rec := httptest.NewRecorder()
	w.Handler(w.registry).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
	return rec.Code, rec.Body.String()
}

// resolve requests the code of the sample over NATS.
func (w *testWorker) resolve() (messages.Code, error) {
	req := messages.ResolveCodeRequest{AppID: appid, OpenID: openid, CodeTicket: codeTicket}
	raw, err := w.client.ResolveCode(w.context(), req)
	if err != nil {
		return messages.Code{}, err
	}
	var c messages.Code
	return c, json.Unmarshal(raw, &c)
}

// report reports a credential of the account over NATS.
func (w *testWorker) report(r messages.RefreshCredentialRequest) (messages.Refreshed, error) {
	r.AppID = appid
	return w.client.RefreshCredential(w.context(), r)
}

// mustReport reports a credential, and checks the outcome.
func (w *testWorker) mustReport(r messages.RefreshCredentialRequest, want messages.Reason) messages.Refreshed {
	w.Helper()
	got, err := w.report(r)
	if err != nil {
		w.Fatalf("the report was refused: %v", err)
	}
	if got.Reason != want {
		w.Fatalf("the outcome of the report is %q, want %q", got.Reason, want)
	}
	if got.Refreshed != (want == messages.ReasonRefreshed) {
		w.Errorf("the reply has refreshed: %t, and the outcome is %q", got.Refreshed, got.Reason)
	}
	return got
}

// eventLog is a subscription to the events of all accounts.
type eventLog struct {
	*fixture
	sub *nats.Subscription
}

// events receives the events from now on.
func (f *fixture) events() *eventLog {
	f.Helper()
	nc := f.connect()
	sub, err := nc.SubscribeSync(messages.EventSubject("wechat", "*", "*", "*"))
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		f.Fatal(err)
	}
	return &eventLog{f, sub}
}

// next waits for the next event of a name. It skips other events.
func (e *eventLog) next(name string) messages.Event {
	e.Helper()
	for {
		if ev := e.any(); ev.Event == name {
			return ev
		}
	}
}

// any waits for the next event.
func (e *eventLog) any() messages.Event {
	e.Helper()
	var m *nats.Msg
	e.eventually("an event", func() (received bool) {
		var err error
		m, err = e.sub.NextMsg(5 * time.Millisecond)
		return err == nil
	})
	var ev messages.Event
	if err := json.Unmarshal(m.Data, &ev); err != nil {
		e.Fatal(err)
	}
	return ev
}

// logLines is the output of a log that a test can read.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// count is how often a text was logged.
func (l *logLines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

// symbol is the symbol of an error of the contract, or "".
func symbol(err error) messages.Symbol {
	var e *messages.Error
	if errors.As(err, &e) {
		return e.Symbol
	}
	return ""
}

// checkSymbol checks that err is an error of the contract.
func checkSymbol(tb testing.TB, what string, err error, want messages.Symbol) {
	tb.Helper()
	_ = refusal(tb, what, err, want)
}

// refusal checks that err is an error of the contract, and returns it.
func refusal(tb testing.TB, what string, err error, want messages.Symbol) *messages.Error {
	tb.Helper()
	var e *messages.Error
	if !errors.As(err, &e) || e.Symbol != want {
		tb.Errorf("%s: got the error %v, want %s", what, err, want)
		return new(messages.Error)
	}
	return e
}

// checkDiff checks that got equals want.
func checkDiff(tb testing.TB, what string, got, want any, opts ...cmp.Option) {
	tb.Helper()
	if diff := cmp.Diff(want, got, opts...); diff != "" {
		tb.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
