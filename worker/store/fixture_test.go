package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/messages"
)

// patience limits the waits for what must happen, so that a hang fails the test. It claims nothing about speed.
const patience = 3 * time.Minute

// keys are the keys of every account in these tests.
func keys(appid string) []seal.Key { return []seal.Key{seal.New(appid, "secret")} }

func testContext(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// newStore makes the Store of a worker on a connection of its own, and creates the buckets. Its requests have
// time enough on a busy machine.
func newStore(tb testing.TB, s *natstest.Server, worker string) *Store {
	tb.Helper()
	return ensured(tb, s.Connect(), Config{Worker: worker, Timeout: time.Minute, Keys: keys})
}

// newClusterStore makes the Store of a worker that is connected to a cluster, and creates the buckets.
func newClusterStore(tb testing.TB, c *natstest.Cluster, worker string) *Store {
	tb.Helper()
	return ensured(tb, c.Connect(), Config{Worker: worker, Keys: keys})
}

// ensured makes a Store and calls Ensure until it succeeds: while a cluster elects leaders it may fail.
func ensured(tb testing.TB, nc *nats.Conn, cfg Config) *Store {
	tb.Helper()
	s, err := New(nc, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx := testContext(tb)
	for err = s.Ensure(ctx); err != nil; err = s.Ensure(ctx) {
		if errors.Is(err, ErrBucket) || ctx.Err() != nil {
			tb.Fatal(err)
		}
	}
	return s
}

func credential(generation uint64, life time.Duration) messages.Credential {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return messages.Credential{
		AppID: "wx1", Kind: messages.AccessToken, Value: "VALUE-" + string(rune('a'+generation%26)),
		ObtainedAt: now, ExpiresAt: now.Add(life), RefreshAt: now.Add(life / 2), Generation: generation,
		Source: messages.SourceToken, Worker: "w",
	}
}

// publish takes the lease, publishes and releases the lease. It returns the record's revision.
func publish(tb testing.TB, s *Store, c messages.Credential) uint64 {
	tb.Helper()
	revision, err := tryPublish(testContext(tb), s, c, time.Minute)
	if err != nil {
		tb.Fatal(err)
	}
	return revision
}

// publishSoon is publish as soon as the server accepts it.
func publishSoon(tb testing.TB, s *Store, c messages.Credential) uint64 {
	tb.Helper()
	ctx := testContext(tb)
	for {
		revision, err := tryPublish(ctx, s, c, 5*time.Second) // a lease whose answer was lost must end soon
		if err == nil {
			return revision
		}
		if ctx.Err() != nil {
			tb.Fatal(err)
		}
	}
}

func tryPublish(ctx context.Context, s *Store, c messages.Credential, ttl time.Duration) (uint64, error) {
	l, err := s.Acquire(ctx, c.AppID, c.Kind, ttl)
	if err != nil {
		return 0, err
	}
	defer l.Release(ctx)
	return l.Publish(ctx, c)
}

// freeze has the holder of a lease believe that it may still act when the server has ended the lease, as a
// process that was frozen does.
func freeze(tb testing.TB, l Lease) {
	tb.Helper()
	l.(*lease).deadline = time.Now().Add(patience)
}

// checkStored checks that the record of the account wx1 is the given publication.
func checkStored(tb testing.TB, s *Store, want messages.Credential, revision uint64) {
	tb.Helper()
	got, err := s.Get(testContext(tb), want.AppID, want.Kind)
	if err != nil {
		tb.Fatal(err)
	}
	want.Revision = revision
	if got != want {
		tb.Errorf("the stored record is %v, want %v", got, want)
	}
}

// followRecords follows the records of a Store until the test ends.
func followRecords(tb testing.TB, s *Store) <-chan RecordEvent {
	tb.Helper()
	return follow(tb, s.WatchRecords)
}

// followLedgers follows the ledger entries of a Store until the test ends.
func followLedgers(tb testing.TB, s *Store) <-chan LedgerEvent {
	tb.Helper()
	return follow(tb, s.WatchLedgers)
}

func follow[E any](tb testing.TB, watch func(context.Context, func(E))) <-chan E {
	tb.Helper()
	events := make(chan E, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		watch(ctx, func(e E) {
			select {
			case events <- e:
			case <-ctx.Done():
			}
		})
	}()
	tb.Cleanup(func() { cancel(); <-done })
	return events
}

// await waits for an event, and fails the test with problem if it does not come.
func await[E any](tb testing.TB, events <-chan E, problem string, is func(E) bool) E {
	tb.Helper()
	for late := testContext(tb).Done(); ; {
		select {
		case e := <-events:
			if is(e) {
				return e
			}
		case <-late:
			tb.Fatal(problem)
		}
	}
}
