package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/messages"
)

// A message that no worker wrote has no TTL, and would stay there permanently.
func TestJunkInPlaceOfALeaseDoesNotPreventRefreshes(t *testing.T) {
	t.Parallel()
	s := newStore(t, natstest.Start(t), "w 1")
	forged := 0
	s.cfg.OnForgedLease = func(string, messages.Kind) { forged++ }
	ctx := testContext(t)
	key := bucket.LeaseKey("wx1", messages.AccessToken)
	elsewhere, err := s.leaseOwner("wx1", bucket.LeaseKey("wx1", messages.JSAPITicket), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Minute).UnixMilli()
	for _, junk := range []string{
		"", `{"errcode":0,"errmsg":"ok"}`, "other worker", "w ABCDEFGHIJKLMNOPQRSTUVWXY1",
		fmt.Sprint("w ABCDEFGHIJKLMNOPQRSTUVWXYZ ", end), string(elsewhere),
	} {
		if _, err := s.js.Publish(ctx, bucket.Subject("wechat", key), []byte(junk)); err != nil {
			t.Fatal(err)
		}
		l, err := s.Acquire(ctx, "wx1", messages.AccessToken, time.Minute)
		if err != nil {
			t.Fatalf("%q: %v", junk, err)
		}
		if _, err := s.Acquire(ctx, "wx1", messages.AccessToken, time.Minute); !errors.Is(err, ErrLeaseHeld) {
			t.Errorf("%q: a second Acquire returns %v, want ErrLeaseHeld", junk, err)
		}
		l.Release(ctx)
	}
	if forged != 5 { // nothing but a marker is empty
		t.Errorf("%d forged leases were reported, want 5", forged)
	}
}

// Whoever may read a lease can have the server store it again, without the TTL of the original. And a seal of an
// unknown key may be a worker's, or anybody's.
func TestCopiedOrForeignLeaseCountsUntilItsEndAndNotLonger(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s, foreign := newStore(t, srv, "w"), newStore(t, srv, "foreign")
	ctx := testContext(t)
	now := time.Now()
	s.cfg.Now = func() time.Time { return now }
	foreign.cfg.Now = s.cfg.Now
	key := bucket.LeaseKey("wx1", messages.AccessToken)
	foreign.cfg.Keys = func(appid string) []seal.Key { return []seal.Key{seal.New(appid, "another secret")} }
	const ttl = time.Minute
	for name, tc := range map[string]struct {
		store *Store
		ttl   time.Duration
		left  time.Duration
	}{
		"a copy of a lease":                     {s, ttl, ttl},
		"a lease with another AppSecret":        {foreign, ttl, ttl},
		"an endless one with another AppSecret": {foreign, 10000 * time.Hour, 0},
	} {
		owner, err := tc.store.leaseOwner("wx1", key, tc.ttl)
		if err == nil {
			_, err = s.js.Publish(ctx, bucket.Subject("wechat", key), owner)
		}
		if err != nil {
			t.Fatal(err)
		}
		if tc.left > 0 {
			now = now.Add(tc.left)
			if _, err := s.Acquire(ctx, "wx1", messages.AccessToken, ttl); !errors.Is(err, ErrLeaseHeld) {
				t.Errorf("%s: Acquire returns %v before its end, want ErrLeaseHeld", name, err)
			}
			now = now.Add(leaseGrace + time.Millisecond)
		}
		l, err := s.Acquire(ctx, "wx1", messages.AccessToken, ttl)
		if err != nil {
			t.Fatalf("%s: Acquire returns %v after its end", name, err)
		}
		l.Release(ctx)
	}
}

func TestOnlyOneOfManyWorkersGetsTheLease(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	const workers = 16
	var acquired, refused atomic.Int32
	var all sync.WaitGroup
	for i := range workers {
		s := newStore(t, srv, fmt.Sprint("w", i))
		all.Go(func() {
			_, err := s.Acquire(testContext(t), "wx1", messages.AccessToken, time.Minute)
			switch {
			case err == nil:
				acquired.Add(1)
			case errors.Is(err, ErrLeaseHeld):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := acquired.Load(); n != 1 {
		t.Errorf("%d workers got the lease, want 1", n)
	}
	if n := refused.Load(); n != workers-1 {
		t.Errorf("%d workers got ErrLeaseHeld, want %d", n, workers-1)
	}
}

func TestReleasedLeaseIsFreeAtOnce(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	a, b := newStore(t, srv, "a"), newStore(t, srv, "b")
	ctx := testContext(t)
	for range 3 {
		for _, s := range []*Store{a, b} {
			l, err := s.Acquire(ctx, "wx1", messages.AccessToken, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			l.Release(ctx)
		}
	}
}

// A holder was frozen for longer than its lease, and publishes when it continues.
func TestLateWriterNeverWins(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	late, next := newStore(t, srv, "late"), newStore(t, srv, "next")
	ctx := testContext(t)
	l, err := late.Acquire(ctx, "wx1", messages.AccessToken, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	freeze(t, l)
	want := credential(2, time.Hour)
	revision := publishSoon(t, next, want) // when the server has ended the lease
	if _, err := l.Publish(ctx, credential(3, time.Hour)); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("the late Publish returns %v, want ErrLeaseLost", err)
	}
	checkStored(t, next, want, revision)
}

func TestPublishRefusesWhatMustNotBePublished(t *testing.T) {
	t.Parallel()
	s := newStore(t, natstest.Start(t), "w")
	ctx := testContext(t)
	l, err := s.Acquire(ctx, "wx1", messages.AccessToken, 15*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*messages.Credential){
		"empty":        func(c *messages.Credential) { c.Value = "" },
		"unprintable":  func(c *messages.Credential) { c.Value = "a\x00b" },
		"with a space": func(c *messages.Credential) { c.Value = "a b" },
		"too long":     func(c *messages.Credential) { c.Value = strings.Repeat("x", messages.MaxValueSize+1) },
		"expired": func(c *messages.Credential) {
			c.ExpiresAt = time.Now().Add(-time.Minute)
			c.ObtainedAt = c.ExpiresAt.Add(-time.Hour)
		},
		"no life":       func(c *messages.Credential) { c.ExpiresAt = c.ObtainedAt },
		"no generation": func(c *messages.Credential) { c.Generation = 0 },
		"other account": func(c *messages.Credential) { c.AppID = "wx2" },
	} {
		c := credential(1, time.Hour)
		spoil(&c)
		_, err := l.Publish(ctx, c)
		if !errors.Is(err, messages.ErrInvalidCredential) {
			t.Errorf("%s: %v, want ErrInvalidCredential", name, err)
			continue
		}
		if len(c.Value) > 2 && strings.Contains(err.Error(), c.Value) {
			t.Errorf("%s: the error shows the value: %v", name, err)
		}
	}
}

// The publication is lost on its way. The holder publishes again before its lease ends, however short the lease
// is.
func TestLostPublicationIsPublishedAgainWithinTheLease(t *testing.T) {
	t.Parallel()
	srv, gate := natstest.Start(t), natstest.NewGate()
	const lease = 6 * time.Second // one request may take as long
	s := ensured(t, srv.Connect(gate.Option()), Config{Timeout: lease, Keys: keys})
	c := credential(1, time.Hour)
	l, err := s.Acquire(testContext(t), c.AppID, c.Kind, lease)
	if err != nil {
		t.Fatal(err)
	}
	lost := gate.Lose("$KV.wechat.wx1.access_token", 1)
	revision, err := l.Publish(testContext(t), c)
	if err != nil {
		t.Fatal(err)
	}
	<-lost
	checkStored(t, s, c, revision)
}

// A ticket keeps its value and its generation when its life becomes longer: the record before is not that
// publication.
func TestLongerLifeIsNotTakenForPublished(t *testing.T) {
	t.Parallel()
	srv, gate := natstest.Start(t), natstest.NewGate()
	s := ensured(t, srv.Connect(gate.Option()), Config{Timeout: 500 * time.Millisecond, Keys: keys})
	c := credential(1, time.Minute)
	publishSoon(t, s, c)
	c.ExpiresAt = c.ExpiresAt.Add(30 * time.Minute)
	lost := gate.Lose("$KV.wechat.wx1.access_token", 1)
	revision := publishSoon(t, s, c)
	<-lost
	checkStored(t, s, c, revision)
}

// lostAnswer is a JetStream whose first publication is stored, and then its lease ends before the answer arrives.
type lostAnswer struct {
	jetstream.JetStream
	endLease func()
	once     sync.Once
}

func (j *lostAnswer) PublishMsg(
	ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt,
) (*jetstream.PubAck, error) {
	ack, err := j.JetStream.PublishMsg(ctx, m, opts...)
	j.once.Do(func() {
		j.endLease()
		ack, err = nil, context.DeadlineExceeded
	})
	return ack, err
}

// The publication is stored, its answer is lost, and so is the answer to the first read. Then the server refuses the
// second try, because the lease has ended: the first one counts all the same. A worker that did not know it would mint
// another classic token.
func TestStoredPublicationCountsThoughItsLeaseHasEndedSince(t *testing.T) {
	t.Parallel()
	srv, gate := natstest.Start(t), natstest.NewGate()
	s := ensured(t, srv.Connect(gate.Option()), Config{Timeout: 500 * time.Millisecond, Keys: keys})
	ctx := testContext(t)
	l, err := s.Acquire(ctx, "wx1", messages.AccessToken, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	s.js = &lostAnswer{JetStream: s.js, endLease: func() { l.Release(ctx) }}
	unread := gate.Lose("$JS.API.STREAM.MSG.GET.KV_wechat", 1)
	c := credential(1, time.Hour)
	revision, err := l.Publish(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	<-unread
	checkStored(t, s, c, revision)
}

// The answer to the request for a lease is lost. The lease is this worker's all the same, and no worker waits
// for its end.
func TestLeaseWhoseAnswerWasLostIsReadBack(t *testing.T) {
	t.Parallel()
	srv, gate := natstest.Start(t), natstest.NewGate()
	s := ensured(t, srv.Connect(gate.Option()), Config{Worker: "w", Timeout: time.Second, Keys: keys})
	taken := gate.After("$KV.wechat.lease.wx1.access_token", 1)
	go func() {
		<-taken
		gate.Cut() // and the client connects again
	}()
	l, err := s.Acquire(testContext(t), "wx1", messages.AccessToken, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Publish(testContext(t), credential(1, time.Hour)); err != nil {
		t.Error(err)
	}
	_, err = s.Acquire(testContext(t), "wx1", messages.AccessToken, time.Minute)
	if !errors.Is(err, ErrLeaseHeld) {
		t.Errorf("a second Acquire of the same worker returns %v, want ErrLeaseHeld", err)
	}
}

// lateMarker is a bucket whose first Create is refused, as by a server whose marker of a released lease expires between
// the two requests of Create.
type lateMarker struct {
	jetstream.KeyValue
	refused bool
}

func (k *lateMarker) Create(
	ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt,
) (uint64, error) {
	if !k.refused {
		k.refused = true
		return 0, &jetstream.APIError{ErrorCode: jetstream.JSErrCodeStreamWrongLastSequence}
	}
	return k.KeyValue.Create(ctx, key, value, opts...)
}

// Otherwise a worker would wait for the whole TTL of a lease that no worker holds.
func TestLeaseWhoseMarkerExpiresMeanwhileIsTaken(t *testing.T) {
	t.Parallel()
	s := newStore(t, natstest.Start(t), "w")
	s.creds = &lateMarker{KeyValue: s.creds}
	l, err := s.Acquire(testContext(t), "wx1", messages.AccessToken, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	l.Release(testContext(t))
}
