package store

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
)

func TestEnsureRefusesABucketWithOtherSettings(t *testing.T) {
	t.Parallel()
	base := (&Config{Bucket: "wechat", SubjectPrefix: "wechat", Keys: keys}).credentials(1)
	for name, spoil := range map[string]func(*jetstream.KeyValueConfig){
		"history":       func(c *jetstream.KeyValueConfig) { c.History = 5 },
		"storage":       func(c *jetstream.KeyValueConfig) { c.Storage = jetstream.MemoryStorage },
		"TTL":           func(c *jetstream.KeyValueConfig) { c.TTL = time.Hour },
		"limit markers": func(c *jetstream.KeyValueConfig) { c.LimitMarkerTTL = 0 },
		"republish":     func(c *jetstream.KeyValueConfig) { c.RePublish = nil },
		"republish other.published": func(c *jetstream.KeyValueConfig) {
			c.RePublish = (&Config{Bucket: "wechat", SubjectPrefix: "other", Keys: keys}).credentials(1).RePublish
		},
		"largest value": func(c *jetstream.KeyValueConfig) { c.MaxValueSize = 100 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := New(natstest.Start(t).Connect(), Config{Keys: keys})
			if err != nil {
				t.Fatal(err)
			}
			cfg := base
			spoil(&cfg)
			if _, err := s.js.CreateKeyValue(testContext(t), cfg); err != nil {
				t.Fatal(err)
			}
			err = s.Ensure(testContext(t))
			if !errors.Is(err, ErrBucket) {
				t.Fatalf("%v, want ErrBucket", err)
			}
			if setting, _, _ := strings.Cut(name, " other"); !strings.Contains(err.Error(), setting) {
				t.Errorf("the error does not name %q: %v", setting, err)
			}
		})
	}
}

func TestManyWorkersMayEnsureAtOnce(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	var all sync.WaitGroup
	for range 8 {
		s, err := New(srv.Connect(), Config{Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			if err := s.Ensure(testContext(t)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// replicas returns how many replicas the buckets have, by name.
func replicas(tb testing.TB, s *Store) map[string]int {
	tb.Helper()
	got := map[string]int{}
	for info := range s.js.ListStreams(testContext(tb)).Info() {
		got[strings.TrimPrefix(info.Config.Name, "KV_")] = info.Config.Replicas
	}
	return got
}

// clusterFixture is a Store on a cluster, with a clock that a test sets.
type clusterFixture struct {
	*Store
	tb      testing.TB
	now     time.Time
	created map[string]int // the replicas with which OnFewReplicas was called, summed up by bucket
}

func newClusterFixture(tb testing.TB, c *natstest.Cluster, configured int) *clusterFixture {
	tb.Helper()
	f := &clusterFixture{tb: tb, now: time.Now(), created: map[string]int{}}
	s, err := New(c.Connect(), Config{Keys: keys,
		Replicas: configured, Now: func() time.Time { return f.now },
		OnFewReplicas: func(bucket string, replicas int) { f.created[bucket] += replicas },
	})
	if err != nil {
		tb.Fatal(err)
	}
	f.Store = s
	return f
}

// ensureFails checks that Ensure fails because of too few servers, and that its error has some texts.
func (f *clusterFixture) ensureFails(when string, texts ...string) {
	f.tb.Helper()
	err := f.Ensure(testContext(f.tb))
	if !isTooFewServers(err) {
		f.tb.Fatalf("%s: Ensure returns %v, want that the cluster has too few servers", when, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			f.tb.Errorf("%s: %q is not in the error: %v", when, text, err)
		}
	}
	if diff := cmp.Diff(map[string]int{}, replicas(f.tb, f.Store)); diff != "" {
		f.tb.Errorf("%s: buckets were created: %s", when, diff)
	}
}

func TestBucketsHaveOneReplicaIfTheClusterHasHadTooFewServersForHalfAMinute(t *testing.T) {
	t.Parallel()
	f := newClusterFixture(t, natstest.StartClusterOf(t, 2), 0)
	advice := []string{"too few servers for 3 replicas", "start 3 NATS servers", "WXKEEPER_REPLICAS=1", "after 30s"}
	f.ensureFails("at first", advice...)
	f.now = f.now.Add(fewReplicasAfter - 1)
	f.ensureFails("a moment before the end of the half minute", advice...)

	f.now = f.now.Add(1)
	for range 2 {
		if err := f.Ensure(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]int{"wechat": 1, "wechat_ledger": 1}
	if diff := cmp.Diff(want, replicas(t, f.Store)); diff != "" {
		t.Errorf("replicas of the buckets: %s", diff)
	}
	if diff := cmp.Diff(want, f.created); diff != "" {
		t.Errorf("calls of OnFewReplicas: %s", diff)
	}
	publish(t, f.Store, credential(1, time.Hour))
}

func TestConfiguredReplicasAreNotLowered(t *testing.T) {
	t.Parallel()
	f := newClusterFixture(t, natstest.StartClusterOf(t, 2), 3)
	for range 3 {
		f.ensureFails("with 3 configured",
			"too few servers for 3 replicas", "start 3 NATS servers", "lower WXKEEPER_REPLICAS")
		f.now = f.now.Add(time.Hour)
	}
	if diff := cmp.Diff(map[string]int{}, f.created); diff != "" {
		t.Errorf("calls of OnFewReplicas: %s", diff)
	}
}

// A cluster that elects a leader, or was not there, may have been complete in the meantime.
func TestHalfMinuteOfTooFewServersBeginsAgainAfterAnotherError(t *testing.T) {
	t.Parallel()
	f := newClusterFixture(t, natstest.StartClusterOf(t, 2), 0)
	f.ensureFails("at first")
	f.now = f.now.Add(time.Hour)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.createBucket(gone, f.cfg.credentials(3)); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, want context.Canceled", err)
	}
	f.ensureFails("after the other error")
}

func TestBucketsHaveThreeReplicasInACluster(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t)
	f := newClusterFixture(t, c, 0)
	ctx := testContext(t)
	for f.Ensure(ctx) != nil && ctx.Err() == nil { // while a leader is elected
		f.now = f.now.Add(time.Hour)
	}
	if diff := cmp.Diff(map[string]int{"wechat": 3, "wechat_ledger": 3}, replicas(t, f.Store)); diff != "" {
		t.Errorf("replicas of the buckets: %s", diff)
	}
	if diff := cmp.Diff(map[string]int{}, f.created); diff != "" {
		t.Errorf("calls of OnFewReplicas: %s", diff)
	}
	// A record is visible at once to a worker on any server, because Get asks the leader.
	other := newClusterStore(t, c, "other")
	for generation := uint64(1); generation <= 50; generation++ {
		want := credential(generation, time.Hour)
		checkStored(t, other, want, publishSoon(t, f.Store, want))
	}
}
