package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

func TestInspectNeitherMakesNorChangesABucket(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s, err := New(srv.Connect(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	inspect := func() (creds, ledgers BucketState) {
		t.Helper()
		creds, ledgers, err := s.Inspect(kv.testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		return creds, ledgers
	}
	if creds, ledgers := inspect(); creds.Exists || ledgers.Exists || creds.Wants != 1 || creds.Name != "wechat" || ledgers.Name != "wechat_ledger" {
		t.Errorf("%+v %+v", creds, ledgers)
	}
	if n := s.js.StreamNames(kv.testContext(t)).Name(); len(n) != 0 {
		t.Error("Inspect has made a stream")
	}
	if _, err := s.Acquire(kv.testContext(t), "wx1", messages.AccessToken, time.Second); err == nil {
		t.Error("a lease in a bucket that is not there")
	}

	if _, err := s.js.CreateKeyValue(kv.testContext(t), jetstream.KeyValueConfig{Bucket: "wechat", History: 5}); err != nil {
		t.Fatal(err)
	}
	if creds, _ := inspect(); !creds.Exists || !errors.Is(creds.Wrong, ErrBucket) {
		t.Errorf("%+v", creds)
	}
	if err := s.js.DeleteKeyValue(kv.testContext(t), "wechat"); err != nil {
		t.Fatal(err)
	}

	kv.newStore(t, srv, "w1") // which makes them
	if creds, ledgers := inspect(); !creds.Exists || creds.Wrong != nil || !ledgers.Exists || ledgers.Wrong != nil || creds.Replicas != 1 || creds.Cluster != "" {
		t.Errorf("%+v %+v", creds, ledgers)
	}
	l, err := s.Acquire(kv.testContext(t), "wx1", messages.AccessToken, time.Second)
	if err != nil {
		t.Fatalf("Inspect did not open the buckets: %v", err)
	}
	l.Release(kv.testContext(t))
}

func TestInspectSeesAReplicaThatIsAway(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t)
	s, err := New(c.Connect(), Config{})
	if err == nil {
		err = s.Ensure(kv.testContext(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	creds, _, err := s.Inspect(kv.testContext(t))
	if err != nil || creds.Replicas != 3 || creds.Wants != 3 || creds.Cluster != "test" || creds.Leader == "" {
		t.Fatalf("%+v, %v", creds, err)
	}
	away := 0
	if c.StreamLeader("KV_wechat") == c.Servers[away] {
		away = 1
	}
	c.Servers[away].Stop()
	want := []string{fmt.Sprintf("test-%d is away", away)}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx := kv.testContext(t); ; {
		creds, _, err := s.Inspect(ctx)
		if err == nil && slices.Equal(creds.Behind, want) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%+v, %v", creds, err)
		}
	}
}
