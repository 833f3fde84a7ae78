package kvtest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

// Bucket is a credential bucket in memory. Its methods are safe for concurrent use; a ReaderConfig.OnChange must not call
// them, because they wait for it. What cannot be (an AppID with a dot, a value with a line break) panics.
type Bucket struct {
	ahead atomic.Int64 // of the true time, in nanoseconds

	mu          sync.Mutex // guards what follows
	away        bool
	number      int // grows with each bucket made anew; 1 is the first
	revision    uint64
	records     map[string]messages.Credential
	generations map[string]uint64
	reports     int
	answer      func(current messages.Credential) (string, error)
	readers     []*source

	running sync.WaitGroup
	closing context.Context
	close   context.CancelFunc
}

// NewBucket makes an empty bucket. Close it at the end.
func NewBucket() *Bucket {
	b := &Bucket{number: 1, records: map[string]messages.Credential{}, generations: map[string]uint64{}}
	b.closing, b.close = context.WithCancel(context.Background())
	return b
}

// Close ends the Readers, and returns when they have ended. They go on serving what is valid.
func (b *Bucket) Close() {
	b.close()
	b.running.Wait()
}

// Reader makes a Reader of the bucket and runs it until Close. All that it needs of cfg is what the test is about, AppIDs,
// say, or CacheFile; Source and Now are the bucket's.
func (b *Bucket) Reader(cfg kv.ReaderConfig) *kv.Reader {
	s := &source{bucket: b, appids: slices.Clone(cfg.AppIDs), events: make(chan delivery)}
	cfg.Source, cfg.Now = s, b.now
	r, err := kv.NewReader(nil, cfg)
	if err != nil {
		panic(err)
	}
	b.running.Go(func() { _ = r.Run(b.closing) })
	b.mu.Lock()
	defer b.mu.Unlock()
	b.readers = append(b.readers, s)
	if b.away {
		s.tell(bucket.Event{Down: nats.ErrConnectionClosed})
	} else {
		s.tell(s.snapshot()...)
	}
	return r
}

// Set publishes a new value that lives from now on, as a worker that has fetched it does, and returns its record.
func (b *Bucket) Set(appid string, kind messages.Kind, value string, life time.Duration) messages.Credential {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.set(appid, kind, value, life)
}

// set is Set with b.mu held.
func (b *Bucket) set(appid string, kind messages.Kind, value string, life time.Duration) messages.Credential {
	key, now := messages.Key(appid, kind), b.now().UTC().Truncate(time.Millisecond)
	c := messages.Credential{
		AppID: appid, Kind: kind, Value: value, ObtainedAt: now, ExpiresAt: now.Add(life), RefreshAt: now.Add(life - life/3),
		Generation: b.generations[key] + 1, Source: messages.SourceStableToken, Worker: "kvtest",
	}
	if kind != messages.AccessToken {
		c.Source = messages.SourceGetTicket
	}
	return b.put(c)
}

// Put publishes a record as it is, for a test that needs one with fields of its own. It returns the record with its
// revision.
func (b *Bucket) Put(c messages.Credential) messages.Credential {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.put(c)
}

func (b *Bucket) put(c messages.Credential) messages.Credential {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	b.revision++
	c.Revision = b.revision
	key := messages.Key(c.AppID, c.Kind)
	b.records[key] = c
	b.generations[key] = max(b.generations[key], c.Generation)
	b.tell(entry(c))
	return c
}

// Remove removes a record, as somebody who deletes or purges the key does. A Reader goes on serving what is valid.
func (b *Bucket) Remove(appid string, kind messages.Kind) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(messages.Key(appid, kind))
}

func (b *Bucket) remove(key string) {
	if _, ok := b.records[key]; ok {
		delete(b.records, key)
		b.revision++
		b.tell(bucket.Event{Key: key, Removed: true, Revision: b.revision})
	}
}

// Anew loses the bucket, and all that the workers know of generations, and makes it anew, empty. A Reader goes on serving
// what is valid, until the new bucket has something for it.
func (b *Bucket) Anew() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.records)
	clear(b.generations)
	b.revision = 0
	b.number++
	b.tellAll()
}

// Advance lets time go on: what ends in it expires, and removes itself.
func (b *Bucket) Advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead.Add(int64(d))
	for _, s := range b.readers {
		s.tell(bucket.Event{Tick: true})
	}
	for _, key := range slices.Sorted(maps.Keys(b.records)) {
		if c := b.records[key]; !c.Valid(b.now()) {
			b.remove(key)
		}
	}
}

// GoAway takes NATS away: the Readers hear of nothing and can report nothing, until [Bucket.ComeBack].
func (b *Bucket) GoAway() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tell(bucket.Event{Down: nats.ErrConnectionClosed})
	b.away = true
}

// ComeBack brings NATS back, with all that happened meanwhile. A Reader of named accounts cannot know then whether the
// bucket was made anew: it takes a lower generation too where its value was obtained later.
func (b *Bucket) ComeBack() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		b.away = false
		b.tellAll()
	}
}

// now is the time of the bucket. It takes no lock: a Reader asks for the time while the bucket waits for it.
func (b *Bucket) now() time.Time { return time.Now().Add(time.Duration(b.ahead.Load())) }

// tell tells every Reader. b.mu is held.
func (b *Bucket) tell(events ...bucket.Event) {
	if b.away {
		return
	}
	for _, s := range b.readers {
		s.tell(events...)
	}
}

// tellAll tells every Reader what is there. b.mu is held.
func (b *Bucket) tellAll() {
	if b.away {
		return
	}
	for _, s := range b.readers {
		s.tell(s.snapshot()...)
	}
}

func entry(c messages.Credential) bucket.Event {
	body, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("kvtest: %v", err))
	}
	return bucket.Event{Key: messages.Key(c.AppID, c.Kind), Value: body, Revision: c.Revision}
}
