package store

import (
	"errors"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

func TestFenceHoldsThroughALostNode(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t)
	late, next := newClusterStore(t, c, "late"), newClusterStore(t, c, "next")
	ctx := testContext(t)
	l, err := late.Acquire(ctx, "wx1", messages.AccessToken, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	freeze(t, l)
	leader := c.StreamLeader("KV_wechat")
	if leader == nil {
		t.Fatal("the bucket has no leader")
	}
	leader.Stop()
	want := credential(1, time.Hour)
	revision := publishSoon(t, next, want) // when the lease has ended and another leader is elected
	if _, err := l.Publish(ctx, credential(2, time.Hour)); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("the late Publish returns %v, want ErrLeaseLost", err)
	}
	checkStored(t, late, want, revision)
	leader.Restart()
	c.AwaitReady()
	publishSoon(t, late, credential(3, time.Hour))
}
