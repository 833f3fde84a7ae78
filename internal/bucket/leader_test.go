package bucket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

// occupy creates consumers until the server refuses another one.
func (f *fixture) occupy() {
	f.tb.Helper()
	for ctx := testContext(f.tb); ; {
		_, err := f.js.CreateConsumer(ctx, Stream(messages.DefaultBucket), jetstream.ConsumerConfig{
			AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true,
		})
		if api := (*jetstream.APIError)(nil); errors.As(err, &api) {
			return
		}
		if err != nil {
			f.tb.Fatal(err)
		}
	}
}

// removeConsumers removes all consumers of the bucket, and returns how many there were.
func (f *fixture) removeConsumers() (n int) {
	f.tb.Helper()
	ctx := testContext(f.tb)
	stream, err := f.js.Stream(ctx, Stream(messages.DefaultBucket))
	if err != nil {
		f.tb.Fatal(err)
	}
	for name := range stream.ConsumerNames(ctx).Name() {
		if f.js.DeleteConsumer(ctx, Stream(messages.DefaultBucket), name) == nil {
			n++
		}
	}
	return n
}

// leaderWatch is a watch as a worker has it.
func (f *fixture) leaderWatch(nc *nats.Conn) *Watch {
	f.tb.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		f.tb.Fatal(err)
	}
	return &Watch{
		JS: js, Bucket: messages.DefaultBucket, Keys: []string{AllKeys}, CheckEvery: 50 * time.Millisecond,
		LeaderReads: true,
	}
}

func limitConsumers(o *server.Options) { o.JetStreamLimits.DefaultMaxConsumers = 10 }

// of is a record of another account.
func of(appid string, generation uint64) messages.Credential {
	c := credential(generation, time.Hour)
	c.AppID = appid
	return c
}

// state is what a feed has delivered: the generation of each key.
type state map[string]uint64

func (s state) apply(t *testing.T, e Event) {
	t.Helper()
	switch {
	case e.Reset:
		clear(s)
	case e.Key != "" && e.Removed:
		delete(s, e.Key)
	case e.Key != "":
		var c messages.Credential
		if err := json.Unmarshal(e.Value, &c); err != nil {
			t.Fatalf("%s: %v", e.Key, err)
		}
		s[e.Key] = c.Generation
	}
}

// awaitState applies events until the state is as wanted.
func (s state) await(t *testing.T, events <-chan Event, problem string, want state) {
	t.Helper()
	for fmt.Sprint(s) != fmt.Sprint(want) {
		s.apply(t, awaitEvent(t, events, fmt.Sprintf("%s: %v, want %v", problem, s, want), func(Event) bool { return true }))
	}
}

// A single user that may create consumers can use up all that a stream may have.
func TestWatchStartsAndContinuesWithoutAConsumer(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, limitConsumers)
	f := newFixture(t, srv.Connect())
	f.occupy()
	f.publish(of("wx1", 1))
	f.publish(of("wx2", 1))
	f.publish(of("wx1", 2))
	if _, err := f.kv.Create(testContext(t), LeaseKey("wx1", messages.AccessToken), []byte("w")); err != nil {
		t.Fatal(err)
	}
	events := followWatch(t, f.leaderWatch(srv.Connect()))
	got := state{}
	awaitEvent(t, events, "the snapshot does not become complete", func(e Event) bool {
		got.apply(t, e)
		return e.Ready
	})
	want := state{"wx1.access_token": 2, "wx2.access_token": 1}
	got.await(t, events, "the snapshot", want)

	f.publish(of("wx3", 1))
	want["wx3.access_token"] = 1
	got.await(t, events, "after a publication", want)
	if err := f.kv.Delete(testContext(t), "wx2.access_token"); err != nil {
		t.Fatal(err)
	}
	delete(want, "wx2.access_token")
	got.await(t, events, "after a deletion", want)

	// The bucket is recreated: the sequences begin again.
	if err := f.js.DeleteKeyValue(testContext(t), messages.DefaultBucket); err != nil {
		t.Fatal(err)
	}
	f = newFixture(t, srv.Connect())
	f.occupy()
	f.publish(of("wx4", 1))
	got.await(t, events, "after the bucket was recreated", state{"wx4.access_token": 1})
}

// An attacker removes each consumer as soon as it sees it.
func TestWatchWhoseConsumersAreRemovedAgainAndAgainLosesNothing(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	f := newFixture(t, srv.Connect())
	f.publish(of("wx1", 1))
	watch := f.leaderWatch(srv.Connect())
	events := followWatch(t, watch)
	got := state{}
	awaitEvent(t, events, "the watch does not start", isUp)

	ctx, stop := context.WithCancel(testContext(t))
	removed := make(chan int)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		n := 0
		for {
			select {
			case <-ctx.Done():
				removed <- n
				return
			case <-tick.C:
				n += f.removeConsumers()
			}
		}
	}()
	want := state{}
	isLeader := func(e Event) bool {
		got.apply(t, e)
		return e.Down != nil && strings.Contains(e.Down.Error(), "the leader is read")
	}
	awaitEvent(t, events, "the watch does not give consumers up", isLeader)
	for generation := uint64(2); generation < 5; generation++ {
		for _, id := range []string{"wx1", "wx2"} {
			f.publish(of(id, generation))
			want[id+".access_token"] = generation
		}
		got.await(t, events, "while consumers are removed", want)
	}
	stop()
	if n := <-removed; n < consumersLost {
		t.Errorf("%d consumers were removed", n)
	}
}

func TestWatchWithoutPermissionForConsumersReadsTheLeader(t *testing.T) {
	t.Parallel()
	srv, admin, restricted := natstest.StartRestricted(t,
		[]string{StreamAPI("INFO", messages.DefaultBucket), StreamAPI("MSG.GET", messages.DefaultBucket)}, nil)
	f := newFixture(t, srv.Connect(admin))
	f.publish(of("wx1", 1))
	events := followWatch(t, f.leaderWatch(srv.Connect(restricted)))
	got := state{}
	got.await(t, events, "the snapshot", state{"wx1.access_token": 1})
	f.publish(of("wx1", 2))
	got.await(t, events, "after a publication", state{"wx1.access_token": 2})
}

func TestPauseBeforeAnotherConsumerGrowsAndEnds(t *testing.T) {
	t.Parallel()
	w := &Watch{LeaderReads: true}
	now := time.Now()
	expect := func(what string, err error, began time.Time, want time.Duration) {
		t.Helper()
		w.until = time.Time{}
		_ = w.sessionEnded(err, began)
		if got := w.pause; got != want || w.readsLeader(now) != (want > 0) {
			t.Errorf("%s: the leader is read for %s, want %s", what, got, want)
		}
	}
	limit := fmt.Errorf("%w: %w", errNoConsumer, &jetstream.APIError{ErrorCode: 10026})
	expect("the connection is lost", errReconnected, now, 0)
	expect("one consumer is lost", jetstream.ErrConsumerDeleted, now, 0)
	expect("the second one is lost", jetstream.ErrConsumerDeleted, now, leaderPauseMin)
	expect("the limit is reached", limit, now, 2*leaderPauseMin)
	for range 10 {
		_ = w.sessionEnded(limit, now)
	}
	expect("the limit is still reached", limit, now, leaderPauseMax)
	expect("a consumer has lived", jetstream.ErrConsumerDeleted, now.Add(-time.Minute), 0)
	w.LeaderReads = false
	expect("a watch that may not read the leader", limit, now, 0)
}
