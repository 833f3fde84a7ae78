package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

func TestInspectNeitherCreatesNorChangesABucket(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s, err := New(srv.Connect(), Config{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	expect := func(when string, wantCredentials, wantLedgers BucketState) {
		t.Helper()
		credentials, ledgers, err := s.Inspect(ctx)
		if err != nil {
			t.Fatal(err)
		}
		credentials.Leader, ledgers.Leader = "", "" // a single server leads its streams, or does not say so
		if diff := cmp.Diff(wantCredentials, credentials); diff != "" {
			t.Errorf("%s, the credentials: %s", when, diff)
		}
		if diff := cmp.Diff(wantLedgers, ledgers); diff != "" {
			t.Errorf("%s, the ledgers: %s", when, diff)
		}
	}
	expect("without buckets", BucketState{Name: "wechat", Wants: 1}, BucketState{Name: "wechat_ledger", Wants: 1})
	for name := range s.js.StreamNames(ctx).Name() {
		t.Errorf("Inspect has created the stream %s", name)
	}
	if _, err := s.Acquire(ctx, "wx1", messages.AccessToken, time.Second); err == nil {
		t.Error("Acquire gets a lease without a bucket")
	}

	if _, err := s.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "wechat", History: 5}); err != nil {
		t.Fatal(err)
	}
	credentials, _, err := s.Inspect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(credentials.Wrong, ErrBucket) {
		t.Errorf("the wrong setting is %v, want ErrBucket", credentials.Wrong)
	}
	if err := s.js.DeleteKeyValue(ctx, "wechat"); err != nil {
		t.Fatal(err)
	}

	newStore(t, srv, "w1") // it creates the buckets
	expect("with both buckets", BucketState{Name: "wechat", Exists: true, Wants: 1, Replicas: 1},
		BucketState{Name: "wechat_ledger", Exists: true, Wants: 1, Replicas: 1})
	l, err := s.Acquire(ctx, "wx1", messages.AccessToken, time.Second)
	if err != nil {
		t.Fatalf("Inspect has not opened the buckets: %v", err)
	}
	l.Release(ctx)
}

func TestInspectSeesAnOfflineReplica(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t)
	s := newClusterStore(t, c, "w")
	ctx := testContext(t)
	credentials, _, err := s.Inspect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if credentials.Leader == "" {
		t.Error("the bucket has no leader")
	}
	credentials.Leader, credentials.Behind = "", nil // a replica may still be catching up
	want := BucketState{Name: "wechat", Exists: true, Wants: 3, Replicas: 3, Cluster: "test"}
	if diff := cmp.Diff(want, credentials); diff != "" {
		t.Error(diff)
	}
	stopped := 0
	if c.StreamLeader("KV_wechat") == c.Servers[stopped] {
		stopped = 1
	}
	c.Servers[stopped].Stop()
	behind := []string{fmt.Sprintf("test-%d is offline", stopped)}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		credentials, _, err := s.Inspect(ctx)
		if err == nil && slices.Equal(credentials.Behind, behind) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the replicas behind are %q, %v; want %q", credentials.Behind, err, behind)
		}
	}
}
