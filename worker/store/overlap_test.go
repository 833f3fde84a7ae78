package store

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
)

func TestStreamsThatStoreRequestsOrTokensAreNamed(t *testing.T) {
	t.Parallel()
	s := newStore(t, natstest.Start(t), "w")
	ctx := testContext(t)
	for name, subjects := range map[string][]string{
		"ORDERS": {"orders.>"}, "EVENTS": {"wechat.event.>"}, // neither stores a request
		"RESOLVED": {"wechat.code.resolve.wx1"}, "TOKENS": {"wechat.published.>"}, "REPORTS": {"wechat.credential.refresh"},
	} {
		if _, err := s.js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: subjects}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Overlapping(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"REPORTS", "RESOLVED", "TOKENS"}, got); diff != "" {
		t.Error(diff)
	}
}
