package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/messages"
)

// maxRecord is the size of the largest message of the buckets, in bytes: a value of messages.MaxValueSize with
// its escapes, and the other fields.
const maxRecord = 16 << 10

// ErrBucket is returned if a bucket exists with settings that wxkeeper cannot work with.
var ErrBucket = errors.New("the bucket has settings that wxkeeper cannot work with")

// Config configures a [Store]. The zero value can only read the settings of buckets: see Keys.
type Config struct {
	Bucket        string // name of the credential bucket; "" is messages.DefaultBucket
	SubjectPrefix string // first token of the republished subjects; "" is messages.DefaultPrefix
	// Replicas is the number of replicas with which the buckets are created. 0: 3 if JetStream has a cluster, else 1;
	// and 1 if a cluster has had too few servers for half a minute.
	Replicas int
	// MaxBytes is the largest size with which each bucket is created, in bytes. 0: no limit of its own.
	MaxBytes int64
	// Memory creates the buckets in memory instead of files, and accepts buckets in memory.
	Memory bool
	// PlacementTags are the tags that servers must have to store the buckets. nil: all servers may.
	PlacementTags []string
	// JSDomain is the JetStream domain of the buckets. "": the JetStream of the connected server, or of the account.
	JSDomain string
	Worker   string // name of this worker, for its leases
	// Timeout limits one request to JetStream; 0 is 3 s. A leader election takes about 1 s.
	Timeout time.Duration
	Now     func() time.Time // nil is time.Now
	// Keys returns the keys with which the entries of an account are sealed and checked: the first makes seals,
	// all of them check. An account without keys is not kept: nothing is written for it, and nothing that is
	// stored for it is believed. It is called concurrently. nil: no account has keys.
	Keys func(appid string) []seal.Key
	// OnForgedLease is called when a forged lease was removed. It must not block. nil: it is not called.
	OnForgedLease func(appid string, kind messages.Kind)
	// IsForeignLease is called when a lease was found that is sealed with another AppSecret, and returns whether a
	// worker may hold it. If not, it is removed. It must not block. nil: a worker may.
	IsForeignLease func(appid string, kind messages.Kind) bool
	// OnFewReplicas is called once for each bucket of a cluster that has fewer replicas than the default, and no
	// number is configured: because it was created so now, when the cluster had too few servers, or earlier. It must
	// not block. nil: it is not called.
	OnFewReplicas func(bucket string, replicas int)
	// OnCreate is called when a bucket was created. It must not block. nil: it is not called.
	OnCreate func(bucket string, replicas int)
}

func (c *Config) setDefaults() {
	c.Bucket = cmp.Or(c.Bucket, messages.DefaultBucket)
	c.SubjectPrefix = cmp.Or(c.SubjectPrefix, messages.DefaultPrefix)
	c.Timeout = cmp.Or(c.Timeout, 3*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Keys == nil {
		c.Keys = func(string) []seal.Key { return nil }
	}
	if c.OnForgedLease == nil {
		c.OnForgedLease = func(string, messages.Kind) {}
	}
	if c.IsForeignLease == nil {
		c.IsForeignLease = func(string, messages.Kind) bool { return true }
	}
	if c.OnFewReplicas == nil {
		c.OnFewReplicas = func(string, int) {}
	}
	if c.OnCreate == nil {
		c.OnCreate = func(string, int) {}
	}
}

func (c *Config) credentials(replicas int) jetstream.KeyValueConfig {
	source, destination := bucket.Republish(c.Bucket, c.SubjectPrefix)
	return jetstream.KeyValueConfig{
		Bucket:      c.Bucket,
		Description: "wxkeeper: credentials of WeChat accounts, <appid>.<kind>",
		// With a longer history, the record before an expired record would appear again, and the server would
		// extend the short TTLs of leases (NATS ADR-43, NATS ADR-48).
		History:      1,
		Storage:      c.storage(),
		MaxValueSize: maxRecord,
		MaxBytes:     c.MaxBytes,
		Replicas:     replicas,
		Placement:    c.placement(),
		// It enables the TTLs of messages, and the markers by which watches see an expiry.
		LimitMarkerTTL: bucket.MarkerTTL,
		RePublish:      &jetstream.RePublish{Source: source, Destination: destination},
	}
}

func (c *Config) storage() jetstream.StorageType {
	if c.Memory {
		return jetstream.MemoryStorage
	}
	return jetstream.FileStorage
}

func (c *Config) placement() *jetstream.Placement {
	if len(c.PlacementTags) == 0 {
		return nil
	}
	return &jetstream.Placement{Tags: c.PlacementTags}
}

func (c *Config) ledgers(replicas int) jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket:       bucket.LedgerOf(c.Bucket),
		Description:  "wxkeeper: what the workers remember of each credential",
		History:      1,
		Storage:      c.storage(),
		MaxValueSize: maxRecord,
		MaxBytes:     c.MaxBytes,
		Replicas:     replicas,
		Placement:    c.placement(),
	}
}

// defaultReplicas is the number of replicas of the buckets in a cluster.
const defaultReplicas = 3

// replicas is the number of replicas with which a bucket is created first. A server that is no cluster may have the
// name of one: a server with leafnode remotes has, and of another domain the name says nothing. So the server is asked
// by the creation itself, and createBucket falls back.
func (c *Config) replicas(nc *nats.Conn) int {
	switch {
	case c.Replicas > 0:
		return c.Replicas
	case nc.ConnectedClusterName() != "" || c.JSDomain != "":
		return defaultReplicas
	default:
		return 1
	}
}

// isClustered reports whether the server that stores a stream is in a cluster. A server with leafnode remotes that is
// in none gives itself its own name as the name of its cluster.
func isClustered(c *jetstream.ClusterInfo) bool {
	return c != nil && c.Name != "" && (c.Name != c.Leader || len(c.Replicas) > 0)
}

// ensureBucket opens a bucket, and creates it if it does not exist. It does not change the replicas of an
// existing bucket: an operator may have chosen them, and workers of two versions must not undo each other's
// changes.
func (s *Store) ensureBucket(ctx context.Context, want jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	b, err := s.js.KeyValue(ctx, want.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		b, err = s.createBucket(ctx, want)
		if errors.Is(err, jetstream.ErrBucketExists) { // another worker was faster
			b, err = s.js.KeyValue(ctx, want.Bucket)
		}
	}
	if err != nil {
		return nil, s.Explain(fmt.Errorf("open bucket %s: %w", want.Bucket, err))
	}
	st, err := b.Status(ctx)
	if err != nil {
		return nil, s.Explain(fmt.Errorf("read the settings of bucket %s: %w", want.Bucket, err))
	}
	bs, ok := st.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return nil, fmt.Errorf("read the settings of bucket %s: unexpected status %T", want.Bucket, st)
	}
	if err := verifyBucket(bs.StreamInfo().Config, want); err != nil {
		return nil, err
	}
	if have := bs.StreamInfo().Config.Replicas; isClustered(bs.StreamInfo().Cluster) {
		s.tellReplicas(want.Bucket, have)
	}
	return b, nil
}

// tellReplicas calls OnFewReplicas if a bucket of a cluster has fewer replicas than the default, once for each bucket.
func (s *Store) tellReplicas(name string, have int) {
	s.mu.Lock()
	told := s.told[name]
	s.told[name] = true
	s.mu.Unlock()
	if !told && s.cfg.Replicas == 0 && have < defaultReplicas {
		s.cfg.OnFewReplicas(name, have)
	}
}

// fewReplicasAfter is how long a cluster must have had too few servers before a bucket is created with one
// replica. A cluster that is just starting has too few for a while, and the replicas of an existing bucket are
// never changed.
const fewReplicasAfter = 30 * time.Second

// createBucket creates a bucket. Without a configured number of replicas it creates the bucket with one replica if
// JetStream has no cluster, or if the cluster has had too few servers during the last fewReplicasAfter.
func (s *Store) createBucket(ctx context.Context, want jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	b, err := s.js.CreateKeyValue(ctx, want)
	code, _ := codeOf(err)
	few := isTooFewServers(err)
	lacking := s.tooFew(few)
	switch {
	case s.cfg.Replicas > 0, want.Replicas == 1:
	case code == errCodeReplicasNotSupported, code == errCodeNoTier, few && lacking >= fewReplicasAfter:
		want.Replicas = 1
		b, err = s.js.CreateKeyValue(ctx, want)
	}
	if err == nil {
		s.mu.Lock()
		delete(s.told, want.Bucket)
		s.mu.Unlock()
		s.cfg.OnCreate(want.Bucket, want.Replicas)
	}
	return b, err
}

// tooFew notes whether the cluster has too few servers now, and returns for how long that has been so.
func (s *Store) tooFew(now bool) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !now:
		s.tooFewSince = time.Time{}
		return 0
	case s.tooFewSince.IsZero():
		s.tooFewSince = s.cfg.Now()
	}
	return s.cfg.Now().Sub(s.tooFewSince)
}

// removeAdvice is the advice for a bucket with settings that cannot be changed.
func removeAdvice(name string) string {
	return "Remove the bucket (nats kv del " + name + "; the workers fetch the credentials again), or set another name " +
		"in WXKEEPER_BUCKET."
}

// verifyBucket checks the settings that correctness depends on.
func verifyBucket(have jetstream.StreamConfig, want jetstream.KeyValueConfig) error {
	fail := func(setting string, is, must any) error {
		return &Refusal{Permanent: true, Advice: removeAdvice(want.Bucket),
			Err: fmt.Errorf("%w: bucket %s has %s %v, it must be %v", ErrBucket, want.Bucket, setting, is, must)}
	}
	republish := func(r *jetstream.RePublish) string { return r.Source + " -> " + r.Destination }
	switch {
	case have.MaxMsgsPerSubject != 1:
		return fail("history", have.MaxMsgsPerSubject, 1)
	case have.Storage != jetstream.FileStorage && want.Storage == jetstream.FileStorage:
		return &Refusal{Permanent: true,
			Err: fmt.Errorf("%w: bucket %s has storage %v, it must be %v", ErrBucket, want.Bucket, have.Storage,
				want.Storage),
			Advice: "Set WXKEEPER_BUCKET_STORAGE=memory to accept it. " + removeAdvice(want.Bucket)}
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
	case want.RePublish != nil && republish(have.RePublish) != republish(want.RePublish):
		return fail("republish", republish(have.RePublish), republish(want.RePublish))
	}
	return nil
}
