package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// maxRecord is the largest message of the buckets, in bytes: a value of messages.MaxValueSize, escaped, and its fields.
const maxRecord = 16 << 10

// ErrBucket is returned if a bucket exists with settings that wxkeeper cannot work with.
var ErrBucket = errors.New("the bucket has settings that wxkeeper cannot work with")

// Config configures a [Store]. The zero value works.
type Config struct {
	Bucket        string // name of the credential bucket; "" is messages.DefaultBucket
	SubjectPrefix string // first token of the republished subjects; "" is messages.DefaultPrefix
	// Replicas is the number of replicas of both buckets when they are created. 0: 3 in a cluster, else 1; and 1 if a
	// cluster has had too few servers for half a minute.
	Replicas int
	Worker   string // name of this worker: owner of leases, Worker of records
	// Timeout limits one request to JetStream; 0 is 3 s. A leader election takes about 1 s.
	Timeout time.Duration
	Now     func() time.Time // nil is time.Now
	// OnFewReplicas is called when a bucket was created with one replica in a cluster, because the cluster has too few
	// servers. It must not block. nil: it is not called.
	OnFewReplicas func(bucket string, replicas int)
}

func (c *Config) setDefaults() {
	if c.Bucket == "" {
		c.Bucket = messages.DefaultBucket
	}
	if c.SubjectPrefix == "" {
		c.SubjectPrefix = messages.DefaultPrefix
	}
	if c.Timeout == 0 {
		c.Timeout = 3 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.OnFewReplicas == nil {
		c.OnFewReplicas = func(string, int) {}
	}
}

func (c *Config) credentials(replicas int) jetstream.KeyValueConfig {
	source, destination := bucket.Republish(c.Bucket, c.SubjectPrefix)
	return jetstream.KeyValueConfig{
		Bucket:      c.Bucket,
		Description: "wxkeeper: credentials of WeChat accounts, <appid>.<kind>",
		// With a longer history an expired record would bring back the one before it, and short TTLs of leases would be
		// extended (NATS ADR-43, ADR-48).
		History:      1,
		Storage:      jetstream.FileStorage,
		MaxValueSize: maxRecord,
		Replicas:     replicas,
		// Enables TTLs of messages, and makes an expiry visible to watches.
		LimitMarkerTTL: bucket.MarkerTTL,
		RePublish:      &jetstream.RePublish{Source: source, Destination: destination},
	}
}

func (c *Config) ledgers(replicas int) jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket:       bucket.LedgerOf(c.Bucket),
		Description:  "wxkeeper: what the workers remember of each credential",
		History:      1,
		Storage:      jetstream.FileStorage,
		MaxValueSize: maxRecord,
		Replicas:     replicas,
	}
}

// replicas is the number of replicas of a new bucket on the server of this connection.
func (c *Config) replicas(nc *nats.Conn) int {
	switch {
	case c.Replicas > 0:
		return c.Replicas
	case nc.ConnectedClusterName() != "":
		return 3
	default:
		return 1
	}
}

// ensureBucket opens a bucket, and creates it if it does not exist. The replicas of an existing bucket are not changed: an
// operator may have changed them, and workers of two versions must not undo each other's change.
func (s *Store) ensureBucket(ctx context.Context, want jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	b, err := s.js.KeyValue(ctx, want.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		b, err = s.createBucket(ctx, want)
		if errors.Is(err, jetstream.ErrBucketExists) { // another worker was faster
			b, err = s.js.KeyValue(ctx, want.Bucket)
		}
	}
	if err != nil {
		if want.Replicas > 1 && isTooFewServers(err) {
			return nil, fmt.Errorf("create bucket %s with %d replicas: start as many NATS servers with JetStream, or set WXKEEPER_REPLICAS: %w",
				want.Bucket, want.Replicas, err)
		}
		return nil, fmt.Errorf("open bucket %s: %w", want.Bucket, err)
	}
	st, err := b.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the settings of bucket %s: %w", want.Bucket, err)
	}
	bs, ok := st.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return nil, fmt.Errorf("read the settings of bucket %s: unexpected status %T", want.Bucket, st)
	}
	if err := verifyBucket(bs.StreamInfo().Config, want); err != nil {
		return nil, err
	}
	return b, nil
}

// fewReplicasAfter is for how long a cluster must lack servers before a bucket is created with one replica: a cluster that
// is starting, or restarts a server, lacks some for a while, and the replicas of an existing bucket are never changed.
const fewReplicasAfter = 30 * time.Second

// createBucket creates a bucket. If its replicas are not configured, and the cluster has lacked servers for the default
// number for fewReplicasAfter, it creates the bucket with one replica and calls OnFewReplicas.
func (s *Store) createBucket(ctx context.Context, want jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	b, err := s.js.CreateKeyValue(ctx, want)
	if s.cfg.Replicas > 0 || want.Replicas == 1 || !isTooFewServers(err) {
		return b, err
	}
	s.mu.Lock()
	now := s.cfg.Now()
	if s.tooFewSince.IsZero() {
		s.tooFewSince = now
	}
	since := s.tooFewSince
	s.mu.Unlock()
	if now.Sub(since) < fewReplicasAfter {
		return nil, fmt.Errorf("%w (if nothing changes within %s, the bucket is created with 1 replica)", err, fewReplicasAfter)
	}
	want.Replicas = 1
	if b, err = s.js.CreateKeyValue(ctx, want); err == nil {
		s.cfg.OnFewReplicas(want.Bucket, want.Replicas)
	}
	return b, err
}

// Error codes of the server for replicas that cannot be placed.
const (
	errCodeNoPeers              = 10005
	errCodeReplicasNotSupported = 10074
)

func isTooFewServers(err error) bool {
	var ae *jetstream.APIError
	return errors.As(err, &ae) && (ae.ErrorCode == errCodeNoPeers || ae.ErrorCode == errCodeReplicasNotSupported)
}

// verifyBucket compares the settings that correctness depends on.
func verifyBucket(have jetstream.StreamConfig, want jetstream.KeyValueConfig) error {
	fail := func(setting string, is, must any) error {
		return fmt.Errorf("%w: bucket %s has %s %v, it must be %v; remove it (nats kv del %s; credentials are fetched again) or set another name in WXKEEPER_BUCKET",
			ErrBucket, want.Bucket, setting, is, must, want.Bucket)
	}
	switch {
	case have.MaxMsgsPerSubject != 1:
		return fail("history", have.MaxMsgsPerSubject, 1)
	case have.Storage != jetstream.FileStorage:
		return fail("storage", have.Storage, jetstream.FileStorage)
	case have.MaxAge != 0:
		return fail("a TTL of", have.MaxAge, "none")
	case have.MaxMsgSize > 0 && have.MaxMsgSize < maxRecord:
		return fail("a largest value of", have.MaxMsgSize, maxRecord)
	case have.Mirror != nil || len(have.Sources) > 0:
		return fail("a mirror or sources", true, false)
	case want.LimitMarkerTTL > 0 && (!have.AllowMsgTTL || have.SubjectDeleteMarkerTTL <= 0):
		return fail("limit markers", "off", "on")
	case want.RePublish != nil && have.RePublish == nil:
		return fail("republish", "off", want.RePublish.Destination)
	case want.RePublish != nil && (have.RePublish.Source != want.RePublish.Source || have.RePublish.Destination != want.RePublish.Destination):
		return fail("republish", have.RePublish.Source+" -> "+have.RePublish.Destination, want.RePublish.Source+" -> "+want.RePublish.Destination)
	}
	return nil
}
