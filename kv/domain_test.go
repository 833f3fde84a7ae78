package kv

import (
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
)

// The bucket is in the domain of another server, to which the Reader's server is connected as a leafnode.
func TestReaderFollowsABucketInAnotherJetStreamDomain(t *testing.T) {
	t.Parallel()
	hub, leaf := natstest.StartDomains(t, nil)
	p := newPublisher(t, hub)
	p.publish(credential(1, time.Hour))
	var readers []*Reader
	for _, cfg := range []ReaderConfig{
		{JSDomain: "hub"},
		{JSDomain: "hub", Feed: FeedDirect, AppIDs: []string{"wx1"}},
		{JSDomain: "hub", Feed: FeedWatch, AppIDs: []string{"wx1"}},
		{Feed: FeedRequests, AppIDs: []string{"wx1"}}, // needs no domain: a worker answers
	} {
		r, err := NewReader(leaf.Connect(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		runReader(t, r)
		awaitToken(t, r, 0)
		readers = append(readers, r)
	}
	p.publish(credential(2, time.Hour))
	for _, r := range readers {
		awaitToken(t, r, 1)
	}
}
