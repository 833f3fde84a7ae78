package bucket

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

// Subjects of permissions.
var (
	readOneAccount  = DirectGetAPI(messages.DefaultBucket, AccountKeys("wx1"))
	readAllAccounts = DirectGetAPI(messages.DefaultBucket, ">")
	allPublished    = messages.DefaultPrefix + ".published.>"
)

// The changes of the other accounts are delivered by the session that has begun, and not by reading again and
// again.
func TestAccountThatMayNotBeReadDoesNotDelayTheOthers(t *testing.T) {
	t.Parallel()
	srv, worker, shop := natstest.StartRestricted(t, []string{readOneAccount}, []string{allPublished})
	f := newFixture(t, srv.Connect(worker))
	events := followDirect(t, &Direct{NC: srv.Connect(shop), AppIDs: []string{"wx1", "wx2"}, ReadEvery: time.Hour})
	awaitEvent(t, events, "the refusal is not emitted", func(e Event) bool {
		return errors.Is(e.Down, nats.ErrPermissionViolation)
	})
	revision := f.publish(credential(1, time.Hour))
	e := awaitEvent(t, events, "the change of the other account is not emitted", func(e Event) bool {
		return e.Key != "" || e.Recreated
	})
	if e.Key == "" {
		t.Fatalf("another session has begun: %+v", e)
	}
	if e.Revision != revision {
		t.Errorf("revision %d was emitted, want %d", e.Revision, revision)
	}
}

// A connection keeps its last error: the permission that was missing then may have been granted since.
func TestRefusalBeforeTheSessionIsIgnored(t *testing.T) {
	t.Parallel()
	srv, worker, shop := natstest.StartRestricted(t, []string{readAllAccounts}, []string{"wechat.published.*.*"})
	newFixture(t, srv.Connect(worker))
	nc := srv.Connect(shop)
	sub, err := nc.SubscribeSync("wechat.published.wx1.*.more")
	if err == nil {
		defer func() { _ = sub.Unsubscribe() }()
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.LastError(); !errors.Is(err, nats.ErrPermissionViolation) {
		t.Fatalf("the last error is %v, want a refusal", err)
	}
	events := followDirect(t, &Direct{NC: nc, AppIDs: []string{"wx1"}})
	awaitEvent(t, events, "the feed does not start", func(e Event) bool {
		if errors.Is(e.Down, nats.ErrPermissionViolation) {
			t.Errorf("the feed is down because of %q", e.Down)
		}
		return e.Up
	})
}

// A republished record is sent once, and may be lost while all connections are up.
func TestDirectReadsAllRecordsAgainPeriodically(t *testing.T) {
	t.Parallel()
	srv, gate := natstest.Start(t), natstest.NewGate()
	f := newFixture(t, srv.Connect())
	events := followDirect(t, &Direct{
		NC: srv.Connect(gate.Option()), AppIDs: []string{"wx1"}, ReadEvery: 50 * time.Millisecond,
	})
	awaitEvent(t, events, "the feed does not start", isUp)
	lost := gate.Miss(messages.PublishedSubject(messages.DefaultPrefix, "wx1", messages.AccessToken), 1)
	revision := f.publish(credential(1, time.Hour))
	<-lost
	awaitEvent(t, events, "the record whose message was lost is not read", isRecord(revision))
}

// A network that silently drops packets is noticed also if the next read of all records is far away, and in the
// middle of a read of many accounts.
func TestDirectNoticesASilentConnection(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	newFixture(t, srv.Connect())
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprint("wx", i))
	}
	for name, d := range map[string]*Direct{
		"idle":    {AppIDs: []string{"wx1"}, ReadEvery: time.Hour},
		"reading": {AppIDs: many, ReadEvery: time.Millisecond, PingEvery: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate := natstest.NewGate()
			d.NC = srv.Connect(gate.Option())
			events := followDirect(t, d)
			awaitEvent(t, events, "the feed does not start", isUp)
			gate.Hold()
			e := awaitEvent(t, events, "the silence is not noticed", isDown)
			if !errors.Is(e.Down, errDisconnected) {
				t.Errorf("the feed is down because of %q, want errDisconnected", e.Down)
			}
			gate.Open()
			awaitEvent(t, events, "the feed does not start again", isUp)
		})
	}
}

func TestPositionsDistinguishARecreatedBucketFromALaggingReplica(t *testing.T) {
	t.Parallel()
	var ps positions
	for i, step := range []struct {
		position
		recreated bool
	}{
		{position{10, 100}, false},
		{position{11, 110}, false},
		{position{10, 100}, false}, // from a replica that lags
		{position{11, 110}, false}, // the replica has caught up
		{position{11, 120}, true},
		{position{3, 130}, true},
		{position{4, 140}, false},
	} {
		if got := ps.next("wx1.access_token", step.position); got != step.recreated {
			t.Errorf("step %d: recreated is %t, want %t", i, got, step.recreated)
		}
	}
}
