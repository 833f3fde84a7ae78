package kv

import (
	"errors"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

func TestWithoutQuorumNothingIsWrittenAndTheReaderServes(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t)
	p := newPublisher(t, c)
	p.publish(credential(1, time.Hour))
	r := startReader(t, c, ReaderConfig{})
	awaitToken(t, r.Reader, 0) // the snapshot may come from a replica that lags
	for _, srv := range c.Servers[:2] {
		srv.Stop()
	}
	_, err := p.Acquire(testContext(t), "wx1", messages.AccessToken, 2*time.Second)
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("without quorum, Acquire returns %v, want ErrUnavailable", err)
	}
	checkGeneration(t, r.Reader, "without quorum", 1)
	for _, srv := range c.Servers[:2] {
		srv.Restart()
	}
	c.AwaitReady()
	p.publish(credential(2, time.Hour))
	awaitToken(t, r.Reader, 1)
}

func TestReaderSeesWhatComesAfterALostLeader(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t)
	p := newPublisher(t, c)
	p.publish(credential(1, time.Hour))
	readers := map[string]*Reader{}
	for name, cfg := range feeds() {
		readers[name] = startReader(t, c, cfg).Reader
		awaitToken(t, readers[name], 0) // the snapshot may come from a replica that lags
	}
	leader := c.StreamLeader(bucket.Stream(messages.DefaultBucket))
	if leader == nil {
		t.Fatal("the bucket has no leader")
	}
	leader.Stop()
	for name, r := range readers {
		checkGeneration(t, r, name+", without a leader", 1)
	}
	p.publish(credential(2, time.Hour))
	for name, r := range readers {
		if _, err := r.WaitNewer(testContext(t), "wx1", messages.AccessToken, 1); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
