package kv

import (
	"errors"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

func newClusterStore(tb testing.TB, c *natstest.Cluster, worker string) *store.Store {
	tb.Helper()
	st, err := store.New(c.Connect(), store.Config{Worker: worker})
	if err != nil {
		tb.Fatal(err)
	}
	ctx := testContext(tb)
	for err = st.Ensure(ctx); err != nil && ctx.Err() == nil; err = st.Ensure(ctx) {
		if errors.Is(err, store.ErrBucket) {
			tb.Fatal(err)
		}
	}
	return st
}

func TestBucketsHaveThreeReplicasInACluster(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t)
	s := newClusterStore(t, c, "w")
	for _, stream := range []string{"KV_wechat", "KV_wechat_ledger"} {
		st, err := s.js.Stream(testContext(t), stream)
		if err != nil {
			t.Fatal(err)
		}
		if n := st.CachedInfo().Config.Replicas; n != 3 {
			t.Errorf("%s has %d replicas, want 3", stream, n)
		}
	}
	// What was written is read at once, by a worker on any server: Get asks the leader.
	other := newClusterStore(t, c, "other")
	for g := uint64(1); g <= 50; g++ {
		rev := publishSoon(t, s, credential(g, time.Hour))
		if got, err := other.Get(testContext(t), "wx1", messages.AccessToken); err != nil || got.Revision != rev {
			t.Fatalf("after revision %d: %v, %v", rev, got, err)
		}
	}
}

func TestFenceHoldsThroughALostNode(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t)
	late, next := newClusterStore(t, c, "late"), newClusterStore(t, c, "next")
	ctx := testContext(t)
	l, err := late.Acquire(ctx, "wx1", messages.AccessToken, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	l.deadline = time.Now().Add(patience) // its own clock stood still
	leader := c.StreamLeader("KV_wechat")
	if leader == nil {
		t.Fatal("the bucket has no leader")
	}
	leader.Stop()
	publishSoon(t, next, credential(1, time.Hour)) // once the lease has ended and a new leader stands
	if _, err := l.Publish(ctx, credential(2, time.Hour)); !errors.Is(err, store.ErrLeaseLost) {
		t.Errorf("the late publication: %v, want ErrLeaseLost", err)
	}
	if got, err := late.Get(ctx, "wx1", messages.AccessToken); err != nil || got.Generation != 1 {
		t.Errorf("the record is %v, %v", got, err)
	}
	leader.Restart()
	c.AwaitReady()
	publishSoon(t, late, credential(3, time.Hour))
}

func TestWithoutQuorumNothingIsWrittenAndTheReaderServes(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t)
	s := newClusterStore(t, c, "w")
	publish(t, s, credential(1, time.Hour))
	r := startReader(t, c, ReaderConfig{})
	if _, err := r.Wait(testContext(t), "wx1", messages.AccessToken); err != nil { // its snapshot may come from a replica that lags
		t.Fatal(err)
	}
	for _, srv := range c.Servers[:2] {
		srv.Stop()
	}
	if _, err := s.Acquire(testContext(t), "wx1", messages.AccessToken, 2*time.Second); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a lease without quorum: %v, want ErrUnavailable", err)
	}
	if _, err := r.AccessToken("wx1"); err != nil {
		t.Errorf("the reader: %v", err)
	}
	for _, srv := range c.Servers[:2] {
		srv.Restart()
	}
	c.AwaitReady()
	publishSoon(t, s, credential(2, time.Hour))
	if _, err := r.WaitNewer(testContext(t), "wx1", messages.AccessToken, 1); err != nil {
		t.Error(err)
	}
}

func TestReaderSeesWhatComesAfterALostLeader(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t)
	s := newClusterStore(t, c, "w")
	publishSoon(t, s, credential(1, time.Hour))
	readers := map[string]*watchedReader{}
	for name, cfg := range feeds() {
		readers[name] = startReader(t, c, cfg)
	}
	leader := c.StreamLeader("KV_wechat")
	if leader == nil {
		t.Fatal("the bucket has no leader")
	}
	leader.Stop()
	for name, r := range readers {
		if _, err := r.AccessToken("wx1"); err != nil {
			t.Errorf("%s, without a leader: %v", name, err)
		}
	}
	publishSoon(t, s, credential(2, time.Hour))
	for name, r := range readers {
		if _, err := r.WaitNewer(testContext(t), "wx1", messages.AccessToken, 1); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
