package kv

import (
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

// Errors of the reading methods.
var (
	// ErrNotFound is returned if no credential was seen yet.
	ErrNotFound = bucket.ErrNotFound
	// ErrExpired is returned if the last credential that was seen has expired, and no newer one has arrived.
	ErrExpired = bucket.ErrExpired
)

// ReaderConfig configures a [Reader]. The zero value works: it follows all accounts of the default bucket by a watch.
type ReaderConfig struct {
	Bucket        string // "" is messages.DefaultBucket
	SubjectPrefix string // first token of the workers' subjects; "" is messages.DefaultPrefix
	// AppIDs are the accounts to follow; empty: all. A watch of exactly one account requests nothing that concerns other
	// accounts, so a NATS permission can limit it to that account. A permission cannot limit a watch of several accounts:
	// services that may follow only some accounts use Direct.
	AppIDs []string
	// Direct reads the bucket by direct gets and receives changes as core NATS messages, without a JetStream consumer, so
	// that the NATS user needs very few permissions (docs/security.md). It needs AppIDs.
	Direct bool
	// CacheFile is a file in which the Reader saves its credentials, so that a service that starts while NATS is not
	// available has credentials at once. They are stored unencrypted, with mode 0600 (which has no effect on Windows). Each
	// process needs a file of its own. A file that other users may read, or that another user owns, is not used. "": no file.
	CacheFile string
	// OnChange is called with every change of the bucket, after Get returns it. It is called from one goroutine and must not
	// block: that goroutine keeps the Reader current. nil: it is not called. [Reader.Changes] may be slow.
	OnChange func(Change)
	// OnError is called with each problem that the Reader handles itself: why changes are not received (again with each
	// attempt), why CacheFile is not used or not written, why a Transport could not report a refused token. It may be called
	// before NewReader returns, is not called concurrently, and must not block. nil: it is not called.
	OnError func(error)
	Now     func() time.Time // nil is time.Now
	// Source is for kvtest; nil: NATS.
	Source bucket.Source
}

// Change is one change of the bucket.
type Change struct {
	AppID string
	Kind  messages.Kind
	// Record is the record that the bucket has now; nil: it has no valid one (deleted, expired, or lost with its bucket). The
	// Reader may still hold a newer value.
	Record *messages.Credential
	// Revision is the bucket's revision of the change; 0: the record was lost with its bucket.
	Revision uint64
	// Reset is the beginning of a snapshot, after which revisions may be lower than before; Ready is its end. The other fields
	// are zero then.
	Reset, Ready bool
}

// Reader holds the current credentials of one or many accounts in memory. A new credential usually arrives within milliseconds
// of its publication, and within some seconds if a NATS server was lost at that time. Only the connection's pings detect a
// network that silently drops packets: see [NewReader].
//
// Its reading methods never block, take no lock, allocate nothing while there is a valid credential, are safe for concurrent
// use, and continue to return what has not expired while NATS is not available, and after Run has returned. A Reader never
// goes back to a lower generation while it holds a valid credential, unless the bucket was recreated, with everything that
// the workers knew of generations, and has a value that was obtained later. (A Reader of named accounts has no permission to
// ask when the bucket was created, so it assumes after each lost connection that the bucket may have been recreated.)
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

// NewReader makes a Reader. [Reader.Run] keeps it current. NewReader sends nothing; if there is a CacheFile, the Reader holds
// its credentials when NewReader returns.
//
// The connection should be made with nats.RetryOnFailedConnect(true) and nats.MaxReconnects(-1), so that neither a start
// without NATS nor a long outage ends it; and with a nats.PingInterval of some seconds, because with the default a silent
// connection is detected only after some minutes.
func NewReader(nc *nats.Conn, cfg ReaderConfig) (*Reader, error) {
	if cfg.Bucket == "" {
		cfg.Bucket = messages.DefaultBucket
	}
	if cfg.SubjectPrefix == "" {
		cfg.SubjectPrefix = messages.DefaultPrefix
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.AppIDs = slices.Compact(slices.Sorted(slices.Values(cfg.AppIDs)))
	for _, id := range cfg.AppIDs {
		if err := messages.CheckAppID(id); err != nil {
			return nil, fmt.Errorf("kv: ReaderConfig.AppIDs: %w", err)
		}
	}
	if cfg.Direct && len(cfg.AppIDs) == 0 {
		return nil, errors.New("kv: ReaderConfig.Direct needs AppIDs: a direct get names its key")
	}
	r := &Reader{cfg: cfg, source: cfg.Source, latest: bucket.NewLatest(cfg.Now), ready: make(chan struct{}), listeners: listeners{}}
	if r.source == nil {
		js, err := jetstream.New(nc)
		if err != nil {
			return nil, fmt.Errorf("kv: %w", err)
		}
		r.source = &natsSource{nc: nc, js: js, cfg: &r.cfg}
	}
	r.clock.Store(never)
	r.state.since = cfg.Now()
	if cfg.CacheFile != "" {
		r.cache = &cache{file: cfg.CacheFile, bucket: cfg.Bucket, dirty: make(chan struct{}, 1)}
		r.restore()
	}
	return r, nil
}

// ErrRunning is returned by a second call of [Reader.Run].
var ErrRunning = errors.New("kv: Run was called before: make another Reader")

// Run follows the bucket until ctx ends, and returns ctx's error. A second call returns [ErrRunning] at once.
func (r *Reader) Run(ctx context.Context) error {
	if r.running.Swap(true) {
		return ErrRunning
	}
	var running sync.WaitGroup
	running.Go(func() { r.advanceClock(ctx) })
	if r.cache != nil {
		running.Go(func() { r.keep(ctx) })
	}
	r.source.Run(ctx, r.handle)
	<-ctx.Done() // a source of kvtest may return earlier
	running.Wait()
	r.clock.Store(never) // the source may have set it after advanceClock has returned
	return ctx.Err()
}

// Ready is closed when the first snapshot of the bucket is complete.
func (r *Reader) Ready() <-chan struct{} { return r.ready }

// Get returns the current credential: [ErrNotFound] if none was seen yet, [ErrExpired] if the last one has expired.
//
// It asks the clock at each call. If that costs too much, use a [Handle].
func (r *Reader) Get(appid string, kind messages.Kind) (messages.Credential, error) {
	c, err := r.latest.Get(appid, kind)
	if err != nil {
		return messages.Credential{}, fmt.Errorf("kv: %w", err)
	}
	return *c, nil
}

// AccessToken returns the current access_token of an account; errors as of [Reader.Get].
func (r *Reader) AccessToken(appid string) (string, error) {
	c, err := r.latest.Get(appid, messages.AccessToken)
	if err != nil {
		return "", fmt.Errorf("kv: %w", err)
	}
	return c.Value, nil
}

// handle takes one event of the source.
func (r *Reader) handle(e bucket.Event) {
	changes, replaced, err := r.latest.Apply(e)
	if e.Tick {
		r.setClock()
		replaced = r.latest.Promote()
	}
	r.mu.Lock()
	switch {
	case e.Ready:
		r.state.ready = true
	case e.Up:
		r.state.up(r.cfg.Now())
	case e.Down != nil:
		r.state.down(r.cfg.Now(), e.Down)
	}
	r.mu.Unlock()
	r.notify(replaced)
	if e.Down != nil && !bucket.IsRoutine(e.Down) {
		r.onError(fmt.Errorf("kv: %w", e.Down))
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

// notify wakes the listeners of the credentials that were replaced, and has the file written.
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
	nc  *nats.Conn
	js  jetstream.JetStream
	cfg *ReaderConfig
}

func (s *natsSource) Run(ctx context.Context, emit func(bucket.Event)) {
	if s.cfg.Direct {
		d := bucket.Direct{NC: s.nc, Bucket: s.cfg.Bucket, Prefix: s.cfg.SubjectPrefix, AppIDs: s.cfg.AppIDs, Emit: emit}
		d.Run(ctx)
		return
	}
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
	return messages.NewClient(s.nc, s.cfg.SubjectPrefix).RefreshCredential(ctx, req)
}
