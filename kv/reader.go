package kv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// Errors of a [Reader].
var (
	// ErrNotFound is returned by reading methods if the Reader has not seen a credential of this account and
	// kind. The error's text says so if there cannot be one: the kind is unknown, the AppID is invalid, or
	// the Reader does not follow the account.
	ErrNotFound = bucket.ErrNotFound
	// ErrExpired is returned by reading methods if the last credential has expired, and no newer one has
	// arrived.
	ErrExpired = bucket.ErrExpired
	// ErrRunning is returned by a second call of [Reader.Run].
	ErrRunning = errors.New("kv: Run was called before: make another Reader")
)

// Feed is how a [Reader] receives changes. Each feed needs a list of permissions of the same name, or more
// (docs/permissions.md).
type Feed string

// The feeds of a [Reader].
const (
	// FeedAuto is FeedRequests if AppIDs are named, else FeedWatch.
	FeedAuto Feed = ""
	// FeedRequests requests credentials from the workers, and needs AppIDs. It is for every service: its NATS user
	// needs the list requester, which has no right to ask JetStream, and may be in another NATS account than the
	// workers. While no worker runs, it receives nothing new, and there is nothing new.
	FeedRequests Feed = "requests"
	// FeedDirect reads the bucket by direct gets, and needs AppIDs. It does not depend on workers. A NATS user with
	// the list direct is trusted with its whole NATS account, unless the workers have a NATS account of their own.
	FeedDirect Feed = "direct"
	// FeedWatch watches the bucket through a JetStream consumer, also for all accounts. It is for services that are
	// trusted with the whole NATS account of the workers (the lists reader and watcher).
	FeedWatch Feed = "watch"
)

// ReaderConfig configures a [Reader]. The zero value works: it follows all accounts of the default bucket by a
// watch.
type ReaderConfig struct {
	Bucket        string // "" is messages.DefaultBucket
	SubjectPrefix string // first token of the workers' subjects; "" is messages.DefaultPrefix
	// JSDomain is the JetStream domain of the bucket, for FeedDirect and FeedWatch: WXKEEPER_JS_DOMAIN of the workers.
	// "": the JetStream of the connected server, or of the account.
	JSDomain string
	// AppIDs are the accounts to follow; empty: all. A NATS permission can limit a watch to exactly one account, and
	// the other feeds to any accounts.
	AppIDs []string
	// Feed is how the Reader receives changes; "" is FeedRequests if there are AppIDs, else FeedWatch.
	Feed Feed
	// CacheFile is a file in which the Reader saves its credentials, so that a service that starts while NATS
	// is not available has credentials at once. They are not encrypted. The file has mode 0600, which has no
	// effect on Windows; a file that other users may read, or that another user owns, is not used. Each
	// process needs a file of its own. "": no file.
	CacheFile string
	// OnChange is called with every change of the bucket, after Get returns it. It is called from one
	// goroutine and must not block: that goroutine keeps the Reader current. nil: it is not called.
	// A loop over [Reader.Changes] may be slow.
	OnChange func(Change)
	// OnError is called with each problem that the Reader handles itself: changes are not received (once for each
	// reason, and with [ErrRecovered] when they are received again), a record is invalid, CacheFile is not used or
	// not written, a Transport could not report a refused token. It may be called before NewReader returns, is not
	// called concurrently, and must not block. nil: it is not called.
	OnError func(error)
	Now     func() time.Time // nil is time.Now
	// Source is set by package kvtest; nil is NATS.
	Source bucket.Source
}

// Change is one change of the bucket.
type Change struct {
	AppID string
	Kind  messages.Kind
	// Record is the record that the bucket has now; nil: it has no valid record (deleted, expired, or lost
	// with the bucket). The Reader may hold a newer credential. With FeedRequests it is what a worker holds.
	Record *messages.Credential
	// Revision is the bucket's revision of the change; 0: the record was lost with its bucket, or a worker could not
	// publish it yet.
	Revision uint64
	// Reset begins a snapshot, after which revisions may be lower than before; Ready ends it. The other
	// fields are zero then.
	Reset, Ready bool
}

// Reader holds the current credentials of one or many accounts in memory. A new credential usually arrives
// within milliseconds of its publication, and within some seconds if a NATS server was lost at that time.
// Only the connection's pings detect a network that silently drops packets: see [NewReader].
//
// All methods are safe for concurrent use. The reading methods (Get, AccessToken, and those of a [Handle])
// never block, take no lock, and allocate nothing while there is a valid credential. They continue to return
// what has not expired while NATS is not available, and after Run has returned.
//
// While a Reader holds a valid credential it goes back to a lower generation only if that one was obtained later,
// or if the workers say, in reply to a report, that it is the current one. So a Reader continues when the workers
// have lost the count of generations, and a forged record with a high generation is replaced by the next refresh.
//
// A Reader believes a record only as a record of the account and kind that it has asked for. It ignores a record
// that messages.Credential.ValidateAt refuses, and calls OnError: its clock may be more than an hour behind.
type Reader struct {
	cfg     ReaderConfig
	source  bucket.Source
	latest  *bucket.Latest
	cache   *cache  // nil: no file
	reports reports // of refused tokens
	clock   atomic.Int64
	ready   chan struct{}
	once    sync.Once
	running atomic.Bool

	errors sync.Mutex // held while OnError is called

	mu        sync.Mutex // guards what follows
	listeners listeners
	state     feedState
}

// NewReader makes a Reader. Call [Reader.Run] to keep it current. NewReader sends nothing. If there is a
// CacheFile, the Reader holds the credentials of the file when NewReader returns.
//
// Make the connection with nats.RetryOnFailedConnect(true) and nats.MaxReconnects(-1), so that neither a
// start without NATS nor a long outage ends it, and with a nats.PingInterval of some seconds, because with
// the default a silent connection is detected only after some minutes.
func NewReader(nc *nats.Conn, cfg ReaderConfig) (*Reader, error) {
	cfg.Bucket = cmp.Or(cfg.Bucket, messages.DefaultBucket)
	cfg.SubjectPrefix = cmp.Or(cfg.SubjectPrefix, messages.DefaultPrefix)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.AppIDs = slices.Compact(slices.Sorted(slices.Values(cfg.AppIDs)))
	for _, id := range cfg.AppIDs {
		if err := messages.CheckAppID(id); err != nil {
			return nil, fmt.Errorf("kv: ReaderConfig.AppIDs: %w", err)
		}
	}
	if err := cfg.chooseFeed(); err != nil {
		return nil, err
	}
	r := &Reader{
		cfg: cfg, source: cfg.Source, latest: bucket.NewLatest(cfg.Now), ready: make(chan struct{}),
		listeners: listeners{},
	}
	if r.source == nil {
		js, err := bucket.JetStream(nc, cfg.JSDomain)
		if err != nil {
			return nil, fmt.Errorf("kv: %w", err)
		}
		r.source = &natsSource{nc: nc, js: js, workers: messages.NewClient(nc, cfg.SubjectPrefix), cfg: &r.cfg}
	}
	r.clock.Store(never)
	r.state.since = cfg.Now()
	if cfg.CacheFile != "" {
		r.cache = &cache{file: cfg.CacheFile, bucket: cfg.Bucket, dirty: make(chan struct{}, 1)}
		r.restore()
	}
	return r, nil
}

// chooseFeed replaces FeedAuto.
func (cfg *ReaderConfig) chooseFeed() error {
	named := len(cfg.AppIDs) > 0
	switch {
	case cfg.Feed == FeedAuto && named:
		cfg.Feed = FeedRequests
	case cfg.Feed == FeedAuto:
		cfg.Feed = FeedWatch
	case (cfg.Feed == FeedRequests || cfg.Feed == FeedDirect) && !named:
		return fmt.Errorf("kv: ReaderConfig.Feed %q needs AppIDs: it reads each account by itself", cfg.Feed)
	case !slices.Contains([]Feed{FeedRequests, FeedDirect, FeedWatch}, cfg.Feed):
		return fmt.Errorf("kv: ReaderConfig.Feed: there is no feed %q", cfg.Feed)
	}
	return nil
}

// Run follows the bucket until ctx ends, and returns ctx's error. A second call returns [ErrRunning] at once.
func (r *Reader) Run(ctx context.Context) error {
	if r.running.Swap(true) {
		return ErrRunning
	}
	var running sync.WaitGroup
	running.Go(func() { r.advanceClock(ctx) })
	if r.cache != nil {
		running.Go(func() { r.saveChanges(ctx) })
	}
	r.source.Run(ctx, r.handle)
	<-ctx.Done() // a source of kvtest may return earlier
	running.Wait()
	r.clock.Store(never) // the source may have set it after advanceClock has returned
	return ctx.Err()
}

// Ready is closed when the first snapshot of the bucket is complete.
func (r *Reader) Ready() <-chan struct{} { return r.ready }

// Get returns the current credential: [ErrNotFound] if none was seen, [ErrExpired] if the last one has expired.
//
// Get asks the system for the time at each call. If that costs too much, use a [Handle].
func (r *Reader) Get(appid string, kind messages.Kind) (messages.Credential, error) {
	c, err := r.latest.Get(appid, kind)
	if err != nil {
		return messages.Credential{}, fmt.Errorf("kv: %w", r.explain(err, appid, kind))
	}
	return *c, nil
}

// AccessToken returns the value of the current access_token of an account; errors as of [Reader.Get].
func (r *Reader) AccessToken(appid string) (string, error) {
	c, err := r.Get(appid, messages.AccessToken)
	return c.Value, err
}

// explain returns why there can be no credential, or err if there can be one.
func (r *Reader) explain(err error, appid string, kind messages.Kind) error {
	if impossible := r.check(appid, kind); impossible != nil {
		return impossible
	}
	return err
}

// check returns why there can be no credential of this account and kind, or nil.
func (r *Reader) check(appid string, kind messages.Kind) error {
	if err := r.checkAccount(appid); err != nil {
		return err
	}
	if !kind.Valid() {
		return impossibleError(fmt.Sprintf("%.64q is not a kind of credential: use one of %v", kind, messages.Kinds))
	}
	return nil
}

// checkAccount returns why there can be no credential of this account, or nil.
func (r *Reader) checkAccount(appid string) error {
	if err := messages.CheckAppID(appid); err != nil {
		return impossibleError(err.Error())
	}
	if _, ok := slices.BinarySearch(r.cfg.AppIDs, appid); !ok && len(r.cfg.AppIDs) > 0 {
		return impossibleError("the Reader does not follow account " + appid + ": add it to ReaderConfig.AppIDs")
	}
	return nil
}

// impossibleError is an [ErrNotFound] that says why there can be no credential.
type impossibleError string

func (e impossibleError) Error() string { return string(e) }

// Is makes the error an ErrNotFound for errors.Is.
func (e impossibleError) Is(target error) bool { return target == ErrNotFound }

// handle handles one event of the source.
func (r *Reader) handle(e bucket.Event) {
	changes, replaced, err := r.latest.Apply(e)
	if e.Tick {
		r.setClock()
		replaced = r.latest.Promote()
	}
	var news error // of the source
	r.mu.Lock()
	switch {
	case e.Ready:
		r.state.ready = true
	case e.Up:
		news = r.state.up(r.cfg.Now())
	case e.Down != nil:
		news = r.state.down(r.cfg.Now(), e.Down)
	}
	r.mu.Unlock()
	r.notify(replaced)
	if news != nil {
		r.onError(fmt.Errorf("kv: %w", news))
	}
	if e.Ready {
		r.once.Do(func() { close(r.ready) })
	}
	if r.cfg.OnChange != nil {
		for _, c := range changes {
			r.cfg.OnChange(Change(c))
		}
	}
	if err != nil {
		r.onError(fmt.Errorf("kv: %w", err))
	}
}

// notify wakes the listeners of the credentials that were replaced, and notes that the file lacks them.
func (r *Reader) notify(replaced []bucket.Name) {
	if len(replaced) == 0 {
		return
	}
	r.mu.Lock()
	for _, n := range replaced {
		r.listeners.notify(n)
	}
	r.mu.Unlock()
	if r.cache != nil {
		r.cache.changed()
	}
}

// onError calls OnError, with one error at a time.
func (r *Reader) onError(err error) {
	if r.cfg.OnError != nil {
		r.errors.Lock()
		defer r.errors.Unlock()
		r.cfg.OnError(err)
	}
}

// natsSource is the source of a Reader on NATS.
type natsSource struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	workers *messages.Client
	cfg     *ReaderConfig
}

func (s *natsSource) Run(ctx context.Context, emit func(bucket.Event)) {
	if s.cfg.Feed == FeedWatch {
		s.watch(ctx, emit)
		return
	}
	records := bucket.Requests(s.nc, s.cfg.SubjectPrefix)
	if s.cfg.Feed == FeedDirect {
		records = bucket.Direct(s.nc, s.cfg.JSDomain, s.cfg.Bucket)
	}
	p := bucket.Poll{
		NC: s.nc, Prefix: s.cfg.SubjectPrefix, AppIDs: s.cfg.AppIDs, Records: records, Emit: emit,
	}
	p.Run(ctx)
}

func (s *natsSource) watch(ctx context.Context, emit func(bucket.Event)) {
	w := bucket.Watch{JS: s.js, Bucket: s.cfg.Bucket, Keys: []string{bucket.AllKeys}, Emit: emit}
	if len(s.cfg.AppIDs) > 0 {
		w.Narrow = true
		w.Keys = make([]string, len(s.cfg.AppIDs))
		for i, id := range s.cfg.AppIDs {
			w.Keys[i] = bucket.AccountKeys(id)
		}
	}
	w.Run(ctx)
}

func (s *natsSource) Report(ctx context.Context, req messages.RefreshCredentialRequest) (messages.Refreshed, error) {
	return s.workers.RefreshCredential(ctx, req)
}
