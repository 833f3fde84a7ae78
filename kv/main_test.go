package kv

import (
	"context"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// patience bounds waits for events that must come; it is not a claim about speed.
const patience = 20 * time.Second

func testContext(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// newStore is a Store of a worker on its own connection, with its buckets made.
func newStore(tb testing.TB, s *natstest.Server, worker string) *store.Store {
	tb.Helper()
	st, err := store.New(s.Connect(), store.Config{Worker: worker})
	if err != nil {
		tb.Fatal(err)
	}
	if err := st.Ensure(testContext(tb)); err != nil {
		tb.Fatal(err)
	}
	return st
}

func credential(generation uint64, life time.Duration) messages.Credential {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return messages.Credential{
		AppID: "wx1", Kind: messages.AccessToken, Value: "VALUE-" + string(rune('a'+generation%26)), ObtainedAt: now,
		ExpiresAt: now.Add(life), RefreshAt: now.Add(life / 2), Generation: generation, Source: messages.SourceToken, Worker: "w",
	}
}

// publish takes the lease, publishes and gives the lease back.
func publish(tb testing.TB, s *store.Store, c messages.Credential) uint64 {
	tb.Helper()
	ctx := testContext(tb)
	l, err := s.Acquire(ctx, c.AppID, c.Kind, 5*time.Second)
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Release(ctx)
	rev, err := l.Publish(ctx, c)
	if err != nil {
		tb.Fatal(err)
	}
	return rev
}
