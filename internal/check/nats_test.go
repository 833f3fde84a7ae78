package check

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// bare starts a server as it is configured, without JetStream where the options say nothing of it.
func bare(t *testing.T, opts server.Options) string {
	t.Helper()
	opts.Host, opts.Port, opts.NoSigs, opts.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	s, err := server.NewServer(&opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("nats-server is not ready")
	}
	return s.ClientURL()
}

func TestFaultsOfNATSAreToldInWords(t *testing.T) {
	t.Parallel()
	whole := natstest.Start(t, func(o *server.Options) { o.Username, o.Password = "u", "p" })
	none := bare(t, server.Options{})
	apps := server.NewAccount("APPS")
	off := bare(t, server.Options{
		JetStream: true, StoreDir: t.TempDir(), Accounts: []*server.Account{apps}, Users: []*server.User{{Username: "u", Password: "p", Account: apps}},
	})
	for name, tt := range map[string]struct {
		cfg   Config
		texts []string
	}{
		"unreachable":                  {of("nats://127.0.0.1:1", ""), []string{"no server can be reached", "connection refused", "NATS_URL"}},
		"wrong password":               {func() Config { c := of(whole.URL(), ""); c.NATS.User, c.NATS.Password = "u", "S3CRET"; return c }(), []string{"refuses this client", "NATS_PASSWORD"}},
		"no JetStream":                 {of(none, ""), []string{"has no JetStream", "nats-server -js"}},
		"no JetStream for the account": {func() Config { c := of(off, ""); c.NATS.User, c.NATS.Password = "u", "p"; return c }(), []string{"JetStream is off for the NATS account"}},
		"another's server where the worker would start its own": {
			func() Config { c := of(none, ""); c.Embedded = func() error { return nil }; return c }(),
			[]string{"it is not wxkeeper's", "WXKEEPER_NATS_LISTEN", "NATS_URL"},
		},
		"no server, and none can be started": {
			func() Config {
				c := of("nats://127.0.0.1:1", "")
				c.Embedded = func() error { return errors.New("WXKEEPER_DATA_DIR: no") }
				return c
			}(),
			[]string{"could not start its NATS server: WXKEEPER_DATA_DIR: no"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wants(t, ran(t, tt.cfg), NATS, Fail, tt.texts...)
		})
	}
}

// Where the worker would start a server of its own, and can, nothing is wrong.
func TestServerOfTheWorkersOwnNeedNotRunYet(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "nats://127.0.0.1:1"} { // port 0 is known only when it runs
		cfg := of(url, "")
		cfg.Embedded = func() error { return nil }
		found := ran(t, cfg)
		wants(t, found, NATS, OK, "would start its own NATS server")
		wantsNothing(t, found)
	}
	s := natstest.Start(t, func(o *server.Options) { o.ServerName = embeddedName })
	cfg := of(s.URL(), "")
	cfg.Embedded = func() error { return errors.New("in use") }
	found := ran(t, cfg)
	wants(t, found, NATS, OK, "that of the worker that runs here")
	wantsNothing(t, found)

	cfg.Pages = func(context.Context) (bool, error) { return true, nil }
	found = ran(t, cfg)
	wants(t, found, Environment, OK, "a worker of this environment runs")
	wants(t, found, NATS, OK, "that of the worker that runs here")
	wantsNothing(t, found)
	cfg.Pages = func(context.Context) (bool, error) { return false, nil } // it is a worker of another environment
	found = ran(t, cfg)
	wants(t, found, NATS, Warn, "does not start", "set NATS_URL to join it")
	wantsNothing(t, found, NATS)
}

func TestClearConnectionBeyondLoopbackIsAWarning(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		addr      string
		encrypted bool
		warns     int
	}{
		{"127.0.0.1:4222", false, 0}, {"[::1]:4222", false, 0}, {"192.0.2.1:4222", true, 0}, {"192.0.2.1:4222", false, 1}, {"nats:4222", false, 1},
	} {
		r := new(run)
		r.encryption(tt.addr, tt.encrypted)
		if len(r.found) != tt.warns || tt.warns > 0 && r.found[0].Level != Warn {
			t.Errorf("%+v: %v", tt, r.found)
		}
	}
}

func TestServerWithoutExpiryOfMessagesIsTooOld(t *testing.T) {
	t.Parallel()
	for v, old := range map[string]bool{"2.10.29": true, "1.4.1": true, "2.11.0": false, "2.15.2": false, "3.0.0-dev": false, "": false} {
		r := new(run)
		r.version(v)
		if old != (len(r.found) == 1) {
			t.Errorf("%s: %v", v, r.found)
		}
	}
}

func TestBucketsOfOtherSettingsAreToldAndLeftAsTheyAre(t *testing.T) {
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
	found := ran(t, of(s.URL(), ""))
	wants(t, found, Buckets, Fail, "bucket wechat has history 5, it must be 1")
	wants(t, found, Buckets, OK, "bucket wechat_ledger is not there yet")
	if st, err := made.Status(t.Context()); err != nil || st.History() != 5 {
		t.Errorf("history %v, %v", st, err)
	}
	if _, err := js.KeyValue(t.Context(), "wechat_ledger"); !errors.Is(err, jetstream.ErrBucketNotFound) {
		t.Errorf("the ledger: %v", err)
	}
}

func TestMissingBucketsAreMadeByTheFirstWorker(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	cfg := of(s.URL(), "")
	found := ran(t, cfg)
	wantsNothing(t, found)
	wants(t, found, Buckets, OK, "bucket wechat is not there yet: the first worker makes it, with 1 replica")
	cfg.Replicas = 3
	wants(t, ran(t, cfg), Buckets, Warn, "not in a cluster", "3 replicas", "WXKEEPER_REPLICAS")
}

// keepsUp waits until every replica has what was written.
func keepsUp(t *testing.T, store *store.Store) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); ; <-tick.C {
		credentials, ledgers, err := store.Inspect(t.Context())
		if err == nil && len(credentials.Behind)+len(ledgers.Behind) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%+v, %+v, %v", credentials, ledgers, err)
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
	keepsUp(t, store)
	found := ran(t, of(c.URL(), ""))
	wantsNothing(t, found)
	wants(t, found, Buckets, OK, "bucket wechat has the settings that workers need, 3 replicas, leader test-")
	wants(t, found, NATS, OK, "cluster test")

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
	wants(t, ran(t, of(c.URL(), "")), Buckets, Warn, "bucket wechat_ledger has 1 replica in a cluster", "nats stream edit KV_wechat_ledger --replicas 3")
}

func TestHealthOfABucketIsToldInWords(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		state store.BucketState
		level Level
		texts []string
	}{
		{store.BucketState{Name: "b", Wants: 3, Replicas: 3, Cluster: "c"}, Fail, []string{"bucket b has no leader", "nats server report"}},
		{store.BucketState{Name: "b", Wants: 3, Replicas: 3, Cluster: "c", Leader: "n1", Behind: []string{"n2 is away"}}, Warn, []string{"n2 is away", "one more loss"}},
		{store.BucketState{Name: "b", Wants: 3, Replicas: 3, Cluster: "c", Leader: "n1"}, OK, []string{"3 replicas, leader n1"}},
		{store.BucketState{Name: "b", Wants: 1, Replicas: 1}, OK, []string{"1 replica"}},
	} {
		r := new(run)
		r.health(tt.state)
		wants(t, r.found, Buckets, tt.level, tt.texts...)
	}
	r := &run{Config: Config{Replicas: 1}} // an operator who says 1, and has 3, is told so
	r.health(store.BucketState{Name: "b", Wants: 1, Replicas: 3, Cluster: "c", Leader: "n1"})
	wants(t, r.found, Buckets, Warn, "has 3 replicas, and WXKEEPER_REPLICAS asks for 1")
}
