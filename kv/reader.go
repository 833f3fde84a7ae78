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

	"github.com/wxkeeper/wxkeeper/kv/internal/feed"
	"github.com/wxkeeper/wxkeeper/messages"
)

// ErrExpired is returned where the last credential known has expired, and no newer one has arrived.
var ErrExpired = errors.New("kv: the credential has expired")

// ReaderConfig configures a [Reader]. The zero value works: it follows all accounts of the default bucket by a watch.
type ReaderConfig struct {
	Bucket        string // "" is DefaultBucket
	SubjectPrefix string // first token of the workers' subjects; "" is DefaultSubjectPrefix
	// AppIDs are the accounts to follow; empty: all. A watch of exactly one asks for nothing that concerns another, and a NATS
	// permission can hold it to that. A permission cannot name the filters of a watch of several: those who may follow only
	// some accounts use Direct.
	AppIDs []string
	// Direct has the bucket read by direct gets and its changes heard as core NATS messages, without a JetStream
	// consumer, so that the NATS user needs almost no permission (docs/security.md). It needs AppIDs.
	Direct bool
	// CacheFile is a file in which the Reader keeps what it knows, so that a consumer that starts while NATS is away has
	// credentials at once. It holds them in the clear, at mode 0600 (which means nothing on Windows), and belongs to one process;
	// one that others may read, or that another user owns, is not used. "": none is kept.
	CacheFile string
	// OnChange is told of every change of the bucket, after Get shows it. It is called from one goroutine and must not
	// block: that goroutine keeps the Reader current. nil: nobody is told. [Reader.Changes] is for who may be slow.
	OnChange func(Change)
	// OnTrouble is told why the Reader cannot hear of changes, each time it tries in vain, why CacheFile is not used or not
	// written, and why a Transport could not report a dead token. It may be called before NewReader returns, is not called
	// twice at the same time, and must not block. nil: nobody is told.
	OnTrouble func(error)
	// OnMissing is called when the bucket is not there, before the watch looks again. Workers make it anew; consumers
	// leave it nil and wait.
	OnMissing func(context.Context) error
	Now       func() time.Time // nil is time.Now
	// Source is for kvtest; nil: NATS.
	Source feed.Source
}

// Change is one change of the bucket.
type Change struct {
	AppID string
	Kind  messages.Kind
	// Record is what stands in the bucket now; nil: nothing valid does (deleted, expired, lost with its bucket). The
	// Reader may still hold a newer value.
	Record *messages.Credential
	// Revision is that of the change in the bucket; 0: the record was lost with its bucket.
	Revision uint64
	// Reset marks the beginning of a snapshot, after which revisions may be lower than before; Ready marks its end. The
	// other fields are zero then.
	Reset, Ready bool
}

// Reader always has the current credentials of one or many accounts in memory, as the bucket brings them: usually within
// milliseconds of their publication, and within some seconds after a server was lost. A network that swallows everything
// without a word is noticed by the connection's pings alone: see NewReader.
//
// Its reading methods never block, take no lock, allocate nothing where there is a valid credential, are safe for
// concurrent use, and go on serving what has not expired while NATS is away, and after Run has ended. It never goes back
// to a lower generation while it holds a valid credential, unless the bucket was made anew, with all that the workers
// knew of generations, and has a value that was obtained later. (A Reader of named accounts may not ask the bucket how old
// it is, and reckons with that after each lost connection.)
type Reader struct {
	cfg    ReaderConfig
	source feed.Source
	// report tells the workers that WeChat refuses a credential.
	report func(context.Context, messages.RefreshCredentialRequest) (messages.Refreshed, error)
	cache  *cache // nil: none

	reports reports // of tokens that WeChat refuses

	slots sync.Map     // appid → *slots
	clock atomic.Int64 // see handle.go
	ready chan struct{}
	once  sync.Once

	telling sync.Mutex // held while OnTrouble is called

	mu        sync.Mutex // guards the writing side: epoch, bucket, the unexported fields of slots, the listeners, the state of the feed
	epoch     int        // grows with each snapshot
	bucket    int        // grows with each bucket made anew
	listeners listeners
	fallbacks map[*slot]name // those that have an other
	state     feedState
}

// slots are the credentials of one account.
type slots [len(messages.Kinds)]slot

type slot struct {
	// quick is held, for handles: the value and its end, in Unix nanoseconds.
	quick atomic.Pointer[quick]
	held  atomic.Pointer[messages.Credential]
	// other is the last record of the bucket that was not taken, because held lives and has a higher generation: it takes
	// its place when held ends.
	other  atomic.Pointer[messages.Credential]
	epoch  int // of the watch's snapshot in which the key was last seen in the bucket; 0: it is not there
	bucket int // the one that held came from
}

// hold makes c the held credential. r.mu is held.
func (s *slot) hold(c *messages.Credential) {
	s.held.Store(c)
	s.quick.Store(&quick{c.Value, c.ExpiresAt.UnixNano()})
}

// NewReader makes a Reader. [Reader.Run] keeps it current. It asks NATS for nothing; where CacheFile is there, it has
// that file's credentials when NewReader returns.
//
// The connection should be made with nats.RetryOnFailedConnect(true) and nats.MaxReconnects(-1), so that neither a start
// without NATS nor a long outage ends it; and with nats.PingInterval of some seconds, because by default
// a line that has fallen silent is noticed after some minutes.
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
	r := &Reader{cfg: cfg, source: cfg.Source, ready: make(chan struct{}), listeners: listeners{}, fallbacks: map[*slot]name{}}
	if r.source == nil {
		js, err := jetstream.New(nc)
		if err != nil {
			return nil, fmt.Errorf("kv: %w", err)
		}
		r.source = &natsSource{nc: nc, js: js, cfg: &r.cfg}
	}
	r.report = r.source.Report
	r.clock.Store(never)
	r.state.since = cfg.Now()
	if cfg.CacheFile != "" {
		r.cache = &cache{file: cfg.CacheFile, bucket: cfg.Bucket}
		r.restore()
	}
	return r, nil
}

// Run follows the bucket until ctx ends, and returns ctx's error. It is called once.
func (r *Reader) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { r.turnClock(ctx) })
	if r.cache != nil {
		running.Go(func() { r.keep(ctx) })
	}
	r.source.Run(ctx, r.told)
	<-ctx.Done() // a source may end before
	running.Wait()
	r.clock.Store(never) // the source may have set it after turnClock has ended
	return ctx.Err()
}

// natsSource feeds a Reader from NATS.
type natsSource struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	cfg *ReaderConfig
}

func (s *natsSource) Run(ctx context.Context, emit func(feed.Event)) {
	if s.cfg.Direct {
		d := direct{nc: s.nc, bucket: s.cfg.Bucket, prefix: s.cfg.SubjectPrefix, appids: s.cfg.AppIDs, emit: emit}
		d.run(ctx)
		return
	}
	w := watch{js: s.js, bucket: s.cfg.Bucket, keys: []string{"*.*"}, emit: emit, missing: s.cfg.OnMissing}
	if len(s.cfg.AppIDs) > 0 {
		w.narrow = s.cfg.OnMissing == nil
		w.keys = make([]string, len(s.cfg.AppIDs))
		for i, id := range s.cfg.AppIDs {
			w.keys[i] = id + ".*"
		}
	}
	w.run(ctx)
}

func (s *natsSource) Report(ctx context.Context, req messages.RefreshCredentialRequest) (messages.Refreshed, error) {
	return messages.NewClient(s.nc, s.cfg.SubjectPrefix).RefreshCredential(ctx, req)
}

// Ready is closed when the first snapshot of the bucket is complete.
func (r *Reader) Ready() <-chan struct{} { return r.ready }

// Apply takes a record that its caller knows to stand in the bucket (a worker's own publication) before the watch
// brings it.
func (r *Reader) Apply(c messages.Credential) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accept(&c, false)
}

// told takes one event of the source.
func (r *Reader) told(e feed.Event) {
	var changes []Change
	r.mu.Lock()
	if e.Anew {
		r.bucket++
	}
	switch {
	case e.Reset:
		r.epoch++
		changes = append(changes, Change{Reset: true})
	case e.Ready:
		r.state.ready = true
		changes = append(r.lost(), Change{Ready: true})
	case e.Up:
		r.state.up(r.cfg.Now())
	case e.Down != nil:
		r.state.down(r.cfg.Now(), e.Down)
	case e.Tick:
		r.setClock()
		r.promote()
	default:
		appid, kind, ok := messages.ParseKey(e.Key)
		if !ok {
			break
		}
		change := Change{AppID: appid, Kind: kind, Revision: e.Rev}
		if !e.Gone {
			c, err := decodeCredential(e.Value, appid, kind, e.Rev)
			if err == nil {
				change.Record = &c
				r.accept(&c, true)
			} else {
				defer r.trouble(err)
			}
		}
		if change.Record == nil {
			r.slot(appid, kind).epoch = 0
		}
		changes = append(changes, change)
	}
	r.mu.Unlock()
	if e.Down != nil && !isTurn(e.Down) {
		r.trouble(e.Down)
	}
	if e.Ready {
		r.once.Do(func() { close(r.ready) })
	}
	if r.cfg.OnChange != nil {
		for _, c := range changes {
			r.cfg.OnChange(c)
		}
	}
}

// trouble tells of trouble, of one at a time.
func (r *Reader) trouble(err error) {
	if r.cfg.OnTrouble != nil {
		r.telling.Lock()
		defer r.telling.Unlock()
		r.cfg.OnTrouble(err)
	}
}

// lost are the credentials that were in the bucket before its last snapshot and are not in it.
func (r *Reader) lost() []Change {
	var changes []Change
	r.slots.Range(func(appid, v any) bool {
		for i := range v.(*slots) {
			s := &v.(*slots)[i]
			if s.epoch != 0 && s.epoch != r.epoch {
				s.epoch = 0
				changes = append(changes, Change{AppID: appid.(string), Kind: messages.Kinds[i]})
			}
		}
		return true
	})
	return changes
}

// slot finds the slot of a valid kind, or makes it. r.mu is held.
func (r *Reader) slot(appid string, kind messages.Kind) *slot {
	v, ok := r.slots.Load(appid)
	if !ok {
		v, _ = r.slots.LoadOrStore(appid, new(slots))
	}
	return &v.(*slots)[kindIndex(kind)]
}

// accept makes c the held credential unless that would be a step back. r.mu is held.
func (r *Reader) accept(c *messages.Credential, fromBucket bool) {
	s := r.slot(c.AppID, c.Kind)
	firstOfSnapshot := fromBucket && s.epoch != r.epoch
	if fromBucket {
		s.epoch = r.epoch
	}
	now := r.cfg.Now()
	if current, err := s.current(now, c.AppID, c.Kind); err == nil {
		switch {
		case c.Generation < current.Generation && (s.bucket == r.bucket || !c.ObtainedAt.After(current.ObtainedAt)):
			if o := s.other.Load(); fromBucket && (o == nil || !o.Valid(now) || !c.ObtainedAt.Before(o.ObtainedAt)) {
				s.other.Store(c)
				r.fallbacks[s] = name{c.AppID, c.Kind}
			}
			return
		case c.Generation == current.Generation && c.Revision < current.Revision && s.bucket == r.bucket && !firstOfSnapshot:
			return
		}
	}
	s.bucket = r.bucket
	r.show(s, c, name{c.AppID, c.Kind})
	s.other.Store(nil)
	delete(r.fallbacks, s)
}

// show makes c the held credential, for everybody. r.mu is held.
func (r *Reader) show(s *slot, c *messages.Credential, n name) {
	s.hold(c)
	r.listeners.tell(n.appid, n.kind)
	if r.cache != nil {
		r.cache.changed()
	}
}
