package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

func TestPublishedRecordIsReadBackFromTheLeader(t *testing.T) {
	t.Parallel()
	s := kv.newStore(t, natstest.Start(t), "w1")
	want := kv.credential(1, time.Hour)
	want.Revision = kv.publish(t, s, want)
	got, err := s.Get(kv.testContext(t), "wx1", messages.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
}

// The bucket numbers its writes itself: a revision in the stored record would be that of an earlier write.
func TestStoredRecordHasNoRevision(t *testing.T) {
	t.Parallel()
	s := kv.newStore(t, natstest.Start(t), "w")
	c := kv.credential(1, time.Hour)
	c.Revision = 99
	kv.publish(t, s, c)
	got, _, err := s.leaderGet(kv.testContext(t), s.cfg.Bucket, messages.Key(c.AppID, c.Kind))
	if err != nil {
		t.Fatal(err)
	}
	c.Revision = 0
	want, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error(diff)
	}
}

// What is not a worker's stands there for ever: it has no TTL.
func TestWhatIsNoLeaseKeepsNobodyFromRefreshing(t *testing.T) {
	t.Parallel()
	s := kv.newStore(t, natstest.Start(t), "w 1")
	subject := "$KV.wechat." + bucket.LeaseKey("wx1", messages.AccessToken)
	for _, junk := range []string{"", `{"errcode":0,"errmsg":"ok"}`, "other worker", "w ABCDEFGHIJKLMNOPQRSTUVWXY1"} {
		if _, err := s.js.Publish(kv.testContext(t), subject, []byte(junk)); err != nil {
			t.Fatal(err)
		}
		l, err := s.Acquire(kv.testContext(t), "wx1", messages.AccessToken, 5*time.Second)
		if err != nil {
			t.Fatalf("%q: %v", junk, err)
		}
		if _, err := s.Acquire(kv.testContext(t), "wx1", messages.AccessToken, 5*time.Second); !errors.Is(err, ErrLeaseHeld) {
			t.Errorf("%q: a second worker has it too: %v", junk, err)
		}
		l.Release(kv.testContext(t))
	}
}

func TestOnlyOneOfManyWorkersGetsTheLease(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	var won, held int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 16 {
		s := kv.newStore(t, srv, fmt.Sprint("w", i))
		wg.Go(func() {
			_, err := s.Acquire(kv.testContext(t), "wx1", messages.AccessToken, 5*time.Second)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case errors.Is(err, ErrLeaseHeld):
				held++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 || held != 15 {
		t.Errorf("%d workers got the lease and %d were told that it is held, want 1 and 15", won, held)
	}
}

func TestReleasedLeaseIsFreeAtOnce(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	a, b := kv.newStore(t, srv, "a"), kv.newStore(t, srv, "b")
	ctx := kv.testContext(t)
	for range 3 {
		for _, s := range []*Store{a, b} {
			l, err := s.Acquire(ctx, "wx1", messages.AccessToken, 15*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			l.Release(ctx)
		}
	}
}

// A holder that froze for longer than its lease, and wakes up with a token in its hands.
func TestLateWriterNeverWins(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	late, next := kv.newStore(t, srv, "late"), kv.newStore(t, srv, "next")
	ctx := kv.testContext(t)
	l, err := late.Acquire(ctx, "wx1", messages.AccessToken, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	l.deadline = time.Now().Add(kv.patience) // its own clock stood still
	var won *Lease
	for won == nil { // until the server ends the lease
		won, err = next.Acquire(ctx, "wx1", messages.AccessToken, 5*time.Second)
		if err != nil && !errors.Is(err, ErrLeaseHeld) {
			t.Fatal(err)
		}
	}
	rev, err := won.Publish(ctx, kv.credential(2, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	won.Release(ctx)
	if _, err := l.Publish(ctx, kv.credential(3, time.Hour)); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("the late publication: %v, want ErrLeaseLost", err)
	}
	got, err := next.Get(ctx, "wx1", messages.AccessToken)
	if err != nil || got.Revision != rev {
		t.Errorf("the record is %v, %v; want revision %d", got, err, rev)
	}
}

func TestExpiredRecordRemovesItselfAndTellsWatchers(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s := kv.newStore(t, srv, "w")
	r := kv.startReader(t, srv, kv.ReaderConfig{})
	gone := make(chan kv.Change, 10)
	r.observe(gone)
	kv.publish(t, s, kv.credential(1, 2500*time.Millisecond))
	for c := range gone {
		if c.Record == nil && !c.Ready {
			break
		}
	}
	if _, err := s.Get(kv.testContext(t), "wx1", messages.AccessToken); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get after the end: %v, want ErrNotFound", err)
	}
}

func TestPublishRefusesWhatMustNotBePublished(t *testing.T) {
	t.Parallel()
	s := kv.newStore(t, natstest.Start(t), "w")
	ctx := kv.testContext(t)
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
		c := kv.credential(1, time.Hour)
		spoil(&c)
		if _, err := l.Publish(ctx, c); !errors.Is(err, messages.ErrInvalidCredential) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		} else if len(c.Value) > 2 && strings.Contains(err.Error(), c.Value) {
			t.Errorf("%s: the error shows the value: %v", name, err)
		}
	}
}

func TestLedgerOutlivesItsWorkersAndRefusesTheLateOne(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	a, b := kv.newStore(t, srv, "a"), kv.newStore(t, srv, "b")
	ctx := kv.testContext(t)
	la, err := a.Ledger(ctx, "wx1", messages.AccessToken)
	if err != nil || la.Revision != 0 {
		t.Fatalf("a new ledger is %+v, %v", la, err)
	}
	lb := la
	la.Generation, la.Attempts = 7, 3
	if la, err = a.PutLedger(ctx, la); err != nil {
		t.Fatal(err)
	}
	if _, err := b.PutLedger(ctx, lb); !errors.Is(err, ErrConflict) {
		t.Errorf("a write over an unseen revision: %v, want ErrConflict", err)
	}
	got, err := b.Ledger(ctx, "wx1", messages.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(la, got); d != "" {
		t.Error(d)
	}
	if err := b.ledgers.Delete(ctx, messages.Key("wx1", messages.AccessToken)); err != nil {
		t.Fatal(err)
	}
	if got, err = b.Ledger(ctx, "wx1", messages.AccessToken); err != nil {
		t.Fatal(err)
	}
	got.Generation = 8
	if _, err := b.PutLedger(ctx, got); err != nil {
		t.Errorf("writing an entry that somebody deleted: %v", err)
	}
}

func TestRepublishesEachChange(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s := kv.newStore(t, srv, "w")
	nc := srv.Connect()
	sub, err := nc.SubscribeSync(messages.PublishedSubject("wechat", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	want := kv.credential(1, time.Hour)
	kv.publish(t, s, want)
	m, err := sub.NextMsg(kv.patience)
	if err != nil {
		t.Fatal(err)
	}
	var got messages.Credential
	if err := json.Unmarshal(m.Data, &got); err != nil || got.Value != want.Value || m.Subject != "wechat.published.wx1.access_token" {
		t.Errorf("republished on %s: %v, %v", m.Subject, got, err)
	}
	// A lease is not a credential: with the next change of the record nothing else has come.
	kv.publish(t, s, kv.credential(2, time.Hour))
	if m, err = sub.NextMsg(kv.patience); err != nil || m.Subject != "wechat.published.wx1.access_token" {
		t.Errorf("the second message is %v, %v", m, err)
	}
}

func TestEnsureRefusesABucketOfOtherSettings(t *testing.T) {
	t.Parallel()
	base := (&Config{Bucket: "wechat", SubjectPrefix: "wechat"}).credentials(1)
	for name, spoil := range map[string]func(*jetstream.KeyValueConfig){
		"history":       func(c *jetstream.KeyValueConfig) { c.History = 5 },
		"storage":       func(c *jetstream.KeyValueConfig) { c.Storage = jetstream.MemoryStorage },
		"TTL":           func(c *jetstream.KeyValueConfig) { c.TTL = time.Hour },
		"limit markers": func(c *jetstream.KeyValueConfig) { c.LimitMarkerTTL = 0 },
		"republish":     func(c *jetstream.KeyValueConfig) { c.RePublish = nil },
		"largest value": func(c *jetstream.KeyValueConfig) { c.MaxValueSize = 100 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc := natstest.Start(t).Connect()
			s, err := New(nc, Config{})
			if err != nil {
				t.Fatal(err)
			}
			cfg := base
			spoil(&cfg)
			if _, err := s.js.CreateKeyValue(kv.testContext(t), cfg); err != nil {
				t.Fatal(err)
			}
			err = s.Ensure(kv.testContext(t))
			if !errors.Is(err, ErrBucket) || !strings.Contains(err.Error(), name) {
				t.Errorf("%v, want ErrBucket with %q in it", err, name)
			}
		})
	}
}

func TestManyWorkersMayEnsureAtOnce(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	var wg sync.WaitGroup
	for range 8 {
		s, err := New(srv.Connect(), Config{})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := s.Ensure(kv.testContext(t)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestStoreNeedsAnUnbufferedConnection(t *testing.T) {
	t.Parallel()
	if _, err := New(natstest.Start(t).Connect(func(o *kv.natsOptions) error { o.ReconnectBufSize = 0; return nil }), Config{}); err == nil {
		t.Error("a connection that would send writes later was accepted")
	}
}

func TestNothingIsWrittenWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s := kv.newStore(t, srv, "w")
	ctx := kv.testContext(t)
	l, err := s.Acquire(ctx, "wx1", messages.AccessToken, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	if _, err := l.Publish(ctx, kv.credential(1, time.Hour)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
	srv.Restart()
	var getErr error
	for getErr = ErrUnavailable; errors.Is(getErr, ErrUnavailable) && ctx.Err() == nil; {
		_, getErr = s.Get(ctx, "wx1", messages.AccessToken)
	}
	if !errors.Is(getErr, ErrNotFound) {
		t.Errorf("after the restart: %v, want ErrNotFound", getErr)
	}
}

// The publication is lost on its way: the holder publishes once more while its lease stands, however short that is.
func TestLostPublicationIsPublishedAgainWithinTheLease(t *testing.T) {
	t.Parallel()
	srv, g := natstest.Start(t), natstest.NewGate()
	s, err := New(srv.Connect(g.Option()), Config{})
	if err == nil {
		err = s.Ensure(kv.testContext(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	c := kv.credential(1, time.Hour)
	l, err := s.Acquire(kv.testContext(t), c.AppID, c.Kind, 3*time.Second) // no longer than one request may take
	if err != nil {
		t.Fatal(err)
	}
	lost := g.Lose("$KV.wechat.wx1.access_token", 1)
	rev, err := l.Publish(kv.testContext(t), c)
	if err != nil {
		t.Fatal(err)
	}
	<-lost
	if got, err := s.Get(kv.testContext(t), c.AppID, c.Kind); err != nil || got.Revision != rev || got.Value != c.Value {
		t.Errorf("the record is %v, %v", got, err)
	}
}

// The answer to the request for a lease is lost: it is this worker's all the same, and nobody waits for its end.
func TestLeaseWhoseAnswerWasLostIsReadBack(t *testing.T) {
	t.Parallel()
	srv, g := natstest.Start(t), natstest.NewGate()
	s, err := New(srv.Connect(g.Option()), Config{Worker: "w", Timeout: time.Second})
	if err == nil {
		err = s.Ensure(kv.testContext(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	taken := g.After("$KV.wechat.lease.wx1.access_token", 1)
	go func() {
		<-taken
		g.Cut() // and the client connects again
	}()
	l, err := s.Acquire(kv.testContext(t), "wx1", messages.AccessToken, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Publish(kv.testContext(t), kv.credential(1, time.Hour)); err != nil {
		t.Error(err)
	}
	if _, err := s.Acquire(kv.testContext(t), "wx1", messages.AccessToken, 10*time.Second); !errors.Is(err, ErrLeaseHeld) {
		t.Errorf("%v: the same worker has it twice", err)
	}
}
