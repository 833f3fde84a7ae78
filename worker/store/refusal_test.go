package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

// What the NATS account does not allow is refused once, with what to do; and doing it helps.
func TestEachLimitOfAnAccountIsAPermanentRefusalWithAnAdvice(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		limits string
		code   jetstream.ErrorCode
		advice string
		does   Config // follows the advice; Bucket is "" if only the account can be changed
	}{
		"REQUIRED": {"max_bytes: true", 10113, "Set WXKEEPER_BUCKET_MAX_BYTES", Config{Bucket: "b", MaxBytes: 1 << 20}},
		"LARGE": {"max_bytes: true, disk_max_stream_bytes: 1MB", 10122, "Lower WXKEEPER_BUCKET_MAX_BYTES",
			Config{Bucket: "b", MaxBytes: 1 << 20}},
		"NOFILE": {"max_file: 0, max_memory: 8M", 10047, "WXKEEPER_BUCKET_STORAGE=memory",
			Config{Bucket: "b", Memory: true}},
		"NOMEMORY": {"max_memory: 0, max_file: 8M", 10028, "WXKEEPER_BUCKET_STORAGE=file", Config{Bucket: "b"}},
		"SMALL":    {"max_file: 3MB", 10047, "lower WXKEEPER_BUCKET_MAX_BYTES", Config{Bucket: "b", MaxBytes: 1 << 20}},
		"STREAMS":  {"max_streams: 1", 10027, "Raise max_streams", Config{}},
		"OFF":      {"", 10039, "Enable JetStream for the NATS account", Config{}},
	}
	wrong := map[string]Config{"LARGE": {MaxBytes: 2 << 20}, "SMALL": {MaxBytes: 4 << 20}, "NOMEMORY": {Memory: true}}
	accounts := map[string]string{}
	for name, tt := range cases {
		accounts[name] = tt.limits
	}
	srv := natstest.StartAccounts(t, accounts)
	for name, tt := range cases {
		nc := srv.Connect(natstest.As(name))
		_, err := ensureOnce(t, nc, wrong[name])
		wantRefusal(t, name, err, tt.code, permanent, tt.advice)
		if tt.does.Bucket != "" {
			s, err := ensureOnce(t, nc, tt.does)
			if err != nil {
				t.Errorf("%s: after what the advice says: %v", name, err)
				continue
			}
			publish(t, s, credential(1, time.Hour))
		}
	}
}

// ensureOnce makes a Store and calls Ensure once.
func ensureOnce(tb testing.TB, nc *nats.Conn, cfg Config) (*Store, error) {
	tb.Helper()
	cfg.Keys, cfg.Timeout = keys, time.Minute
	s, err := New(nc, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return s, s.Ensure(testContext(tb))
}

func wantRefusal(t *testing.T, name string, err error, code jetstream.ErrorCode, lasts bool, advice string) {
	t.Helper()
	r, ok := errors.AsType[*Refusal](err)
	if !ok {
		t.Errorf("%s: %v, want a Refusal", name, err)
		return
	}
	if got, _ := codeOf(err); got != code || r.Permanent != lasts || !strings.Contains(r.Advice, advice) {
		t.Errorf("%s: code %d, permanent %t, %q; want %d, %t, %q", name, got, r.Permanent, r.Advice, code, lasts, advice)
	}
}

// A server with leafnode remotes has the name of a cluster, and is one server.
func TestClustersNameIsNotTakenForItsSize(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, func(o *server.Options) {
		o.LeafNode.Remotes = []*server.RemoteLeafOpts{natstest.Remote("nats://127.0.0.1:1")}
	})
	nc := srv.Connect()
	if nc.ConnectedClusterName() == "" {
		t.Fatal("the server has no cluster name: the test shows nothing")
	}
	_, err := ensureOnce(t, nc, Config{Replicas: 3, Bucket: "b"})
	wantRefusal(t, "three configured", err, errCodeReplicasNotSupported, permanent, "WXKEEPER_REPLICAS=1")

	created := map[string]int{}
	s, err := ensureOnce(t, nc, Config{
		OnCreate:      func(bucket string, replicas int) { created[bucket] = replicas },
		OnFewReplicas: func(bucket string, _ int) { t.Errorf("%s has too few replicas", bucket) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"wechat": 1, "wechat_ledger": 1}, created); diff != "" {
		t.Errorf("replicas: %s", diff)
	}
	state, _, err := s.Inspect(testContext(t))
	if err != nil || state.Wants != 1 || state.Cluster != "" {
		t.Errorf("Inspect: %+v, %v", state, err)
	}
	publish(t, s, credential(1, time.Hour))
}

// One replica is a loss of safety that nobody sees in daily work, so each start tells it.
func TestEachStartTellsThatABucketOfAClusterHasTooFewReplicas(t *testing.T) {
	t.Parallel()
	c := natstest.StartClusterOf(t, 2)
	f := newClusterFixture(t, c, 1)
	if err := f.Ensure(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{}, f.created); diff != "" {
		t.Errorf("one replica was configured, and told: %s", diff)
	}
	later := newClusterFixture(t, c, 0)
	for range 2 {
		if err := later.Ensure(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(map[string]int{"wechat": 1, "wechat_ledger": 1}, later.created); diff != "" {
		t.Errorf("told: %s", diff)
	}
}

func TestRefusalsOfPlacementMayPassAndAreNotTakenForATooSmallCluster(t *testing.T) {
	t.Parallel()
	s := &Store{cfg: Config{Replicas: 3}}
	for description, text := range map[string]string{
		noPeers:                            "start 3 NATS servers",
		noPeers + ", peer offline":         "are offline",
		noPeers + ", insufficient storage": "too little storage",
		noPeers + ", peer offline, tags not matched ['ssd']":    "WXKEEPER_BUCKET_PLACEMENT_TAGS",
		noPeers + ", server tag not unique":                     "unique_tag",
		noPeers + ", jetstream not enabled in cluster":          "nats-server -js",
		noPeers + ", something that later versions of NATS say": "start 3 NATS servers",
	} {
		err := fmt.Errorf("open: %w", &jetstream.APIError{Code: 400, ErrorCode: errCodeNoPeers, Description: description})
		wantRefusal(t, description, s.Explain(err), errCodeNoPeers, passing, text)
		if got := isTooFewServers(err); got != (description == noPeers) {
			t.Errorf("%s: too few servers: %t", description, got)
		}
	}
	if err := errors.New("else"); s.Explain(err) != err || s.Explain(nil) != nil { //nolint:errorlint // unchanged
		t.Error("an unknown error is changed")
	}
}

func TestPlacementTagsThatNoServerHasAreNamed(t *testing.T) {
	t.Parallel()
	c := natstest.StartClusterOf(t, 2)
	_, err := ensureOnce(t, c.Connect(), Config{Replicas: 1, PlacementTags: []string{"ssd"}})
	wantRefusal(t, "tags", err, errCodeNoPeers, passing, "WXKEEPER_BUCKET_PLACEMENT_TAGS")
}

// oldJetStream answers as a server that cannot expire single messages does, in the domain "old".
func oldJetStream(t *testing.T, nc *nats.Conn) {
	t.Helper()
	_, err := nc.Subscribe("$JS.old.API.>", func(m *nats.Msg) {
		reply := map[string]any{"error": jetstream.APIError{Code: 404, ErrorCode: jetstream.JSErrCodeStreamNotFound}}
		if strings.HasSuffix(m.Subject, ".INFO") && !strings.Contains(m.Subject, "STREAM") {
			reply = map[string]any{"limits": map[string]any{"max_storage": -1}}
		}
		b, err := json.Marshal(reply)
		if err == nil {
			err = m.Respond(b)
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestServerThatCannotExpireRecordsIsTooOld(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	oldJetStream(t, srv.Connect())
	_, err := ensureOnce(t, srv.Connect(), Config{JSDomain: "old"})
	wantRefusal(t, "old", err, 0, permanent, "Install nats-server 2.11 or later")
}

func TestBucketThatIsNoneIsAPermanentRefusal(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	nc := srv.Connect()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	create := func(name, subject string) {
		t.Helper()
		cfg := jetstream.StreamConfig{Name: name, Subjects: []string{subject}}
		if _, err := js.CreateStream(testContext(t), cfg); err != nil {
			t.Fatal(err)
		}
	}
	create("KV_wechat", "x")
	_, err = ensureOnce(t, nc, Config{})
	wantRefusal(t, "no bucket", err, 0, permanent, "Remove the bucket")
	create("OTHER", "$KV.b.>")
	_, err = ensureOnce(t, nc, Config{Bucket: "b"})
	wantRefusal(t, "overlap", err, 10065, permanent, "WXKEEPER_BUCKET")
}

// Buckets, leases, the ledger and both watches work through a leafnode, and through a server of the domain itself.
// Another JetStream at the leafnode stays empty.
func TestEverythingWorksInAJetStreamDomain(t *testing.T) {
	t.Parallel()
	hub, leaf := natstest.StartDomains(t, nil)
	cfg := Config{JSDomain: "hub", Keys: keys, Timeout: time.Minute}
	near, far := ensured(t, hub.Connect(), cfg), ensured(t, leaf.Connect(), cfg)
	for generation, s := range []*Store{near, far} {
		want := credential(uint64(generation+1), time.Hour)
		revision := publish(t, s, want)
		for _, reader := range []*Store{near, far} {
			checkStored(t, reader, want, revision)
		}
		got, err := s.Ledger(testContext(t), "wx1", messages.AccessToken)
		if err == nil {
			got.Generation++
			_, err = s.PutLedger(testContext(t), got)
		}
		if err != nil {
			t.Fatal(err)
		}
		await(t, followRecords(t, s), "no record", func(e RecordEvent) bool { return e.Revision == revision })
		await(t, followLedgers(t, s), "no entry", func(e LedgerEvent) bool { return e.Entry != nil })
	}
	local, err := New(leaf.Connect(), Config{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	if state, _, err := local.Inspect(testContext(t)); err != nil || state.Exists {
		t.Errorf("the leafnode's own JetStream: %+v, %v", state, err)
	}
	_, err = ensureOnce(t, leaf.Connect(), Config{JSDomain: "nowhere"})
	wantRefusal(t, "unknown domain", err, 0, passing, "Correct WXKEEPER_JS_DOMAIN")
}
