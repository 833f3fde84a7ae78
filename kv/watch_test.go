package kv

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// gated is a server whose readers connect through a gate.
type gated struct {
	*natstest.Server
	gate *natstest.Gate
}

func (g gated) Connect(opts ...nats.Option) *nats.Conn {
	return g.Server.Connect(append(opts, g.gate.Option())...)
}

// The server has sent a change, and the connection broke before it arrived: to the server it is delivered.
func TestChangeThatWasLostWithTheConnectionIsSeen(t *testing.T) {
	t.Parallel()
	srv := gated{natstest.Start(t), natstest.NewGate()}
	s := newStore(t, srv.Server, "w")
	other := credential(1, time.Hour)
	other.AppID = "wx2" // it stays: a bucket of one key would be read anew
	publish(t, s, other)
	publish(t, s, credential(1, time.Hour))
	r := startReader(t, srv, ReaderConfig{})
	changes := make(chan Change, 10)
	r.observe(changes)
	srv.gate.Hold()
	rev := publish(t, s, credential(2, time.Hour))
	awaitDelivered(t, s, rev)
	srv.gate.Cut()
	if _, err := r.WaitNewer(testContext(t), "wx1", messages.AccessToken, 1); err != nil {
		t.Fatal(err)
	}
	if c := <-changes; c.Reset || c.Record == nil || c.Record.Generation != 2 {
		t.Errorf("after the reconnection comes %+v: the watch goes on where it was, without a snapshot", c)
	}
}

// Between two servers of a cluster a message can be lost while both connections stand.
func TestChangeThatWasLostOnItsWayIsSeenWithTheNextOne(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		if cfg.Direct {
			continue // it reads everything twice a minute
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := gated{natstest.Start(t), natstest.NewGate()}
			s := newStore(t, srv.Server, "w")
			publish(t, s, credential(1, time.Hour))
			r := startReader(t, srv, cfg)
			lost := srv.gate.Miss("$KV.wechat.wx1.access_token", 1)
			publish(t, s, credential(2, time.Hour))
			<-lost
			next := credential(1, time.Hour)
			next.Kind = messages.JSAPITicket
			publish(t, s, next)
			if _, err := r.WaitNewer(testContext(t), "wx1", messages.AccessToken, 1); err != nil {
				t.Error(err)
			}
			if _, err := r.Wait(testContext(t), "wx1", messages.JSAPITicket); err != nil {
				t.Error(err)
			}
		})
	}
}

// awaitDelivered waits until a consumer of the bucket was sent a message.
func awaitDelivered(t *testing.T, s *store.Store, rev uint64) {
	t.Helper()
	ctx := testContext(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := s.js.Stream(ctx, "KV_wechat")
		if err != nil {
			t.Fatal(err)
		}
		for c := range st.ListConsumers(ctx).Info() {
			if c.Delivered.Stream >= rev {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("nothing is sent")
		}
	}
}

// A server allows 1,000 consumers for a stream: those of sessions that have ended must not count.
func TestWatchLeavesNoConsumerBehind(t *testing.T) {
	t.Parallel()
	srv := gated{natstest.Start(t), natstest.NewGate()}
	s := newStore(t, srv.Server, "w")
	r := startReader(t, srv, ReaderConfig{})
	for generation := uint64(1); generation <= 5; generation++ {
		srv.gate.Cut() // and a new session begins
		publish(t, s, credential(generation, time.Hour))
		if _, err := r.WaitNewer(testContext(t), "wx1", messages.AccessToken, generation-1); err != nil {
			t.Fatal(err)
		}
	}
	if n := consumers(t, s); n > 2 {
		t.Errorf("%d consumers of one reader", n)
	}
}

// A rolling restart of many services would need twice as many otherwise.
func TestReaderThatEndsLeavesNoConsumerBehind(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			s := newStore(t, srv, "w")
			publish(t, s, credential(1, time.Hour))
			r, err := NewReader(srv.Connect(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			stop := runReader(t, r)
			if _, err := r.Wait(testContext(t), "wx1", messages.AccessToken); err != nil {
				t.Fatal(err)
			}
			stop()
			if n := consumers(t, s); n != 0 {
				t.Errorf("%d consumers are left", n)
			}
		})
	}
}

// unheard is a JetStream whose first answers to the making of a consumer are lost.
type unheard struct {
	jetstream.JetStream
	lost int
}

func (u *unheard) CreateConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	c, err := u.JetStream.CreateConsumer(ctx, stream, cfg)
	if u.lost > 0 {
		u.lost--
		return nil, context.DeadlineExceeded
	}
	return c, err
}

func TestConsumerWhoseMakingWasNotHeardOfIsRemoved(t *testing.T) {
	t.Parallel()
	s := newStore(t, natstest.Start(t), "w")
	up := make(chan struct{})
	ctx, cancel := context.WithCancel(testContext(t))
	w := bucket.Watch{js: &unheard{s.js, 3}, bucket: messages.DefaultBucket, keys: []string{"wx1.*"}, narrow: true, emit: func(e bucket.Event) {
		if e.Up {
			close(up)
		}
	}}
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx) }()
	select {
	case <-up:
	case <-ctx.Done():
		t.Fatal("the watch does not begin")
	}
	if n := consumers(t, s); n != 1 {
		t.Errorf("%d consumers of one watch", n)
	}
	cancel()
	<-done
}

// consumers is how many consumers the bucket has.
func consumers(t *testing.T, s *store.Store) int {
	t.Helper()
	st, err := s.js.Stream(testContext(t), "KV_wechat")
	if err != nil {
		t.Fatal(err)
	}
	return st.CachedInfo().State.Consumers
}

// A node that was cut off from the others sends heartbeats, and knows nothing of the bucket.
func TestBucketThatDoesNotAnswerIsTold(t *testing.T) {
	t.Parallel()
	srv, gate := natstest.Start(t), natstest.NewGate()
	newStore(t, srv, "w")
	js, err := jetstream.New(srv.Connect(gate.Option()))
	if err != nil {
		t.Fatal(err)
	}
	for nth := 2; nth <= 3; nth++ { // the first is asked at the start
		gate.Lose("$JS.API.STREAM.INFO.KV_wechat", nth)
	}
	events := make(chan bucket.Event, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	w := bucket.Watch{js: js, bucket: messages.DefaultBucket, keys: []string{"*.*"}, every: 50 * time.Millisecond, emit: func(e bucket.Event) { events <- e }}
	go func() { defer close(done); w.run(ctx) }()
	defer func() { cancel(); <-done }()
	awaitEvent(t, events, "it does not begin", isUp)
	if e := awaitEvent(t, events, "the silence is not told", isDown); !strings.Contains(e.Down.Error(), "the bucket does not answer") {
		t.Errorf("it is told as %v", e.Down)
	}
	e := awaitEvent(t, events, "the answer is not told", func(e bucket.Event) bool { return e.Up || e.Reset })
	if e.Reset {
		t.Error("the session has ended")
	}
}

// In a bucket of one key each write replaces all that was there. That is no trouble.
func TestBucketOfOneKeyMakesNoTrouble(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s := newStore(t, srv, "w")
	publish(t, s, credential(1, time.Hour))
	var troubles atomic.Int32
	r := startReader(t, srv, ReaderConfig{OnError: func(error) { troubles.Add(1) }, OnMissing: s.Ensure})
	w := &bucket.Watch{last: 1, asked: 1}
	if w.turnedOver(&jetstream.StreamInfo{State: jetstream.StreamState{FirstSeq: 1, LastSeq: 2}}) || !w.turnedOver(&jetstream.StreamInfo{State: jetstream.StreamState{FirstSeq: 2, LastSeq: 2}}) {
		t.Error("a bucket has turned over when nothing is left of the last look, and only then")
	}
	// The owner's watch looks after 5 s.
	publish(t, s, credential(2, time.Hour))
	changes := make(chan Change, 10)
	r.observe(changes)
	awaitChange(t, changes, "the watch has not looked", func(c Change) bool { return c.Ready })
	if n := troubles.Load(); n > 0 {
		t.Errorf("%d times of trouble", n)
	}
}

// A ticket keeps its value and its generation, and gets a longer life: the old record is not that publication.
func TestLongerLifeIsNotTakenForPublished(t *testing.T) {
	t.Parallel()
	srv, gate := natstest.Start(t), natstest.NewGate()
	s, err := store.New(srv.Connect(gate.Option()), store.Config{Worker: "w", Timeout: 500 * time.Millisecond})
	if err == nil {
		err = s.Ensure(testContext(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	c := credential(1, time.Minute)
	publish(t, s, c)
	longer := c
	longer.ExpiresAt = c.ExpiresAt.Add(30 * time.Minute)
	lost := gate.Lose("$KV.wechat.wx1.access_token", 1)
	publish(t, s, longer)
	<-lost
	if have, err := s.Get(testContext(t), "wx1", messages.AccessToken); err != nil || !have.ExpiresAt.Equal(longer.ExpiresAt) {
		t.Errorf("the record ends at %s, %v; want %s", have.ExpiresAt, err, longer.ExpiresAt)
	}
}

// purging loses what is in a bucket between the making of a consumer and its first delivery.
type purging struct {
	jetstream.JetStream
	done bool
}

func (p *purging) CreateConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	c, err := p.JetStream.CreateConsumer(ctx, stream, cfg)
	if err == nil && !p.done {
		p.done = true
		var st jetstream.Stream
		if st, err = p.Stream(ctx, stream); err == nil {
			err = st.Purge(ctx)
		}
	}
	return c, err
}

// Nothing arrives then, whose number of pending messages would tell that the snapshot is complete.
func TestSnapshotOfABucketThatIsPurgedMeanwhileBecomesComplete(t *testing.T) {
	t.Parallel()
	s := newStore(t, natstest.Start(t), "w")
	publish(t, s, credential(1, time.Hour))
	ready := make(chan struct{})
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	w := bucket.Watch{js: &purging{JetStream: s.js}, bucket: messages.DefaultBucket, keys: []string{"*.*"}, missing: s.Ensure, emit: func(e bucket.Event) {
		if e.Ready {
			close(ready)
			cancel()
		}
	}}
	w.run(ctx)
	select {
	case <-ready:
	default:
		t.Error("the snapshot is never complete")
	}
}
