package worker

import (
	"context"
	cryptorand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// Config configures a [Worker]. The zero value works, but for Accounts.
type Config struct {
	Accounts []Account
	// Name tells this worker from others in records, events and logs; "" is the host's name and the process id.
	Name    string
	Version string // SemVer, shown by `nats micro`; "" is 0.0.0

	Bucket        string // "" is kv.DefaultBucket
	SubjectPrefix string // "" is messages.DefaultPrefix
	Replicas      int    // of the buckets; 0: 3 in a cluster, else 1

	// WeChat configures the client of the server API. Its OnCall is taken.
	WeChat wechat.Config
	// RefreshBefore is how long before its end a classic token is renewed, at most a third of its life; 0 is 10 min.
	RefreshBefore time.Duration
	// RefreshConcurrency is how many refreshes this worker makes at once, and as many again of credentials whose refreshes
	// fail, and maybe hang, one after another; 0 is 32.
	RefreshConcurrency int
	// ResolveConcurrency is how many code resolutions are in flight at once; 0 is 256.
	ResolveConcurrency int
	// ResolveTimeout is within which a code resolution is answered, whatever WeChat does; 0 is 4 s.
	ResolveTimeout time.Duration

	// OnAccountRefused is told the AppID of an account that WeChat refuses, maybe for its AppSecret; it must not block. Who
	// is told may read the secret again and call SetAccounts. nil: nobody is told.
	OnAccountRefused func(appid string)

	Log        *slog.Logger          // nil: nothing is logged
	Registerer prometheus.Registerer // nil: a registry of its own
	Now        func() time.Time      // nil is time.Now
	Random     func() float64        // of [0,1), for jitter; nil is math/rand
}

func (c *Config) setDefaults() {
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "worker"
		}
		c.Name = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
	if c.Version == "" {
		c.Version = "0.0.0"
	}
	if c.SubjectPrefix == "" {
		c.SubjectPrefix = messages.DefaultPrefix
	}
	if c.Bucket == "" {
		c.Bucket = messages.DefaultBucket
	}
	if c.RefreshBefore == 0 {
		c.RefreshBefore = DefaultRefreshBefore
	}
	if c.RefreshConcurrency == 0 {
		c.RefreshConcurrency = 32
	}
	if c.ResolveConcurrency == 0 {
		c.ResolveConcurrency = DefaultResolveConcurrency
	}
	if c.ResolveTimeout == 0 {
		c.ResolveTimeout = DefaultResolveTimeout
	}
	if c.WeChat.Timeout == 0 {
		c.WeChat.Timeout = wechat.DefaultTimeout
	}
	if c.OnAccountRefused == nil {
		c.OnAccountRefused = func(string) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Float64
	}
}

// Worker is one worker of the fleet. Make it with [New], then call [Worker.Run] once.
type Worker struct {
	cfg       Config
	nc        *nats.Conn
	accounts  accounts // exchanged by SetAccounts
	store     *kv.Store
	reader    *kv.Reader
	upstream  *wechat.Client
	metrics   *metrics
	scheduler *scheduler
	refresher *refresher
	service   *service
	ready     chan struct{}

	setting sync.Mutex // one SetAccounts at a time
}

// New makes a worker on a connection made with nats.ReconnectBufSize(-1). It asks neither NATS nor WeChat for anything.
// The connection stays the caller's.
func New(nc *nats.Conn, cfg Config) (*Worker, error) {
	cfg.setDefaults()
	w := &Worker{cfg: cfg, nc: nc, ready: make(chan struct{})}
	err := w.accounts.set(cfg.Accounts)
	if err != nil {
		return nil, err
	}
	if w.metrics, err = newMetrics(cfg.Registerer, w.collect); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	cfg.WeChat.OnCall = w.metrics.called
	if w.upstream, err = wechat.New(cfg.WeChat); err != nil {
		return nil, err
	}
	if w.store, err = kv.NewStore(nc, kv.StoreConfig{
		Bucket: cfg.Bucket, SubjectPrefix: cfg.SubjectPrefix, Replicas: cfg.Replicas, Worker: cfg.Name, Now: cfg.Now,
	}); err != nil {
		return nil, err
	}
	w.scheduler = newScheduler(cfg.RefreshConcurrency)
	if w.reader, err = kv.NewReader(nc, kv.ReaderConfig{
		Bucket: cfg.Bucket, Now: cfg.Now, OnMissing: w.store.Ensure, OnTrouble: w.trouble("credentials"),
		OnChange: func(c kv.Change) {
			switch {
			case c.Reset:
				w.scheduler.resetRecords()
			case !c.Ready:
				w.scheduler.learnRecord(c)
			}
		},
	}); err != nil {
		return nil, err
	}
	p := &policy{refreshBefore: cfg.RefreshBefore, random: cfg.Random}
	w.refresher = &refresher{
		store: w.store, reader: w.reader, upstream: w.upstream, policy: p, log: cfg.Log, metrics: w.metrics, emit: w.emit,
		known: w.scheduler.known, lostAt: w.scheduler.lostAt, seenLedger: w.scheduler.seenLedger, seenRecord: w.scheduler.seenRecord, worker: cfg.Name, accountRefused: cfg.OnAccountRefused,
		leaseTTL: leaseFor(cfg.WeChat.Timeout), now: cfg.Now,
	}
	s := w.scheduler
	s.policy, s.reader, s.now, s.work, s.log = p, w.reader, cfg.Now, w.work, cfg.Log
	s.setAccounts(w.accounts.all())
	find := &lookup{store: w.store, reader: w.reader, missing: w.missing, now: cfg.Now}
	w.service = &service{
		nc: nc, accounts: &w.accounts, prefix: cfg.SubjectPrefix, version: cfg.Version, worker: cfg.Name,
		report: w.refresher.report, lookup: find, signer: &signer{lookup: find, now: cfg.Now, nonce: cryptorand.Text}, status: w.status, metrics: w.metrics, log: cfg.Log,
		resolver: &resolver{
			lookup: find, upstream: w.upstream, report: w.refresher.report, log: cfg.Log, timeout: cfg.ResolveTimeout,
			limit: cfg.ResolveConcurrency,
		},
	}
	return w, nil
}

// Ready is closed when the worker knows the buckets' state and answers requests. It does not say that WeChat answers.
func (w *Worker) Ready() <-chan struct{} { return w.ready }

// SetAccounts exchanges the accounts that the worker keeps. A new account, and a changed secret that WeChat had refused,
// are tried at once; an account that is gone is renewed no more and answered with unknown_account, and its records are left to
// their TTL. Where the list makes no sense it changes nothing, and returns why. Safe for concurrent use.
func (w *Worker) SetAccounts(list []Account) error {
	w.setting.Lock()
	defer w.setting.Unlock()
	if err := w.accounts.set(list); err != nil {
		return err
	}
	w.scheduler.setAccounts(w.accounts.all())
	return nil
}

// Run keeps the credentials fresh and answers requests until ctx ends. It then stops cleanly (design §5.11): it leaves
// the queue group, answers what it holds, ends the refreshes that have begun and gives their leases back; that takes
// at most about the longer of the resolve timeout and a lease. It returns nil after such a stop, and an error where it
// could not start.
func (w *Worker) Run(ctx context.Context) error {
	defer w.upstream.Close()
	if err := w.open(ctx); err != nil {
		return ignoreStop(ctx, err)
	}
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	var watches, turns sync.WaitGroup
	defer watches.Wait()
	defer stopWatching()
	ledgersReady := make(chan struct{})
	var once sync.Once
	watches.Go(func() { _ = w.reader.Run(watching) })
	watches.Go(func() {
		w.store.WatchLedgers(watching, kv.LedgerWatch{
			Reset: w.scheduler.resetLedgers, Told: w.scheduler.learnLedger, Trouble: w.trouble("ledger"),
			Ready: func() {
				w.scheduler.ledgersTold()
				once.Do(func() { close(ledgersReady) })
			},
		})
	})
	for _, known := range []<-chan struct{}{w.reader.Ready(), ledgersReady} {
		select {
		case <-known:
		case <-ctx.Done():
			return nil
		}
	}
	if err := w.service.start(); err != nil {
		return ignoreStop(ctx, err)
	}
	turns.Go(func() { w.scheduler.run(ctx) })
	w.cfg.Log.Info("worker ready", "worker", w.cfg.Name, "accounts", w.accounts.len(), "bucket", w.cfg.Bucket, "subjects", w.cfg.SubjectPrefix+".>")
	close(w.ready)

	<-ctx.Done()
	w.cfg.Log.Info("worker stops", "worker", w.cfg.Name)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(w.cfg.ResolveTimeout, w.refresher.leaseTTL)+time.Second)
	defer cancel()
	w.service.stop(grace)
	turns.Wait()
	w.refresher.settling.Wait() // no more begin: neither requests nor turns are left
	return nil
}

// open makes and verifies the buckets, for as long as JetStream does not answer yet.
func (w *Worker) open(ctx context.Context) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := w.store.Ensure(ctx)
		if err == nil || errors.Is(err, kv.ErrBucket) {
			return err
		}
		w.cfg.Log.Warn("the buckets cannot be opened yet", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

func ignoreStop(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// leaseAgain is how long after a lease should have ended it is tried again: the server ends it up to half a second late.
const leaseAgain = time.Second / 4

// work is one turn of the scheduler.
func (w *Worker) work(ctx context.Context, a *Account, kind messages.Kind, held bool) (retry time.Duration, nowHeld bool) {
	jitter := func(d time.Duration) time.Duration { return time.Duration(w.cfg.Random() * float64(d)) }
	if !w.nc.IsConnected() {
		return time.Second + jitter(2*time.Second), false
	}
	err := w.refresher.scheduled(ctx, a, kind)
	switch {
	case errors.Is(err, kv.ErrLeaseHeld):
		// Its outcome comes by the watch; if it has died, its lease ends.
		return w.leaseLeft(a, kind, held) + leaseAgain + jitter(leaseAgain), true
	case errors.Is(err, kv.ErrUnavailable), errors.Is(err, kv.ErrConflict), errors.Is(err, kv.ErrLeaseLost):
		w.cfg.Log.Warn("a refresh was given up", "appid", a.AppID, "kind", kind, "error", err)
		return time.Second + jitter(2*time.Second), false
	}
	return 0, false // the policy knows when, from the ledger
}

// leaseLeft is for how long a lease that another holds stands at most: not the whole of it again where the ledger says
// when its holder began, or where it was waited for already, or a dead worker would cost the fleet its lease and the time
// until somebody tried.
func (w *Worker) leaseLeft(a *Account, kind messages.Kind, waited bool) time.Duration {
	ttl := w.refresher.leaseTTL
	l, _ := w.scheduler.known(a, kind)
	if since := w.cfg.Now().Sub(l.LastAttempt); l.Attempts > 0 && since >= 0 {
		return max(ttl-since, 0)
	}
	if waited {
		return 0
	}
	return ttl
}

// missing is the error of a request that needs a credential where there is none: it says when that may change.
func (w *Worker) missing(a *Account, kind messages.Kind) error {
	l, next := w.scheduler.known(a, kind)
	e := messages.Errorf(messages.NoCredential, "there is no living %s of %s now", kind, a.AppID)
	if l.Failure != nil {
		e.Message += ": " + l.Failure.Message
		e.Errcode, e.RID = l.Failure.Errcode, l.Failure.RID
	}
	return e.After(max(next.Sub(w.cfg.Now()), retryMin))
}

// trouble logs why a watch had to start over.
func (w *Worker) trouble(bucket string) func(error) {
	return func(err error) { w.cfg.Log.Warn("a watch starts over", "bucket", bucket, "error", err) }
}

// emit publishes an event. It is lost where NATS is away: the ledger and the status tell the same.
func (w *Worker) emit(a *Account, e messages.Event) {
	e.AppID, e.Name, e.Worker, e.Time = a.AppID, a.Name, w.cfg.Name, w.cfg.Now().UTC()
	body, err := json.Marshal(e)
	if err == nil {
		err = w.nc.Publish(messages.EventSubject(w.cfg.SubjectPrefix, e.AppID, e.Kind, e.Event), body)
	}
	if err != nil {
		w.cfg.Log.Debug("an event could not be sent", "event", e.Event, "error", err)
	}
}
