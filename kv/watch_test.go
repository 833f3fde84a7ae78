package kv

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

// The server has sent a change, and the connection broke before the change arrived: the server counts it as
// delivered.
func TestChangeThatWasLostWithTheConnectionIsSeen(t *testing.T) {
	t.Parallel()
	srv := startGated(t)
	p := newPublisher(t, srv.Server)
	other := credential(1, time.Hour)
	other.AppID = "wx2" // it stays: a bucket of one key would be read again as a whole
	p.publish(other)
	p.publish(credential(1, time.Hour))
	r := startReader(t, srv, ReaderConfig{})
	changes := r.observe()
	srv.gate.Hold()
	awaitDelivered(t, p, p.publish(credential(2, time.Hour)))
	srv.gate.Cut()
	awaitToken(t, r.Reader, 1)
	// The end of the first snapshot may come late.
	c := awaitChange(t, changes, "there is no change", func(c Change) bool { return !c.Ready })
	if c.Reset {
		t.Error("the watch begins with another snapshot, want that it resumes")
	}
	checkRecord(t, c, 2)
}

// Between two servers of a cluster a message can be lost while both connections are up.
func TestChangeThatWasLostOnItsWayIsSeenWithTheNextOne(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		if cfg.Feed != FeedWatch {
			continue // they read all records twice a minute
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := startGated(t)
			p := newPublisher(t, srv.Server)
			p.publish(credential(1, time.Hour))
			r := startReader(t, srv, cfg)
			lost := srv.gate.Miss("$KV.wechat.wx1.access_token", 1)
			p.publish(credential(2, time.Hour))
			<-lost
			next := credential(1, time.Hour)
			next.Kind = messages.JSAPITicket
			p.publish(next)
			awaitToken(t, r.Reader, 1)
			if _, err := r.Wait(testContext(t), "wx1", messages.JSAPITicket); err != nil {
				t.Error(err)
			}
		})
	}
}

// awaitDelivered waits until the server has sent a revision to a consumer of the bucket.
func awaitDelivered(t *testing.T, p *publisher, revision uint64) {
	t.Helper()
	ctx := testContext(t)
	_, stream := p.credentials()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for c := range stream.ListConsumers(ctx).Info() {
			if c.Delivered.Stream >= revision {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the server sends nothing")
		}
	}
}

// A server allows 1,000 consumers for a stream: the consumers of sessions that have ended must not count.
func TestWatchLeavesNoConsumerBehind(t *testing.T) {
	t.Parallel()
	srv := startGated(t)
	p := newPublisher(t, srv.Server)
	r := startReader(t, srv, ReaderConfig{})
	for generation := uint64(1); generation <= 5; generation++ {
		srv.gate.Cut() // so that another session begins
		p.publish(credential(generation, time.Hour))
		awaitToken(t, r.Reader, generation-1)
	}
	if n := p.consumers(); n > 2 {
		t.Errorf("one Reader has %d consumers", n)
	}
}

// Otherwise a rolling restart of many services would need twice as many consumers.
func TestReaderThatEndsLeavesNoConsumerBehind(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			p := newPublisher(t, srv)
			p.publish(credential(1, time.Hour))
			r, err := NewReader(srv.Connect(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			stop := runReader(t, r)
			awaitToken(t, r, 0)
			stop()
			if n := p.consumers(); n != 0 {
				t.Errorf("%d consumers are left", n)
			}
		})
	}
}

// consumers is the number of the bucket's consumers.
func (p *publisher) consumers() int {
	p.tb.Helper()
	_, stream := p.credentials()
	return stream.CachedInfo().State.Consumers
}

// oftenChecked is the source of a Reader whose watch checks the bucket often.
type oftenChecked struct {
	scripted
	js jetstream.JetStream
}

func (s oftenChecked) Run(ctx context.Context, emit func(bucket.Event)) {
	w := bucket.Watch{
		JS: s.js, Bucket: messages.DefaultBucket, Keys: []string{bucket.AllKeys}, CheckEvery: 50 * time.Millisecond,
		Emit: emit,
	}
	w.Run(ctx)
}

// In a bucket of one key, each write replaces all messages. The Reader must not pass that to OnError.
func TestBucketOfOneKeyCausesNoErrors(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	p := newPublisher(t, srv)
	p.publish(credential(1, time.Hour))
	js, err := jetstream.New(srv.Connect())
	if err != nil {
		t.Fatal(err)
	}
	r := startReader(t, srv, ReaderConfig{Source: oftenChecked{js: js}, OnError: func(err error) {
		// Other errors come from a busy machine.
		if strings.Contains(err.Error(), "all messages of the bucket are new") {
			t.Errorf("OnError received %v", err)
		}
	}})
	changes := r.observe()
	p.publish(credential(2, time.Hour))
	awaitChange(t, changes, "the check does not cause another snapshot", func(c Change) bool { return c.Ready })
}
