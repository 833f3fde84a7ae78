package kv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

func TestDirectReaderNeedsItsAccounts(t *testing.T) {
	t.Parallel()
	if _, err := NewReader(new(nats.Conn), ReaderConfig{Direct: true}); err == nil || !strings.Contains(err.Error(), "AppIDs") {
		t.Errorf("%v, want what is missing", err)
	}
}

// A republished record is sent at most once: what was published while the connection was away is read.
func TestDirectReaderReadsWhatItHasNotHeard(t *testing.T) {
	t.Parallel()
	srv := gated{natstest.Start(t), natstest.NewGate()}
	s := newStore(t, srv.Server, "w")
	publish(t, s, credential(1, time.Hour))
	r := startReader(t, srv, ReaderConfig{Direct: true, AppIDs: []string{"wx1"}})
	changes := make(chan Change, 10)
	r.observe(changes)
	srv.gate.Hold()
	publish(t, s, credential(2, time.Hour))
	srv.gate.Cut()
	if _, err := r.WaitNewer(testContext(t), "wx1", messages.AccessToken, 1); err != nil {
		t.Fatal(err)
	}
	// The same record again, read after another reconnection, is no news.
	srv.gate.Cut()
	publishSoon(t, s, credential(3, time.Hour))
	if _, err := r.WaitNewer(testContext(t), "wx1", messages.AccessToken, 2); err != nil {
		t.Fatal(err)
	}
	for _, want := range []uint64{2, 3} {
		if c := <-changes; c.Record == nil || c.Record.Generation != want {
			t.Errorf("%+v is told, want generation %d", c, want)
		}
	}
}

func TestDirectReaderIsToldThatARecordHasGone(t *testing.T) {
	t.Parallel()
	srv := gated{natstest.Start(t), natstest.NewGate()}
	s := newStore(t, srv.Server, "w")
	r := startReader(t, srv, ReaderConfig{Direct: true, AppIDs: []string{"wx1"}})
	changes := make(chan Change, 10)
	r.observe(changes)
	publish(t, s, credential(1, time.Hour))
	<-changes
	if err := s.creds.Delete(testContext(t), "wx1.access_token"); err != nil {
		t.Fatal(err)
	}
	if c := <-changes; c.Record != nil || c.Kind != messages.AccessToken {
		t.Errorf("after the deletion %+v is told", c)
	}
	publish(t, s, credential(2, time.Hour))
	<-changes
	st, err := s.js.Stream(testContext(t), "KV_wechat")
	if err == nil {
		err = st.Purge(testContext(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	srv.gate.Cut() // so that it reads at once
	awaitChange(t, changes, "the purge is not noticed", func(c Change) bool { return c.Record == nil && c.Kind == messages.AccessToken })
	if c, err := r.Get("wx1", messages.AccessToken); err != nil || c.Generation != 2 {
		t.Errorf("what is valid is no longer served: %v, %v", c, err)
	}
}

// restricted is a server with a worker, and a user who may publish and subscribe to some subjects.
func restricted(t *testing.T, publish, subscribe []string) (srv *natstest.Server, s *store.Store, shop nats.Option) {
	t.Helper()
	const password = "only-for-this-test"
	srv = natstest.Start(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "worker", Password: password}, {Username: "shop", Password: password, Permissions: may(publish, subscribe)}}
	})
	s, err := store.New(srv.Connect(nats.UserInfo("worker", password)), store.Config{Worker: "w"})
	if err == nil {
		err = s.Ensure(testContext(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	return srv, s, nats.UserInfo("shop", password)
}

func may(publish, subscribe []string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: append([]string{"_INBOX.>"}, subscribe...)},
	}
}

const (
	readOne = "$JS.API.DIRECT.GET.KV_wechat.$KV.wechat.wx1.*"
	readAll = "$JS.API.DIRECT.GET.KV_wechat.$KV.wechat.>"
	hearAll = "wechat.published.>"
)

// follow runs a direct feed, and returns what it tells, but for the entries' repetitions.
func follow(t *testing.T, d *bucket.Direct) <-chan bucket.Event {
	t.Helper()
	events := make(chan bucket.Event, 1000)
	d.bucket, d.prefix = messages.DefaultBucket, messages.DefaultPrefix
	d.emit = func(e bucket.Event) { events <- e }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return events
}

// awaitEvent waits for an event.
func awaitEvent(t *testing.T, events <-chan bucket.Event, otherwise string, is func(bucket.Event) bool) bucket.Event {
	t.Helper()
	for late := testContext(t).Done(); ; {
		select {
		case e := <-events:
			if is(e) {
				return e
			}
		case <-late:
			t.Fatal(otherwise)
		}
	}
}

func isDown(e bucket.Event) bool { return e.Down != nil }

func isUp(e bucket.Event) bool { return e.Up }

// isRecord tells the record whose revision is that.
func isRecord(rev uint64) func(bucket.Event) bool {
	return func(e bucket.Event) bool { return e.Key != "" && e.Revision == rev && !e.Removed }
}

// Who runs such a Reader has few permissions, and sees which one is missing. What it may do, it does.
func TestDirectReaderSaysWhatItMayNotDo(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		publish, subscribe []string
		want               string
	}{
		"it may not hear":            {[]string{readAll}, nil, `Subscription to "wechat.published.wx`},
		"it may not read an account": {[]string{readOne}, []string{hearAll}, `Publish to "$JS.API.DIRECT.GET.KV_wechat.$KV.wechat.wx2.`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, s, shop := restricted(t, tt.publish, tt.subscribe)
			publish(t, s, credential(1, time.Hour))
			told := make(chan error, 1000)
			r, err := NewReader(srv.Connect(shop), ReaderConfig{Direct: true, AppIDs: []string{"wx1", "wx2"}, OnError: func(err error) { told <- err }})
			if err != nil {
				t.Fatal(err)
			}
			runReader(t, r)
			if _, err := r.Wait(testContext(t), "wx1", messages.AccessToken); err != nil {
				t.Error(err)
			}
			for late := testContext(t).Done(); ; {
				select {
				case err := <-told:
					if strings.Contains(err.Error(), tt.want) {
						return
					}
				case <-late:
					t.Fatalf("nothing says %s; the health is %+v", tt.want, r.Health())
				}
			}
		})
	}
}

// The others are not read again and again in place of being heard.
func TestAccountThatMayNotBeReadDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	srv, s, shop := restricted(t, []string{readOne}, []string{hearAll})
	events := follow(t, &bucket.Direct{nc: srv.Connect(shop), appids: []string{"wx1", "wx2"}, every: time.Hour})
	awaitEvent(t, events, "the refusal is not told", isDown)
	rev := publish(t, s, credential(1, time.Hour))
	e := awaitEvent(t, events, "the change of the other account is not heard", func(e bucket.Event) bool { return e.Key != "" || e.Recreated })
	if e.Key == "" || e.Revision != rev {
		t.Errorf("%+v is told, want revision %d by the session that has begun", e, rev)
	}
}

// A connection remembers its last error for ever: what was refused once may have been granted since.
func TestOldRefusalIsNotBelieved(t *testing.T) {
	t.Parallel()
	srv, _, shop := restricted(t, []string{readAll}, []string{"wechat.published.*.*"})
	nc := srv.Connect(shop)
	sub, err := nc.SubscribeSync("wechat.published.wx1.*.more")
	if err == nil {
		defer func() { _ = sub.Unsubscribe() }()
		err = nc.Flush()
	}
	if err != nil || !errors.Is(nc.LastError(), nats.ErrPermissionViolation) {
		t.Fatalf("%v, %v; want a refusal", err, nc.LastError())
	}
	events := follow(t, &bucket.Direct{nc: nc, appids: []string{"wx1"}})
	if e := awaitEvent(t, events, "it does not begin", func(e bucket.Event) bool { return e.Up || e.Down != nil }); e.Down != nil {
		t.Errorf("it is told as %v", e.Down)
	}
}

// A republished record is sent once and may be lost while all connections stand.
func TestDirectReaderReadsAgainNowAndThen(t *testing.T) {
	t.Parallel()
	srv, gate := natstest.Start(t), natstest.NewGate()
	s := newStore(t, srv, "w")
	events := follow(t, &bucket.Direct{nc: srv.Connect(gate.Option()), appids: []string{"wx1"}, every: 50 * time.Millisecond})
	awaitEvent(t, events, "it does not begin", isUp)
	lost := gate.Miss("wechat.published.wx1.access_token", 1)
	rev := publish(t, s, credential(1, time.Hour))
	<-lost
	awaitEvent(t, events, "what was lost is not read", isRecord(rev))
}

// A line that swallows everything is noticed, also where the next reading is far, and in the middle of one of many accounts.
func TestDirectReaderNoticesASilentLine(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	newStore(t, srv, "w")
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprint("wx", i))
	}
	for name, d := range map[string]*bucket.Direct{
		"idle": {appids: []string{"wx1"}, every: time.Hour}, "reading": {appids: many, every: time.Millisecond, beat: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate := natstest.NewGate()
			d.nc = srv.Connect(gate.Option())
			events := follow(t, d)
			awaitEvent(t, events, "it does not begin", isUp)
			gate.Hold()
			e := awaitEvent(t, events, "the silence is not noticed", isDown)
			if !errors.Is(e.Down, bucket.errDisconnected) {
				t.Errorf("it is told as %v", e.Down)
			}
			gate.Open()
			awaitEvent(t, events, "it does not begin again", isUp)
		})
	}
}

func TestMarksTellABucketMadeAnewFromAReplicaThatLags(t *testing.T) {
	t.Parallel()
	var ms bucket.positions
	for i, step := range []struct {
		bucket.position
		anew bool
	}{
		{bucket.position{10, 100}, false}, {bucket.position{11, 110}, false}, {bucket.position{10, 100}, false}, {bucket.position{11, 110}, false}, // it lags, and has caught up
		{bucket.position{11, 120}, true}, {bucket.position{3, 130}, true}, {bucket.position{4, 140}, false},
	} {
		if got := ms.next("wx1.access_token", step.mark); got != step.anew {
			t.Errorf("step %d: anew is %t, want %t", i, got, step.anew)
		}
	}
}
