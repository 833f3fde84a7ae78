package worker

import (
	"cmp"
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// Defaults of [Config].
const (
	DefaultRefreshBefore      = 10 * time.Minute
	DefaultResolveConcurrency = 256
	DefaultResolveTimeout     = 4 * time.Second
)

// Config configures a [Worker]. The zero value works except for Accounts.
type Config struct {
	Accounts []Account
	// Name is the name of this worker in records, events and logs; "" is the host's name and the process id.
	Name    string
	Version string // SemVer, shown by `nats micro`; "" is 0.0.0

	Bucket        string // "" is messages.DefaultBucket
	SubjectPrefix string // "" is messages.DefaultPrefix
	Replicas      int    // of the buckets; 0: 3 in a cluster, else 1
	// MaxBytes, Memory, PlacementTags and JSDomain are settings of the buckets: see store.Config.
	MaxBytes      int64
	Memory        bool
	PlacementTags []string
	JSDomain      string

	// WeChat configures the client of the server API. Its OnCall is overwritten.
	WeChat wechat.Config
	// RefreshBefore is how long before its end a classic token is renewed, at most a third of its life; 0 is 10 min.
	RefreshBefore time.Duration
	// RefreshConcurrency is the number of refreshes that this worker makes at once, and again as many of
	// credentials that keep failing; 0 is 32.
	RefreshConcurrency int
	// ResolveConcurrency is the number of code resolutions in flight at once; 0 is 256.
	ResolveConcurrency int
	// ResolveTimeout is the time within which a code resolution is answered, whatever WeChat does; 0 is 4 s.
	ResolveTimeout time.Duration

	// OnAccountRefused is called with the AppID of an account that WeChat refuses, which may be because of its
	// AppSecret. It must not block. It may cause the secret to be read again and SetAccounts to be called. nil:
	// it is not called.
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
	c.Version = cmp.Or(c.Version, "0.0.0")
	c.SubjectPrefix = cmp.Or(c.SubjectPrefix, messages.DefaultPrefix)
	c.Bucket = cmp.Or(c.Bucket, messages.DefaultBucket)
	c.RefreshBefore = cmp.Or(c.RefreshBefore, DefaultRefreshBefore)
	c.RefreshConcurrency = cmp.Or(c.RefreshConcurrency, 32)
	c.ResolveConcurrency = cmp.Or(c.ResolveConcurrency, DefaultResolveConcurrency)
	c.ResolveTimeout = cmp.Or(c.ResolveTimeout, DefaultResolveTimeout)
	c.WeChat.Timeout = cmp.Or(c.WeChat.Timeout, wechat.DefaultTimeout)
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
	accounts  accounts // replaced by SetAccounts
	store     *store.Store
	upstream  *wechat.Client
	memory    *memory
	refresher *refresher
	scheduler *scheduler
	service   *service
	status    *status
	ready     chan struct{}
	running   atomic.Bool

	setting sync.Mutex // one SetAccounts at a time
}

// New makes a worker on a connection that was made with nats.ReconnectBufSize(-1). It sends nothing to NATS or
// WeChat. The connection stays the caller's.
func New(nc *nats.Conn, cfg Config) (*Worker, error) {
	cfg.setDefaults()
	w := &Worker{cfg: cfg, nc: nc, ready: make(chan struct{})}
	w.accounts.clock = cfg.Now
	if err := w.accounts.set(cfg.Accounts); err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	cfg.WeChat.OnCall = m.called
	if w.upstream, err = wechat.New(cfg.WeChat); err != nil {
		return nil, err
	}
	if w.store, err = store.New(nc, store.Config{
		Bucket: cfg.Bucket, SubjectPrefix: cfg.SubjectPrefix, Replicas: cfg.Replicas, Worker: cfg.Name, Now: cfg.Now,
		MaxBytes: cfg.MaxBytes, Memory: cfg.Memory, PlacementTags: cfg.PlacementTags, JSDomain: cfg.JSDomain,
		OnFewReplicas: w.fewReplicas, OnCreate: w.bucketCreated, Keys: w.accounts.keys,
		OnForgedLease: func(appid string, kind messages.Kind) { w.refresher.forged(appid, kind, entryLease) },
		IsForeignLease: func(appid string, kind messages.Kind) bool {
			return w.refresher.foreign(appid, kind, entryLease)
		},
	}); err != nil {
		return nil, err
	}
	w.memory = newMemory(cfg.Now, cfg.Log)
	w.refresher = &refresher{
		memory: w.memory, store: w.store, upstream: w.upstream,
		policy:  &policy.Policy{RefreshBefore: cfg.RefreshBefore, Random: cfg.Random},
		clock:   systemClock{cfg.Now},
		events:  &events{nats: nc, prefix: cfg.SubjectPrefix, worker: cfg.Name, now: cfg.Now, log: cfg.Log},
		metrics: m, log: cfg.Log, worker: cfg.Name, leaseTTL: leaseFor(cfg.WeChat.Timeout),
		accountRefused: cfg.OnAccountRefused, accounts: &w.accounts, lastError: nc.LastError,
		explain: w.store.Explain,
	}
	w.scheduler = newScheduler(w.memory, w.refresher, cfg.RefreshConcurrency, cfg.Log)
	w.scheduler.setAccounts(w.accounts.all())
	w.status = &status{worker: cfg.Name, version: cfg.Version, now: cfg.Now, accounts: &w.accounts, memory: w.memory,
		scheduler: w.scheduler}
	if err := cfg.Registerer.Register(w.status); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	find := &lookup{store: w.store, memory: w.memory, scheduler: w.scheduler, now: cfg.Now}
	w.service = &service{
		nc: nc, accounts: &w.accounts, prefix: cfg.SubjectPrefix, version: cfg.Version, worker: cfg.Name,
		refresher: w.refresher, lookup: find,
		signer: &signer{lookup: find, now: cfg.Now, nonce: cryptorand.Text}, status: w.status, metrics: m, log: cfg.Log,
		resolves: newGate(cfg.ResolveConcurrency*(joinersPerFlight+1), &w.accounts),
		reports:  newGate(maxReports, &w.accounts),
		gets:     newGate(maxGets, &w.accounts),
		signs:    newGate(maxSigns, &w.accounts),
		resolver: &resolver{
			lookup: find, upstream: w.upstream, refresher: w.refresher, log: cfg.Log, timeout: cfg.ResolveTimeout,
			flying: newAdmission(cfg.ResolveConcurrency, "resolutions in flight (WXKEEPER_RESOLVE_CONCURRENCY)", &w.accounts),
			joined: newAdmission(cfg.ResolveConcurrency*joinersPerFlight, "equal requests in progress", &w.accounts),
		},
	}
	return w, nil
}

// Ready is closed when the worker knows the buckets' state and answers requests. WeChat may still not answer.
func (w *Worker) Ready() <-chan struct{} { return w.ready }

// SetAccounts replaces the accounts that the worker keeps. A new account, and a changed secret after WeChat has
// refused the old one, are tried at once. A removed account is no longer renewed and answered with
// unknown_account; its records stay until their TTL ends. If the list is invalid, SetAccounts changes nothing
// and returns an error. Safe for concurrent use.
func (w *Worker) SetAccounts(list []Account) error {
	w.setting.Lock()
	defer w.setting.Unlock()
	if err := w.accounts.set(list); err != nil {
		return err
	}
	w.scheduler.setAccounts(w.accounts.all())
	return nil
}

// ErrRunning is returned by a second call of [Worker.Run].
var ErrRunning = errors.New("Run was called before: make another Worker")

// Run keeps the credentials fresh and answers requests until ctx ends. It then stops cleanly
// (docs/architecture.md#refresh-11): it leaves the queue group, answers the requests that have arrived, ends
// the refreshes that have begun and releases their leases. That takes at most about the longer of the resolve
// timeout and a lease. It returns nil after such a stop, an error if it cannot start (a [store.Refusal] if JetStream
// refuses the buckets and only an operator can change that), and [ErrRunning] at once if it was called before.
func (w *Worker) Run(ctx context.Context) error {
	if w.running.Swap(true) {
		return ErrRunning
	}
	defer w.upstream.Close()
	if err := w.open(ctx); err != nil {
		return ignoreStop(ctx, err)
	}
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	var watches, turns sync.WaitGroup
	defer watches.Wait()
	defer stopWatching()
	watches.Go(func() { w.store.WatchRecords(watching, w.memory.handleRecords) })
	watches.Go(func() { w.store.WatchLedgers(watching, w.memory.handleLedgers) })
	for _, known := range []<-chan struct{}{w.memory.recordsReady, w.memory.ledgersReady} {
		select {
		case <-known:
		case <-ctx.Done():
			return nil
		}
	}
	w.scheduler.start() // before requests arrive: status shows when the next turns are
	if err := w.service.start(); err != nil {
		return ignoreStop(ctx, err)
	}
	turns.Go(func() { w.scheduler.run(ctx) })
	w.cfg.Log.Info("worker ready", "worker", w.cfg.Name, "accounts", w.accounts.len(), "bucket", w.cfg.Bucket,
		"subjects", w.cfg.SubjectPrefix+".>")
	close(w.ready)
	w.warnOfOverlappingStreams(ctx)

	<-ctx.Done()
	w.cfg.Log.Info("worker stopping", "worker", w.cfg.Name)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(w.cfg.ResolveTimeout,
		w.refresher.leaseTTL)+time.Second)
	defer cancel()
	w.service.stop(grace)
	turns.Wait()
	w.refresher.reporting.Wait() // no more begin: requests and turns have ended
	return nil
}

// open creates and verifies the buckets, and retries while JetStream does not answer, or refuses what may pass. It logs
// each problem once.
func (w *Worker) open(ctx context.Context) error {
	logged := map[string]bool{}
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := w.store.Ensure(ctx)
		refusal, known := errors.AsType[*store.Refusal](err)
		if err == nil || known && refusal.Permanent {
			return err
		}
		attrs := []any{"error", err}
		if known {
			attrs = []any{"error", refusal.Err, "advice", refusal.Advice}
		}
		if text := err.Error(); !logged[text] && len(logged) < maxLoggedProblems {
			w.cfg.Log.Warn("buckets not open yet", attrs...)
			logged[text] = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// maxLoggedProblems limits the different problems that a start logs while the buckets are not open. Problems that
// alternate are logged once each.
const maxLoggedProblems = 32

// OverlapAdvice says what to do about a stream that stores requests or tokens.
const OverlapAdvice = "Edit the subjects of the stream, so that they match neither the requests nor " +
	"published: nats stream edit NAME --subjects … (a stream for events stores wechat.event.>)."

// warnOfOverlappingStreams logs which streams store requests to the workers, or tokens. It blocks for one request for
// each subject.
func (w *Worker) warnOfOverlappingStreams(ctx context.Context) {
	streams, err := w.store.Overlapping(ctx)
	switch {
	case err != nil && ctx.Err() == nil:
		w.cfg.Log.Debug("streams not listed", "error", err)
	case len(streams) > 0:
		w.cfg.Log.Error("streams store requests or tokens of wxkeeper", "streams", streams, "advice", OverlapAdvice)
	}
}

// bucketCreated logs that a bucket was created.
func (w *Worker) bucketCreated(name string, replicas int) {
	w.cfg.Log.Info("bucket created", "bucket", name, "replicas", replicas)
}

// fewReplicas logs that a bucket has fewer replicas than a cluster should give it.
func (w *Worker) fewReplicas(name string, replicas int) {
	w.cfg.Log.Warn("bucket has too few replicas for a cluster: the loss of one server can stop every refresh", "bucket",
		name, "replicas", replicas, "advice", fmt.Sprintf("When three NATS servers with JetStream run: nats stream edit "+
			"%s --replicas 3. Or set WXKEEPER_REPLICAS=%d to accept it.", bucket.Stream(name), replicas))
}

func ignoreStop(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}
