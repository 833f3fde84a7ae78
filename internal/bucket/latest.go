package bucket

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
)

// Errors of [Latest].
var (
	// ErrNotFound is returned if no credential was ever seen.
	ErrNotFound = errors.New("no credential was seen yet")
	// ErrExpired is returned if the last credential that was seen has expired.
	ErrExpired = errors.New("the credential has expired")
)

// Latest holds the latest credential of each key that a feed delivers. While it holds a valid credential it
// goes back to a lower generation only if that one was obtained later. Then the workers have lost the count, or
// what is held was forged; a record of a replica that lags, or of a restored backup, was obtained earlier.
//
// Reading takes no lock and does not block. All methods are safe for concurrent use. The zero value does not
// work; use [NewLatest].
type Latest struct {
	now   func() time.Time
	slots sync.Map // appid → *[len(messages.Kinds)]Slot

	mu        sync.Mutex // guards what follows, and the unexported non-atomic fields of slots
	snapshots int        // the number of the current snapshot; 1 until the first Reset
	fallbacks map[*Slot]Name
}

// Name names a credential.
type Name struct {
	AppID string
	Kind  messages.Kind
}

// Slot holds the latest credential of one key.
type Slot struct {
	quick atomic.Pointer[Quick]
	held  atomic.Pointer[messages.Credential]
	// fallback is the last record of the bucket that was not taken, because held is valid and has a higher
	// generation. It replaces held when held expires.
	fallback  atomic.Pointer[messages.Credential]
	snapshot  int    // the snapshot in which the key was last seen in the bucket; 0: the bucket does not have it
	preferred uint64 // the revision of a record that replaces held, whatever its generation; 0: none. See Prefer
}

// Quick is the part of a credential that kv.Handle reads: the value, and the end of its life in Unix
// nanoseconds.
type Quick struct {
	Value string
	Ends  int64
}

// Change is one change of the bucket. Its fields are those of kv.Change.
type Change struct {
	AppID        string
	Kind         messages.Kind
	Record       *messages.Credential
	Revision     uint64
	Reset, Ready bool
}

// NewLatest makes an empty Latest. now is the clock by which credentials expire.
func NewLatest(now func() time.Time) *Latest {
	return &Latest{now: now, snapshots: 1, fallbacks: map[*Slot]Name{}}
}

// Apply takes one event of a feed. It returns what has changed in the bucket, and the names of the credentials
// that were replaced; a record that is delivered again replaces itself. Up, Down and Tick change nothing. The
// error is that of [DecodeRecord] or [messages.Credential.ValidateAt]: the entry then counts as removed.
func (l *Latest) Apply(e Event) (changes []Change, replaced []Name, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case e.Reset:
		l.snapshots++
		return []Change{{Reset: true}}, nil, nil
	case e.Ready:
		return append(l.missing(), Change{Ready: true}), nil, nil
	}
	appid, kind, ok := messages.ParseKey(e.Key)
	if !ok {
		return nil, nil, nil
	}
	change := Change{AppID: appid, Kind: kind, Revision: e.Revision}
	if !e.Removed {
		var c messages.Credential
		if c, err = DecodeRecord(e.Value, appid, kind, e.Revision); err == nil {
			err = c.ValidateAt(l.now())
		}
		if err == nil {
			change.Record = &c
			replaced = l.accept(&c, true)
		}
	}
	if change.Record == nil {
		l.slot(appid, kind).snapshot = 0
	}
	return []Change{change}, replaced, err
}

// Accept takes a record that the caller knows to be stored in the bucket, has obtained itself, or has saved before
// a restart, before the feed delivers it. It returns the record's name if the record replaced the held one.
func (l *Latest) Accept(c messages.Credential) (replaced []Name) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accept(&c, false)
}

// Prefer takes the record of a revision in place of the refused value, even if the record's generation is lower:
// the workers say that it is the current one. If the feed has not delivered the record yet, it is taken when the
// feed does. It returns the record's name if the record was taken now.
func (l *Latest) Prefer(n Name, refused string, revision uint64) (replaced []Name) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.find(n.AppID, n.Kind)
	if s == nil || revision == 0 {
		return nil
	}
	if held := s.held.Load(); held == nil || held.Value != refused {
		return nil
	}
	if c := s.fallback.Load(); c != nil && c.Revision == revision && c.Valid(l.now()) {
		l.take(s, c)
		return []Name{n}
	}
	s.preferred = revision
	return nil
}

// Get returns the current credential, which must not be changed: [ErrNotFound], [ErrExpired].
func (l *Latest) Get(appid string, kind messages.Kind) (*messages.Credential, error) {
	s := l.find(appid, kind)
	if s == nil {
		return nil, errNotFound(appid, kind)
	}
	return s.Get(l.now(), appid, kind)
}

// Held returns the credential that Latest holds, expired or not, or nil. It must not be changed.
func (l *Latest) Held(appid string, kind messages.Kind) *messages.Credential {
	if s := l.find(appid, kind); s != nil {
		return s.held.Load()
	}
	return nil
}

// Slot returns the slot of a credential, whether or not there is a credential yet. The slot is kept until the
// process exits. appid and kind must be valid.
func (l *Latest) Slot(appid string, kind messages.Kind) *Slot {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slot(appid, kind)
}

// Each calls f with the slot of each credential of the accounts of which anything was seen.
func (l *Latest) Each(f func(Name, *Slot)) {
	l.slots.Range(func(appid, v any) bool {
		for i := range v.(*slots) {
			f(Name{appid.(string), messages.Kinds[i]}, &v.(*slots)[i])
		}
		return true
	})
}

// Promote replaces each credential that has expired by its fallback, and returns the names of the credentials
// that were replaced. [Latest.Get] does not need Promote: it is for handles and listeners.
func (l *Latest) Promote() (replaced []Name) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for s, n := range l.fallbacks {
		if l.promote(s, now) {
			replaced = append(replaced, n)
		}
	}
	return replaced
}

// promote replaces the held credential by its fallback if the held one has expired, and reports whether it did.
// l.mu is locked.
func (l *Latest) promote(s *Slot, now time.Time) (replaced bool) {
	fallback := s.fallback.Load()
	if held := s.held.Load(); fallback == nil || held.Valid(now) {
		return false
	}
	if replaced = fallback.Valid(now); replaced {
		s.hold(fallback)
	}
	s.fallback.Store(nil) // after hold: a concurrent reader finds one of the two
	delete(l.fallbacks, s)
	return replaced
}

type slots [len(messages.Kinds)]Slot

// find returns the slot of a credential, or nil if there is none yet.
func (l *Latest) find(appid string, kind messages.Kind) *Slot {
	i := slices.Index(messages.Kinds[:], kind)
	if i < 0 {
		return nil
	}
	v, ok := l.slots.Load(appid)
	if !ok {
		return nil
	}
	return &v.(*slots)[i]
}

// slot is Slot with l.mu locked.
func (l *Latest) slot(appid string, kind messages.Kind) *Slot {
	v, ok := l.slots.Load(appid)
	if !ok {
		v, _ = l.slots.LoadOrStore(appid, new(slots))
	}
	return &v.(*slots)[slices.Index(messages.Kinds[:], kind)]
}

// missing returns the changes of the records that the bucket had before the current snapshot and that the
// snapshot lacks. l.mu is locked.
func (l *Latest) missing() []Change {
	var changes []Change
	l.Each(func(n Name, s *Slot) {
		if s.snapshot != 0 && s.snapshot != l.snapshots {
			s.snapshot = 0
			changes = append(changes, Change{AppID: n.AppID, Kind: n.Kind})
		}
	})
	return changes
}

// accept holds c unless that would be a step back. l.mu is locked.
func (l *Latest) accept(c *messages.Credential, fromBucket bool) (replaced []Name) {
	s := l.slot(c.AppID, c.Kind)
	name := Name{c.AppID, c.Kind}
	if fromBucket {
		s.snapshot = l.snapshots
	}
	now := l.now()
	if l.promote(s, now) { // first, so that c is compared with what readers get
		replaced = []Name{name}
	}
	held := s.held.Load()
	preferred := fromBucket && s.preferred != 0 && c.Revision == s.preferred
	if held != nil && held.Valid(now) && (!c.Valid(now) || !preferred && !isNewer(c, held)) {
		o := s.fallback.Load()
		if fromBucket && c.Generation < held.Generation &&
			(o == nil || !o.Valid(now) || !c.ObtainedAt.Before(o.ObtainedAt)) {
			s.fallback.Store(c)
			l.fallbacks[s] = name
		}
		return replaced
	}
	l.take(s, c)
	return []Name{name}
}

// take makes c the held credential of a slot, and forgets what would replace the one before. l.mu is locked.
func (l *Latest) take(s *Slot, c *messages.Credential) {
	s.hold(c)
	s.preferred = 0
	s.fallback.Store(nil)
	delete(l.fallbacks, s)
}

// isNewer reports whether a record replaces the held credential, which is valid.
func isNewer(c, held *messages.Credential) bool {
	switch {
	case c.Generation > held.Generation, c.ObtainedAt.After(held.ObtainedAt):
		return true
	case c.Generation < held.Generation:
		return false
	}
	// The same value. A record with a lower revision is of a recreated bucket, or of a replica that lags; only the
	// second can have an earlier end.
	return c.Revision >= held.Revision || !c.ExpiresAt.Before(held.ExpiresAt)
}

// hold makes c the held credential. The mutex of the Latest is locked.
func (s *Slot) hold(c *messages.Credential) {
	s.held.Store(c)
	s.quick.Store(&Quick{c.Value, c.ExpiresAt.UnixNano()})
}

// Quick is the part of [Slot.Held] that kv.Handle reads; nil if the slot holds nothing.
func (s *Slot) Quick() *Quick { return s.quick.Load() }

// Held returns the credential that the slot holds, expired or not, or nil. It must not be changed.
func (s *Slot) Held() *messages.Credential { return s.held.Load() }

// Get returns the credential that may be handed out at now, which must not be changed: [ErrNotFound],
// [ErrExpired]. appid and kind are for the text of the error.
func (s *Slot) Get(now time.Time, appid string, kind messages.Kind) (*messages.Credential, error) {
	c := s.held.Load()
	if c != nil && c.Valid(now) {
		return c, nil
	}
	if o := s.fallback.Load(); o != nil && o.Valid(now) {
		return o, nil
	}
	c = s.held.Load() // again: a concurrent write may just have replaced both
	switch {
	case c == nil:
		return nil, errNotFound(appid, kind)
	case c.Valid(now):
		return c, nil
	}
	return nil, fmt.Errorf("%w: %s at %s", ErrExpired, messages.Key(appid, kind), c.ExpiresAt.Format(time.RFC3339))
}

func errNotFound(appid string, kind messages.Kind) error {
	return fmt.Errorf("%w: %s", ErrNotFound, messages.Key(appid, kind))
}
