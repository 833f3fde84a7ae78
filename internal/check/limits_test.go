package check

import (
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// asAccount is the configuration for the user of an account of natstest.StartAccounts.
func asAccount(s *natstest.Server, account string) Config {
	cfg := configOf(strings.Replace(s.URL(), "nats://", "nats://"+account+":only-for-this-test@", 1), "")
	cfg.Accounts = []worker.Account{{AppID: stable.AppID, Secret: secret, Tickets: []messages.Kind{messages.JSAPITicket}}}
	return cfg
}

// A missing bucket is no success if the account does not allow it. What the check says is what a worker would meet.
func TestLimitsOfTheAccountAreComparedWithWhatTheBucketsNeed(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		limits string
		change func(*Config)
		texts  []string
	}{
		"REQUIRED": {"max_bytes: true", nil, []string{"demands a largest size", "Set WXKEEPER_BUCKET_MAX_BYTES"}},
		"LARGE": {"disk_max_stream_bytes: 1MB", func(c *Config) { c.MaxBytes = 2 << 20 },
			[]string{"allows streams of 1048576 bytes", "Lower WXKEEPER_BUCKET_MAX_BYTES"}},
		"NOFILE": {"max_file: 0, max_memory: 8MB", nil, []string{"has no file storage", "WXKEEPER_BUCKET_STORAGE=memory"}},
		"NOMEMORY": {"max_memory: 0, max_file: 8MB", func(c *Config) { c.Memory = true },
			[]string{"has no memory storage", "WXKEEPER_BUCKET_STORAGE=file"}},
		"STREAMS": {"max_streams: 1", nil, []string{"has 0 of 1 stream", "Raise max_streams"}},
		"SMALL":   {"max_file: 10K", nil, []string{"0 of 10000 bytes of file storage in use", "Raise max_file"}},
		"RESERVED": {"max_file: 3MB", func(c *Config) { c.MaxBytes = 2 << 20 },
			[]string{"need about 4194304 more", "lower WXKEEPER_BUCKET_MAX_BYTES"}},
	}
	accounts := map[string]string{"ENOUGH": "max_file: 4MB, max_bytes: true, max_streams: 2, disk_max_stream_bytes: 2MB"}
	for name, tt := range cases {
		accounts[name] = tt.limits
	}
	s := natstest.StartAccounts(t, accounts)
	for name, tt := range cases {
		cfg := asAccount(s, name)
		if tt.change != nil {
			tt.change(&cfg)
		}
		found := runAll(t, cfg)
		wantFinding(t, found, Buckets, Fail, tt.texts...)
		if slices.ContainsFunc(found, func(f Finding) bool { return f.Check == Buckets && f.Level == OK }) {
			t.Errorf("%s: a missing bucket counts as ok: %s", name, describe(found))
		}
	}
	cfg := asAccount(s, "ENOUGH")
	cfg.MaxBytes = 2 << 20
	found := runAll(t, cfg)
	wantNoTrouble(t, found, Account, Clock)
	wantFinding(t, found, Buckets, OK, "bucket wechat does not exist yet: the first worker creates it")
	st, err := store.New(s.Connect(natstest.As("ENOUGH")), store.Config{MaxBytes: 2 << 20})
	if err == nil {
		err = st.Ensure(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	wantNoTrouble(t, runAll(t, cfg), Account, Clock) // their size is reserved, and not needed twice
}

func TestLimitsOfTiersAndOldServersAreUnderstood(t *testing.T) {
	t.Parallel()
	missing := []store.BucketState{{Name: "b", Wants: 3}, {Name: "b_ledger", Wants: 3}}
	limits := func(file int64) jetstream.AccountLimits {
		return jetstream.AccountLimits{MaxStore: file, MaxMemory: -1}
	}
	account := func(file int64) jetstream.AccountInfo {
		return jetstream.AccountInfo{Tier: jetstream.Tier{Limits: limits(file)}}
	}
	tier := func(name string, file int64) jetstream.AccountInfo {
		return jetstream.AccountInfo{Tiers: map[string]jetstream.Tier{name: {Limits: limits(file)}}}
	}
	old := account(-1)
	old.API.Level = -1
	nc := natstest.Start(t).Connect()
	for name, tt := range map[string]struct {
		info     jetstream.AccountInfo
		replicas int
		level    Level
		text     string
	}{
		"enough for three replicas":     {account(3 * 2 * perCredential), 0, OK, ""},
		"enough for one replica only":   {account(2 * perCredential), 0, Fail, "need about 24576 more"},
		"tier for three":                {tier("R3", 2*perCredential), 0, OK, ""},
		"tier for one, by default":      {tier("R1", -1), 0, OK, ""},
		"tier for one, three are set":   {tier("R1", -1), 3, Fail, "no limits for buckets with 3 replicas"},
		"a server that expires nothing": {old, 0, Fail, "cannot expire leases"},
	} {
		r := &run{Config: Config{Config: worker.Config{Replicas: tt.replicas}}}
		var err error
		if r.store, err = store.New(nc, store.Config{}); err != nil {
			t.Fatal(err)
		}
		tt.info.API.Level++ // 1, unless the case says -1
		r.compareLimits(&tt.info, missing)
		if tt.level == OK {
			wantNoTrouble(t, r.findings)
		} else {
			wantFinding(t, r.findings, Buckets, tt.level, tt.text)
		}
		if t.Failed() {
			t.Fatalf("%s", name)
		}
	}
}

func TestBucketThatIsTooSmallForTheAccountsIsAWarning(t *testing.T) {
	t.Parallel()
	r := &run{}
	for range 1000 {
		r.Accounts = append(r.Accounts, worker.Account{Tickets: messages.Kinds[:]})
	}
	info := &jetstream.AccountInfo{Tier: jetstream.Tier{Limits: jetstream.AccountLimits{MaxStore: -1}}}
	info.API.Level = 1
	r.compareLimits(info, []store.BucketState{{Name: "b", Exists: true, Wants: 1, MaxBytes: 1 << 20}})
	wantFinding(t, r.findings, Buckets, Warn, "bucket b may have 1048576 bytes", "nats stream edit KV_b --max-bytes")
	r.findings, r.MaxBytes = nil, 1<<20
	r.compareLimits(info, []store.BucketState{{Name: "b", Wants: 1}})
	wantFinding(t, r.findings, Buckets, Warn, "bucket b may have 1048576 bytes", "set a higher WXKEEPER_BUCKET_MAX_BYTES")
}

func TestServerWithLeafnodeRemotesIsNoCluster(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, func(o *server.Options) {
		o.LeafNode.Remotes = []*server.RemoteLeafOpts{natstest.Remote("nats://127.0.0.1:1")}
	})
	found := runAll(t, configOf(s.URL(), ""))
	wantNoTrouble(t, found)
	wantFinding(t, found, Buckets, OK, "the first worker creates it, with 1 replica")
	createBuckets(t, s.Connect())
	found = runAll(t, configOf(s.URL(), ""))
	wantNoTrouble(t, found)
	wantFinding(t, found, Buckets, OK, "bucket wechat has the settings that workers need, 1 replica")
}

func TestFullBucketIsFoundWithAdvice(t *testing.T) {
	t.Parallel()
	s, _, _ := startAll(t)
	js, err := jetstream.New(s.Connect())
	if err != nil {
		t.Fatal(err)
	}
	st, err := js.Stream(t.Context(), "KV_wechat")
	if err == nil {
		full := st.CachedInfo().Config
		full.MaxBytes = 100
		_, err = js.UpdateStream(t.Context(), full)
	}
	if err != nil {
		t.Fatal(err)
	}
	found := runAll(t, configOf(s.URL(), ""))
	wantFinding(t, found, Buckets, Fail, "a trial lease", "could not be taken", "The bucket is full. Raise its size")
	wantFinding(t, found, Buckets, Warn, "bucket wechat may have 100 bytes")
}
