package check

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// startServer starts a server with the given options; natstest always switches JetStream on.
func startServer(t *testing.T, opts server.Options) string {
	t.Helper()
	opts.Host, opts.Port, opts.NoSigs, opts.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	s, err := server.NewServer(&opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("nats-server is not ready")
	}
	return s.ClientURL()
}

func TestFaultsOfNATSAreFoundWithAdvice(t *testing.T) {
	t.Parallel()
	whole := natstest.Start(t, func(o *server.Options) { o.Username, o.Password = "u", "p" })
	none := startServer(t, server.Options{})
	apps := server.NewAccount("APPS")
	off := startServer(t, server.Options{
		JetStream: true, StoreDir: t.TempDir(),
		Accounts: []*server.Account{apps}, Users: []*server.User{{Username: "u", Password: "p", Account: apps}},
	})
	withUser := func(url, password string) Config {
		cfg := configOf(url, "")
		cfg.NATS.User, cfg.NATS.Password = "u", redact.Secret(password)
		return cfg
	}
	withEmbedded := func(url string, err error) Config {
		cfg := configOf(url, "")
		cfg.Embedded = func() error { return err }
		return cfg
	}
	for name, tt := range map[string]struct {
		cfg   Config
		texts []string
	}{
		"unreachable": {
			configOf("nats://127.0.0.1:1", ""),
			[]string{"no server can be reached", "connection refused", "NATS_URL"},
		},
		"wrong password": {withUser(whole.URL(), "S3CRET"), []string{"refuses this client",
			"NATS_PASSWORD"}},
		"no JetStream":                 {configOf(none, ""), []string{"has no JetStream", "nats-server -js"}},
		"no JetStream for the account": {withUser(off, "p"), []string{"JetStream is off for the NATS account"}},
		"another server at the address of the worker's own": {
			withEmbedded(none, nil),
			[]string{"it does not belong to wxkeeper", "WXKEEPER_NATS_LISTEN", "NATS_URL"},
		},
		"no server, and the worker cannot start its own": {
			withEmbedded("nats://127.0.0.1:1", errors.New("WXKEEPER_DATA_DIR: no")),
			[]string{"could not start its NATS server: WXKEEPER_DATA_DIR: no"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantFinding(t, runAll(t, tt.cfg), NATS, Fail, tt.texts...)
		})
	}
}

// It is no trouble that the server does not run yet if the worker would start it, and can.
func TestOwnServerOfTheWorkerNeedNotRunYet(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "nats://127.0.0.1:1"} { // "": the port is 0, and known only when the server runs
		cfg := configOf(url, "")
		cfg.Embedded = func() error { return nil }
		found := runAll(t, cfg)
		wantFinding(t, found, NATS, OK, "would start its own NATS server")
		wantNoTrouble(t, found)
	}
	s := natstest.Start(t, func(o *server.Options) { o.ServerName = embeddedName })
	cfg := configOf(s.URL(), "")
	cfg.Embedded = func() error { return errors.New("in use") }
	found := runAll(t, cfg)
	wantFinding(t, found, NATS, OK, "it belongs to the worker that runs here")
	wantNoTrouble(t, found)

	cfg.Pages = func(context.Context) (bool, error) { return true, nil }
	found = runAll(t, cfg)
	wantFinding(t, found, Environment, OK, "a worker of this environment runs")
	wantFinding(t, found, NATS, OK, "it belongs to the worker that runs here")
	wantNoTrouble(t, found)
	cfg.Pages = func(context.Context) (bool, error) { return false, nil } // the worker has another environment
	found = runAll(t, cfg)
	wantFinding(t, found, NATS, Warn, "does not start beside it", "set NATS_URL to use its server")
	wantNoTrouble(t, found, NATS)
}

func TestUnencryptedConnectionBeyondLoopbackIsAWarning(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		addr      string
		encrypted bool
		warns     int
	}{
		{"127.0.0.1:4222", false, 0},
		{"[::1]:4222", false, 0},
		{"192.0.2.1:4222", true, 0},
		{"192.0.2.1:4222", false, 1},
		{"nats:4222", false, 1},
	} {
		r := new(run)
		r.checkEncryption(tt.addr, tt.encrypted)
		warnings := slices.DeleteFunc(slices.Clone(r.findings), func(f Finding) bool { return f.Level != Warn })
		if len(warnings) != tt.warns {
			t.Errorf("%s, encrypted %t: want %d warnings, got %s", tt.addr, tt.encrypted, tt.warns,
				describe(r.findings))
		}
	}
}

func TestServerWithoutExpiryOfMessagesIsTooOld(t *testing.T) {
	t.Parallel()
	for v, old := range map[string]bool{
		"2.10.29": true, "1.4.1": true, "2.11.0": false, "2.15.2": false, "3.0.0-dev": false, "": false,
	} {
		r := new(run)
		r.checkVersion(v)
		if old != (len(r.findings) == 1) {
			t.Errorf("%s: %v", v, r.findings)
		}
	}
}

func TestBucketsWithOtherSettingsAreFoundAndNotChanged(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	js, err := jetstream.New(s.Connect())
	if err != nil {
		t.Fatal(err)
	}
	made, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "wechat", History: 5})
	if err != nil {
		t.Fatal(err)
	}
	found := runAll(t, configOf(s.URL(), ""))
	wantFinding(t, found, Buckets, Fail, "bucket wechat has history 5, it must be 1")
	wantFinding(t, found, Buckets, OK, "bucket wechat_ledger does not exist yet")
	st, err := made.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.History() != 5 {
		t.Errorf("the history is %d, want 5", st.History())
	}
	if _, err := js.KeyValue(t.Context(), "wechat_ledger"); !errors.Is(err, jetstream.ErrBucketNotFound) {
		t.Errorf("opening the ledger bucket: %v, want %v", err, jetstream.ErrBucketNotFound)
	}
}

func TestMissingBucketsAreNoTroubleUnlessTheirReplicasCannotBeStored(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	cfg := configOf(s.URL(), "")
	found := runAll(t, cfg)
	wantNoTrouble(t, found)
	wantFinding(t, found, Buckets, OK, "bucket wechat does not exist yet: the first worker creates it, with 1 replica")
	cfg.Replicas = 3
	wantFinding(t, runAll(t, cfg), Buckets, Fail, "cannot be created", "3 replicas", "not in a cluster",
		"WXKEEPER_REPLICAS")
}

// awaitReplicas waits until no replica lags behind.
func awaitReplicas(t *testing.T, store *store.Store) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		credentials, ledgers, err := store.Inspect(t.Context())
		if err == nil && len(credentials.Behind)+len(ledgers.Behind) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("lagging replicas: %q, %q; %v", credentials.Behind, ledgers.Behind, err)
		}
	}
}

func TestOneReplicaInAClusterIsAWarning(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t)
	store, err := store.New(c.Connect(), store.Config{})
	if err == nil {
		err = store.Ensure(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	awaitReplicas(t, store)
	found := runAll(t, configOf(c.URL(), ""))
	wantNoTrouble(t, found)
	wantFinding(t, found, Buckets, OK, "bucket wechat has the settings that workers need, 3 replicas, leader test-")
	wantFinding(t, found, NATS, OK, "cluster test")

	js, err := jetstream.New(c.Connect())
	if err != nil {
		t.Fatal(err)
	}
	st, err := js.Stream(t.Context(), "KV_wechat_ledger")
	if err == nil {
		one := st.CachedInfo().Config
		one.Replicas = 1
		_, err = js.UpdateStream(t.Context(), one)
	}
	if err != nil {
		t.Fatal(err)
	}
	wantFinding(t, runAll(t, configOf(c.URL(), "")), Buckets, Warn, "bucket wechat_ledger has 1 replica in a cluster",
		"nats stream edit KV_wechat_ledger --replicas 3")
}

func TestHealthOfABucketIsDescribed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		state store.BucketState
		level Level
		texts []string
	}{
		{
			store.BucketState{Name: "b", Wants: 3, Replicas: 3, Cluster: "c"},
			Fail, []string{"bucket b has no leader", "nats server report"},
		},
		{
			store.BucketState{Name: "b", Wants: 3, Replicas: 3, Cluster: "c", Leader: "n1",
				Behind: []string{"n2 is away"}},
			Warn, []string{"lag behind: n2 is away", "the loss of one more"},
		},
		{
			store.BucketState{Name: "b", Wants: 3, Replicas: 3, Cluster: "c", Leader: "n1"},
			OK, []string{"3 replicas, leader n1"},
		},
		{store.BucketState{Name: "b", Wants: 1, Replicas: 1}, OK, []string{"1 replica"}},
	} {
		r := new(run)
		r.checkHealth(tt.state)
		wantFinding(t, r.findings, Buckets, tt.level, tt.texts...)
	}
	// The operator set WXKEEPER_REPLICAS=1, and the bucket has 3.
	r := &run{Config: Config{Config: worker.Config{Replicas: 1}}}
	r.checkHealth(store.BucketState{Name: "b", Wants: 1, Replicas: 3, Cluster: "c", Leader: "n1"})
	wantFinding(t, r.findings, Buckets, Warn, "has 3 replicas, and WXKEEPER_REPLICAS asks for 1")
}

// A worker creates the buckets there with one replica, after a wait.
func TestBucketsOfAClusterOfTwoAreAWarningThatSaysWhatTheWorkerDoes(t *testing.T) {
	t.Parallel()
	c := natstest.StartClusterOf(t, 2)
	wantFinding(t, runAll(t, configOf(c.URL(), "")), Buckets, Warn, "bucket wechat does not exist yet: the cluster "+
		"announces 2 servers", "the first worker creates it with 1 replica", "WXKEEPER_REPLICAS")
}
