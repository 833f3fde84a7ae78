package store

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/messages"
)

func TestPublishedRecordIsReadBackFromTheLeader(t *testing.T) {
	t.Parallel()
	s := newStore(t, natstest.Start(t), "w1")
	want := credential(1, time.Hour)
	checkStored(t, s, want, publish(t, s, want))
}

// The bucket numbers its writes itself: a revision in the stored record would belong to an earlier write.
func TestStoredRecordHasNoRevision(t *testing.T) {
	t.Parallel()
	s := newStore(t, natstest.Start(t), "w")
	c := credential(1, time.Hour)
	c.Revision = 99
	publish(t, s, c)
	got, _, err := s.leaderGet(testContext(t), s.cfg.Bucket, messages.Key(c.AppID, c.Kind))
	if err != nil {
		t.Fatal(err)
	}
	c.Revision = 0
	want, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	want = seal.JSON(keys("wx1")[0], seal.Place{Bucket: "wechat", Key: messages.Key(c.AppID, c.Kind)}, want)
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestExpiredRecordRemovesItselfAndNotifiesWatchers(t *testing.T) {
	t.Parallel()
	s := newStore(t, natstest.Start(t), "w")
	events := followRecords(t, s)
	publish(t, s, credential(1, 5*time.Second))
	await(t, events, "the removal is not delivered", func(e RecordEvent) bool {
		return e.Key == messages.Key("wx1", messages.AccessToken) && e.Removed
	})
	if _, err := s.Get(testContext(t), "wx1", messages.AccessToken); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get returns %v after the end, want ErrNotFound", err)
	}
}

func TestRepublishesEachChangeOfARecord(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s := newStore(t, srv, "w")
	nc := srv.Connect()
	sub, err := nc.SubscribeSync(messages.PublishedSubject("wechat", "*", "*"))
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	// Between the two records, each publication has written a lease and released it: leases are not
	// republished.
	for generation := uint64(1); generation <= 2; generation++ {
		want := credential(generation, time.Hour)
		publish(t, s, want)
		m, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject != "wechat.published.wx1.access_token" {
			t.Errorf("generation %d was republished on %s", generation, m.Subject)
		}
		got, err := bucket.DecodeRecord(m.Data, "wx1", messages.AccessToken, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%v was republished, want %v", got, want)
		}
	}
}

func TestStoreNeedsAnUnbufferedConnection(t *testing.T) {
	t.Parallel()
	buffered := func(o *nats.Options) error { o.ReconnectBufSize = 0; return nil }
	if _, err := New(natstest.Start(t).Connect(buffered), Config{Keys: keys}); err == nil {
		t.Error("New accepts a connection that would send writes later")
	}
}

func TestNothingIsWrittenWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s := newStore(t, srv, "w")
	ctx := testContext(t)
	l, err := s.Acquire(ctx, "wx1", messages.AccessToken, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	if _, err := l.Publish(ctx, credential(1, time.Hour)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Publish returns %v, want ErrUnavailable", err)
	}
	srv.Restart()
	err = ErrUnavailable
	for errors.Is(err, ErrUnavailable) && ctx.Err() == nil {
		_, err = s.Get(ctx, "wx1", messages.AccessToken)
	}
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("Get returns %v after the restart, want ErrNotFound", err)
	}
}
