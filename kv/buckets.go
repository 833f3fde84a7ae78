package kv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/messages"
)

// markerTTL is how long the server keeps the marker of an expired record. A watcher that was away for longer does not
// see the marker and does not need it: the record says itself when it ends.
const markerTTL = time.Minute

// maxRecord bounds one message of the buckets: a value of MaxValueSize, escaped, and its fields.
const maxRecord = 16 << 10

// ErrBucket is returned when a bucket exists with settings that the design of this package rules out.
var ErrBucket = errors.New("kv: the bucket's settings contradict wxkeeper's")

// StoreConfig configures a [Store]. The zero value works.
type StoreConfig struct {
	Bucket        string // name of the credential bucket; "" is DefaultBucket. The ledger is <Bucket>_ledger.
	SubjectPrefix string // first token of the republished subjects; "" is DefaultSubjectPrefix
	Replicas      int    // of both buckets when they are made; 0: 3 in a cluster, else 1
	Worker        string // name of this worker: owner of leases, Worker of records
	// Timeout bounds one request to JetStream; 0 is 3 s: a leader change takes about one.
	Timeout time.Duration
	Now     func() time.Time // nil is time.Now
}

func (c *StoreConfig) setDefaults() {
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
}

// streamName is the stream of a bucket, and keyPrefix what the subjects of its keys begin with (ADR-8).
func streamName(bucket string) string { return "KV_" + bucket }

func keyPrefix(bucket string) string { return "$KV." + bucket + "." }

func (c *StoreConfig) credentials(replicas int) jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket:      c.Bucket,
		Description: "wxkeeper: credentials of WeChat accounts, <appid>.<kind>",
		// With a longer history an expired record would bring the one before it back, and short TTLs of leases
		// would be lengthened (ADR-43, ADR-48).
		History:      1,
		Storage:      jetstream.FileStorage,
		MaxValueSize: maxRecord,
		Replicas:     replicas,
		// Switches per-message TTLs on, and makes an expiry visible to watchers.
		LimitMarkerTTL: markerTTL,
		// Two tokens: leases (three) are not republished.
		RePublish: &jetstream.RePublish{
			Source:      keyPrefix(c.Bucket) + "*.*",
			Destination: c.SubjectPrefix + ".published.{{wildcard(1)}}.{{wildcard(2)}}",
		},
	}
}

func (c *StoreConfig) ledgers(replicas int) jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket:       c.Bucket + "_ledger",
		Description:  "wxkeeper: what the workers remember of each credential",
		History:      1,
		Storage:      jetstream.FileStorage,
		MaxValueSize: maxRecord,
		Replicas:     replicas,
	}
}

// replicas says how many replicas a new bucket gets on this connection's server.
func (c *StoreConfig) replicas(nc *nats.Conn) int {
	switch {
	case c.Replicas > 0:
		return c.Replicas
	case nc.ConnectedClusterName() != "":
		return 3
	default:
		return 1
	}
}

// ensureBucket opens a bucket, made as want says if it is not there. The replicas of an existing bucket are left as
// they are: an operator may have changed them, and workers of two versions must not fight over them.
func ensureBucket(ctx context.Context, js jetstream.JetStream, want jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	b, err := js.KeyValue(ctx, want.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		b, err = js.CreateKeyValue(ctx, want)
		if errors.Is(err, jetstream.ErrBucketExists) { // another worker was faster
			b, err = js.KeyValue(ctx, want.Bucket)
		}
	}
	if err != nil {
		var ae *jetstream.APIError
		if want.Replicas > 1 && errors.As(err, &ae) && (ae.ErrorCode == errCodeNoPeers || ae.ErrorCode == errCodeReplicasNotSupported) {
			return nil, fmt.Errorf("kv: making bucket %s with %d replicas: start as many NATS servers with JetStream, or set WXKEEPER_REPLICAS: %w",
				want.Bucket, want.Replicas, err)
		}
		return nil, fmt.Errorf("kv: opening bucket %s: %w", want.Bucket, err)
	}
	st, err := b.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("kv: reading the settings of bucket %s: %w", want.Bucket, err)
	}
	bs, ok := st.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return nil, fmt.Errorf("kv: reading the settings of bucket %s: unexpected status %T", want.Bucket, st)
	}
	if err := verifyBucket(bs.StreamInfo().Config, want); err != nil {
		return nil, err
	}
	return b, nil
}

// Codes of the server for replicas that cannot be placed.
const (
	errCodeNoPeers              = 10005
	errCodeReplicasNotSupported = 10074
)

// verifyBucket compares the settings on which correctness rests.
func verifyBucket(have jetstream.StreamConfig, want jetstream.KeyValueConfig) error {
	fail := func(setting string, is, must any) error {
		return fmt.Errorf("%w: bucket %s has %s %v, it must be %v; move it away (nats kv del %s, credentials are fetched anew) or use another name in WXKEEPER_BUCKET",
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

// leaseKey is the key of the lease of a credential: three tokens, so that a watch of *.* does not include leases.
func leaseKey(appid string, kind messages.Kind) string { return "lease." + messages.Key(appid, kind) }
