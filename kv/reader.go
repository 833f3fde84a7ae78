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

	"github.com/wxkeeper/wxkeeper/messages"
)

// ErrExpired is returned where the last credential known has expired, and no newer one has arrived.
var ErrExpired = errors.New("kv: the credential has expired")

// ReaderConfig configures a [Reader]. The zero value works: it follows all accounts of the default bucket.
type ReaderConfig struct {
	Bucket        string   // "" is DefaultBucket
	SubjectPrefix string   // first token of the workers' subjects; "" is DefaultSubjectPrefix
	AppIDs        []string // the accounts to follow; empty: all
	// OnChange is told of every change of the bucket, after Get shows it. It is called from one goroutine and must not
	// block. nil: nobody is told.
	OnChange func(Change)
	// OnTrouble is told why the watch had to start over. It must not block. nil: nobody is told.
	OnTrouble func(error)
	// OnMissing is called when the bucket is not there, before the watch looks again. Workers make it anew; consumers
	// leave it nil and wait.
	OnMissing func(context.Context) error
	Now       func() time.Time // nil is time.Now
}

// Change is one change of the bucket.
type Change struct {
	AppID string
	Kind  Kind
	// Record is what stands in the bucket now; nil: nothing valid does (deleted, expired, lost with its bucket). The
	// Reader may still hold a newer value.
	Record *Credential
	// Revision is that of the change in the bucket; 0: the record was lost with its bucket.
	Revision uint64
	// Reset marks the beginning of a snapshot, after which revisions may be lower than before; Ready marks its end. The
	// other fields are zero then.
	Reset, Ready bool
}

// Reader always has the current credentials of one or many accounts in memory, as a watch of the bucket brings them:
// usually within a millisecond of their publication, within about two seconds after a server was lost.
//
// Its reading methods never block, take no lock, are safe for concurrent use, and go on serving what has not expired
// while NATS is away. It never goes back to a lower generation while it holds a valid credential, unless the bucket was
// made anew, with all that the workers knew of generations, and has a value that was obtained later.
type Reader struct {
	cfg  ReaderConfig
	js   jetstream.JetStream
	keys []string
	// report tells the workers that WeChat refuses a credential.
	report func(context.Context, messages.RefreshCredential) (messages.Refreshed, error)

	slots sync.Map // appid → *slots
	ready chan struct{}
	once  sync.Once

	mu      sync.Mutex // guards the writing side: epoch, bucket, the unexported fields of slots, waiters
	epoch   int        // grows with each snapshot
	bucket  int        // grows with each bucket made anew
	waiters map[chan struct{}]struct{}
}

// slots are the credentials of one account.
type slots [len(Kinds)]slot

type slot struct {
	held atomic.Pointer[Credential]
	// other is the record in the bucket where it was not taken, because held lives and has a higher generation: it takes
	// its place when held ends.
	other  atomic.Pointer[Credential]
	epoch  int // of the watch's snapshot in which the key was last seen in the bucket; 0: it is not there
	bucket int // the one that held came from
}

// NewReader makes a Reader. [Reader.Run] fills it.
func NewReader(nc *nats.Conn, cfg ReaderConfig) (*Reader, error) {
	if cfg.Bucket == "" {
		cfg.Bucket = DefaultBucket
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	keys := []string{"*.*"}
	if len(cfg.AppIDs) > 0 {
		keys = make([]string, len(cfg.AppIDs))
		for i, id := range cfg.AppIDs {
			if err := CheckAppID(id); err != nil {
				return nil, fmt.Errorf("kv: %w", err)
			}
			keys[i] = id + ".*"
		}
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("kv: %w", err)
	}
	return &Reader{
		cfg: cfg, js: js, keys: keys, report: messages.NewClient(nc, cfg.SubjectPrefix).RefreshCredential,
		ready: make(chan struct{}), waiters: make(map[chan struct{}]struct{}),
	}, nil
}

// Run follows the bucket until ctx ends, and returns ctx's error. It is called once.
func (r *Reader) Run(ctx context.Context) error {
	w := watch{js: r.js, bucket: r.cfg.Bucket, keys: slices.Clone(r.keys), emit: r.told, missing: r.cfg.OnMissing, trouble: r.cfg.OnTrouble}
	w.run(ctx)
	return ctx.Err()
}

// Ready is closed when the first snapshot of the bucket is complete.
func (r *Reader) Ready() <-chan struct{} { return r.ready }

// Get returns the current credential. [ErrNotFound]: none was ever seen. [ErrExpired]: the last one seen is dead.
func (r *Reader) Get(appid string, kind Kind) (Credential, error) {
	s := r.find(appid, kind)
	if s == nil {
		return Credential{}, fmt.Errorf("%w: %s", ErrNotFound, Key(appid, kind))
	}
	c, now := s.held.Load(), r.cfg.Now()
	if c != nil && c.Valid(now) {
		return *c, nil
	}
	if o := s.other.Load(); o != nil && o.Valid(now) {
		return *o, nil
	}
	if c = s.held.Load(); c == nil { // again: other is given up for a newer one
		return Credential{}, fmt.Errorf("%w: %s", ErrNotFound, Key(appid, kind))
	}
	if c.Valid(now) {
		return *c, nil
	}
	return Credential{}, fmt.Errorf("%w: %s at %s", ErrExpired, Key(appid, kind), c.ExpiresAt.Format(time.RFC3339))
}

// AccessToken returns the current access_token of an account; errors as of [Reader.Get].
func (r *Reader) AccessToken(appid string) (string, error) {
	c, err := r.Get(appid, AccessToken)
	return c.Value, err
}

// Wait returns the current credential as soon as there is one, or ctx's error.
func (r *Reader) Wait(ctx context.Context, appid string, kind Kind) (Credential, error) {
	return r.WaitNewer(ctx, appid, kind, 0)
}

// WaitNewer returns the current credential as soon as its generation is above generation, or ctx's error.
func (r *Reader) WaitNewer(ctx context.Context, appid string, kind Kind, generation uint64) (Credential, error) {
	changed := make(chan struct{}, 1)
	r.mu.Lock()
	r.waiters[changed] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.waiters, changed)
		r.mu.Unlock()
	}()
	for {
		if c, err := r.Get(appid, kind); err == nil && c.Generation > generation {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return Credential{}, fmt.Errorf("kv: waiting for %s: %w", Key(appid, kind), ctx.Err())
		case <-changed:
		}
	}
}

// Held returns the last credential seen, expired or not, or nil. Workers use it; it must not be changed.
func (r *Reader) Held(appid string, kind Kind) *Credential {
	if s := r.find(appid, kind); s != nil {
		return s.held.Load()
	}
	return nil
}

// find finds the slot of a credential; nil: there is none yet.
func (r *Reader) find(appid string, kind Kind) *slot {
	i := kind.index()
	if i < 0 {
		return nil
	}
	v, ok := r.slots.Load(appid)
	if !ok {
		return nil
	}
	return &v.(*slots)[i]
}

// Apply takes a record that its caller knows to stand in the bucket (a worker's own publication) before the watch
// brings it.
func (r *Reader) Apply(c Credential) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accept(&c, false)
}

// told takes one event of the watch.
func (r *Reader) told(e event) {
	var changes []Change
	r.mu.Lock()
	switch {
	case e.reset:
		r.epoch++
		if e.anew {
			r.bucket++
		}
		changes = append(changes, Change{Reset: true})
	case e.ready:
		changes = append(r.lost(), Change{Ready: true})
	default:
		appid, kind, ok := splitKey(e.key)
		if !ok {
			break
		}
		change := Change{AppID: appid, Kind: kind, Revision: e.rev}
		if !e.gone {
			c, err := decodeCredential(e.value, appid, kind, e.rev)
			switch {
			case err == nil:
				change.Record = &c
				r.accept(&c, true)
			case r.cfg.OnTrouble != nil:
				r.cfg.OnTrouble(err)
			}
		}
		if change.Record == nil {
			s := r.slot(appid, kind)
			s.epoch = 0
			s.other.Store(nil)
		}
		changes = append(changes, change)
	}
	r.mu.Unlock()
	if e.ready {
		r.once.Do(func() { close(r.ready) })
	}
	if r.cfg.OnChange != nil {
		for _, c := range changes {
			r.cfg.OnChange(c)
		}
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
				s.other.Store(nil)
				changes = append(changes, Change{AppID: appid.(string), Kind: Kinds[i]})
			}
		}
		return true
	})
	return changes
}

// slot finds the slot of a valid kind, or makes it. r.mu is held.
func (r *Reader) slot(appid string, kind Kind) *slot {
	v, ok := r.slots.Load(appid)
	if !ok {
		v, _ = r.slots.LoadOrStore(appid, new(slots))
	}
	return &v.(*slots)[kind.index()]
}

// accept makes c the held credential unless that would be a step back. r.mu is held.
func (r *Reader) accept(c *Credential, fromBucket bool) {
	s := r.slot(c.AppID, c.Kind)
	firstOfSnapshot := fromBucket && s.epoch != r.epoch
	if fromBucket {
		s.epoch = r.epoch
	}
	if held := s.held.Load(); held != nil && held.Valid(r.cfg.Now()) {
		switch {
		case c.Generation < held.Generation && (s.bucket == r.bucket || !c.ObtainedAt.After(held.ObtainedAt)):
			if fromBucket {
				s.other.Store(c)
			}
			return
		case c.Generation == held.Generation && c.Revision < held.Revision && !firstOfSnapshot:
			return
		}
	}
	s.held.Store(c)
	s.other.Store(nil)
	s.bucket = r.bucket
	for w := range r.waiters {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}
