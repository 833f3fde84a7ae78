package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
)

// BucketState is the state of one bucket.
type BucketState struct {
	Name string
	// Exists is false if the bucket does not exist; the first worker creates it. Only Name, Wants and Wrong are set
	// then.
	Exists bool
	// Wrong is the setting that wxkeeper cannot work with ([ErrBucket]), or why the bucket cannot be created (another
	// stream stores its subjects): no worker starts with it. nil: none.
	Wrong error
	// Wants is the number of replicas that a new bucket should have, Replicas the number that this bucket has.
	Wants, Replicas int
	// MaxBytes is the largest size of the bucket, in bytes, 0 if it has none; Bytes is its size now.
	MaxBytes int64
	Bytes    uint64
	// Cluster is the name of the cluster that has the bucket; "" for a single server. Leader is the server that
	// leads the bucket's stream; "" if no server does now.
	Cluster, Leader string
	// Behind describes the replicas that are offline or not up to date.
	Behind []string
}

// Inspect reads the state of both buckets. It neither creates nor changes them. If both exist and have the
// right settings, Inspect opens them, so that leases can be taken. [ErrUnavailable] if JetStream does not
// answer; it wraps jetstream.ErrJetStreamNotEnabled and jetstream.ErrJetStreamNotEnabledForAccount.
func (s *Store) Inspect(ctx context.Context) (credentials, ledgers BucketState, err error) {
	replicas := s.cfg.replicas(s.nc)
	if s.cfg.Replicas == 0 && s.cfg.JSDomain == "" && s.nc.ConnectedClusterName() == s.nc.ConnectedServerName() {
		replicas = 1 // a server with leafnode remotes and without a cluster
	}
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

// Account returns what the NATS account of this user has of JetStream, and its limits. [ErrUnavailable].
func (s *Store) Account(ctx context.Context) (*jetstream.AccountInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	info, err := s.js.AccountInfo(ctx)
	if err != nil {
		return nil, unavailable("read the limits of the NATS account", err)
	}
	return info, nil
}

func (s *Store) open(ctx context.Context, name string) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	b, err := s.js.KeyValue(ctx, name)
	if err != nil {
		return nil, unavailable("open bucket "+name, err)
	}
	return b, nil
}

func (s *Store) inspect(ctx context.Context, want jetstream.KeyValueConfig) (BucketState, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	state := BucketState{Name: want.Bucket, Wants: want.Replicas}
	// It opens the stream and not the bucket, because jetstream.KeyValue refuses a stream with wrong settings.
	stream, err := s.js.Stream(ctx, bucket.Stream(want.Bucket))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		// If the streams cannot be listed, nothing is known against the bucket.
		if streams, _ := s.streamsOf(ctx, bucket.Subject(want.Bucket, ">")); len(streams) > 0 {
			state.Wrong = &Refusal{Permanent: true, Advice: advices[errCodeOverlap].text, Err: fmt.Errorf(
				"bucket %s cannot be created: the stream %s stores its subjects", want.Bucket, strings.Join(streams, ", "))}
		}
		return state, nil
	}
	if err != nil {
		return state, unavailable("read the settings of bucket "+want.Bucket, err)
	}
	info := stream.CachedInfo()
	state.Exists, state.Replicas, state.Wrong = true, info.Config.Replicas, verifyBucket(info.Config, want)
	state.MaxBytes, state.Bytes = max(info.Config.MaxBytes, 0), info.State.Bytes
	switch c := info.Cluster; {
	case !isClustered(c):
		if s.cfg.Replicas == 0 {
			state.Wants = 1
		}
	default:
		state.Cluster, state.Leader = c.Name, c.Leader
		for _, r := range c.Replicas {
			switch {
			case r.Offline:
				state.Behind = append(state.Behind, r.Name+" is offline")
			case !r.Current:
				state.Behind = append(state.Behind, fmt.Sprintf("%s is %d operations behind", r.Name, r.Lag))
			}
		}
	}
	return state, nil
}
