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

// Bucket is a credential bucket in memory. Its methods are safe for concurrent use. A ReaderConfig.OnChange
// must not call them, because they wait for it. Methods panic if a record would not be valid (an AppID with a
// dot, a value with a line break).
type Bucket struct {
	ahead atomic.Int64 // by how much the bucket's time is ahead of the real time, in nanoseconds

	mu           sync.Mutex // guards the fields below
	disconnected bool
	revision     uint64
	records      map[string]messages.Credential
	generations  map[string]uint64
	reports      int
	answerReport func(current messages.Credential) (string, error)
	readers      []*source

	running sync.WaitGroup
	closing context.Context
	close   context.CancelFunc
}

// NewBucket returns an empty bucket. Close it at the end of the test.
func NewBucket() *Bucket {
	b := &Bucket{records: map[string]messages.Credential{}, generations: map[string]uint64{}}
	b.closing, b.close = context.WithCancel(context.Background())
	return b
}

// Close stops the Readers, and returns when they have stopped. They still return valid credentials.
func (b *Bucket) Close() {
	b.close()
	b.running.Wait()
}

// Reader returns a Reader of the bucket and runs it until Close. cfg may be empty: set only the fields that the
// test is about, for example AppIDs or CacheFile. Source and Now are replaced.
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
	if b.disconnected {
		s.deliver(bucket.Event{Down: nats.ErrConnectionClosed})
	} else {
		s.deliver(s.snapshot()...)
	}
	return r
}

// Set publishes a new value whose life begins now, as a worker does after a refresh, and returns its record.
func (b *Bucket) Set(appid string, kind messages.Kind, value string, life time.Duration) messages.Credential {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.set(appid, kind, value, life)
}

// set is Set for callers that hold b.mu.
func (b *Bucket) set(appid string, kind messages.Kind, value string, life time.Duration) messages.Credential {
	key, now := messages.Key(appid, kind), b.now().UTC().Truncate(time.Millisecond)
	c := messages.Credential{
		AppID: appid, Kind: kind, Value: value, ObtainedAt: now, ExpiresAt: now.Add(life),
		RefreshAt:  now.Add(life - life/3),
		Generation: b.generations[key] + 1, Source: messages.SourceStableToken, Worker: "kvtest",
	}
	if kind != messages.AccessToken {
		c.Source = messages.SourceGetTicket
	}
	return b.put(c)
}

// Put publishes a record unchanged, for a test that needs certain fields. It returns the record with its
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
	b.deliver(entry(c))
	return c
}

// Remove removes a record, as if its key was deleted or purged. A Reader still returns the credential while it
// is valid.
func (b *Bucket) Remove(appid string, kind messages.Kind) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(messages.Key(appid, kind))
}

func (b *Bucket) remove(key string) {
	if _, ok := b.records[key]; ok {
		delete(b.records, key)
		b.revision++
		b.deliver(bucket.Event{Key: key, Removed: true, Revision: b.revision})
	}
}

// Recreate deletes the bucket, and with it what the workers know of generations, and creates an empty one. A
// Reader still returns valid credentials of the old bucket until the new bucket has their keys.
func (b *Bucket) Recreate() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.records)
	clear(b.generations)
	b.revision = 0
	b.deliverSnapshots()
}

// Advance moves the bucket's time forward. Records that expire are removed.
func (b *Bucket) Advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead.Add(int64(d))
	for _, s := range b.readers {
		s.deliver(bucket.Event{Tick: true})
	}
	for _, key := range slices.Sorted(maps.Keys(b.records)) {
		if c := b.records[key]; !c.Valid(b.now()) {
			b.remove(key)
		}
	}
}

// Disconnect cuts the connection to NATS: until [Bucket.Reconnect], the Readers see no change and every report
// fails.
func (b *Bucket) Disconnect() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deliver(bucket.Event{Down: nats.ErrConnectionClosed})
	b.disconnected = true
}

// Reconnect restores the connection, and the Readers see every change that they missed.
func (b *Bucket) Reconnect() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.disconnected {
		b.disconnected = false
		b.deliverSnapshots()
	}
}

// now is the bucket's time. It takes no lock, because a Reader asks for the time while the bucket waits for the
// Reader.
func (b *Bucket) now() time.Time { return time.Now().Add(time.Duration(b.ahead.Load())) }

// deliver delivers events to every Reader. The caller holds b.mu.
func (b *Bucket) deliver(events ...bucket.Event) {
	if b.disconnected {
		return
	}
	for _, s := range b.readers {
		s.deliver(events...)
	}
}

// deliverSnapshots delivers all records to every Reader. The caller holds b.mu.
func (b *Bucket) deliverSnapshots() {
	if b.disconnected {
		return
	}
	for _, s := range b.readers {
		s.deliver(s.snapshot()...)
	}
}

// entry is the event of a record.
func entry(c messages.Credential) bucket.Event {
	body, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("kvtest: %v", err))
	}
	return bucket.Event{Key: messages.Key(c.AppID, c.Kind), Value: body, Revision: c.Revision}
}
