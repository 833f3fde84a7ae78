package kv

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// BucketState is what [Store.Inspect] finds of one bucket.
type BucketState struct {
	Name string
	// Exists: the bucket is there. Where it is not, the first worker makes it, and only Wants is set beside Name.
	Exists bool
	// Wrong is the setting that contradicts the design ([ErrBucket]): no worker starts with it. nil: none.
	Wrong error
	// Wants is how many replicas a worker of this configuration gives the bucket when it makes it, Replicas how many it has.
	Wants, Replicas int
	// Cluster is the name of the cluster that holds it; "" for a single server. Leader is "" where it has none now.
	Cluster, Leader string
	// Behind are the replicas that are away or not up to date, in words.
	Behind []string
}

// Inspect looks at both buckets, and neither makes nor changes them. Where both are there and right it opens them, so that
// leases can be taken. [ErrUnavailable] where JetStream does not answer; jetstream.ErrJetStreamNotEnabled and
// jetstream.ErrJetStreamNotEnabledForAccount are to be seen through it.
func (s *Store) Inspect(ctx context.Context) (credentials, ledgers BucketState, err error) {
	replicas := s.cfg.replicas(s.nc)
	wants := [2]jetstream.KeyValueConfig{s.cfg.credentials(replicas), s.cfg.ledgers(replicas)}
	var states [2]BucketState
	var opened [2]jetstream.KeyValue
	for i, want := range wants {
		if states[i], err = s.inspect(ctx, want); err != nil {
			return states[0], states[1], err
		}
		if states[i].Exists && states[i].Wrong == nil {
			if opened[i], err = s.open(ctx, want.Bucket); err != nil {
				return states[0], states[1], err
			}
		}
	}
	if opened[0] != nil && opened[1] != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.creds, s.ledgers = opened[0], opened[1]
	}
	return states[0], states[1], nil
}

func (s *Store) open(ctx context.Context, bucket string) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	b, err := s.js.KeyValue(ctx, bucket)
	if err != nil {
		return nil, unavailable("opening bucket "+bucket, err)
	}
	return b, nil
}

func (s *Store) inspect(ctx context.Context, want jetstream.KeyValueConfig) (BucketState, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	state := BucketState{Name: want.Bucket, Wants: want.Replicas}
	// The stream, not the bucket: jetstream.KeyValue refuses a stream with other settings than those of a bucket.
	stream, err := s.js.Stream(ctx, "KV_"+want.Bucket)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return state, nil
	}
	if err != nil {
		return state, unavailable("reading the settings of bucket "+want.Bucket, err)
	}
	info := stream.CachedInfo()
	state.Exists, state.Replicas, state.Wrong = true, info.Config.Replicas, verifyBucket(info.Config, want)
	if c := info.Cluster; c != nil {
		state.Cluster, state.Leader = c.Name, c.Leader
		for _, r := range c.Replicas {
			switch {
			case r.Offline:
				state.Behind = append(state.Behind, r.Name+" is away")
			case !r.Current:
				state.Behind = append(state.Behind, fmt.Sprintf("%s is %d operations behind", r.Name, r.Lag))
			}
		}
	}
	return state, nil
}
