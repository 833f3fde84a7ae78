package check

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// A check leaves nothing behind: no record, no consumer, no new token and no lease. It makes one call of WeChat
// for each account, and two for an account with a classic token.
func TestCheckOfASoundInstallationFindsNoTroubleAndChangesNothing(t *testing.T) {
	t.Parallel()
	s, store, sim := startAll(t)
	before := []messages.Credential{publish(t, store, sim, stable, 1, 0), publish(t, store, sim, classic, 1, 0)}
	sim.ResetCounters()

	found := runAll(t, configOf(s.URL(), sim.URL, stable, classic))
	wantNoTrouble(t, found)
	for _, check := range []string{Environment, NATS, Permissions, Buckets, Workers, Account, Clock, OtherSystem} {
		wantFinding(t, found, check, OK)
	}
	wantFinding(t, found, NATS, OK, "server test, version 2.", "round trip")
	wantFinding(t, found, Workers, OK, "no worker runs on wechat.> yet")
	wantFinding(t, found, OtherSystem, OK, "no sign")

	for _, c := range before {
		now, err := store.Get(t.Context(), c.AppID, c.Kind)
		if err != nil {
			t.Fatal(err)
		}
		if now.Revision != c.Revision {
			t.Errorf("the record was %v, and is %v", c, now)
		}
	}
	js, err := jetstream.New(s.Connect())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"KV_wechat", "KV_wechat_ledger"} {
		stream, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter(">"))
		if err != nil {
			t.Fatal(err)
		}
		if n := info.State.Consumers; n != 0 {
			t.Errorf("%s has %d consumers", name, n)
		}
		for subject := range info.State.Subjects {
			switch subject {
			case "$KV.wechat.wx-stable.access_token", "$KV.wechat.wx-classic.access_token",
				// markers of ended leases
				"$KV.wechat.lease.wx-stable.access_token", "$KV.wechat.lease.wx-classic.access_token":
			case "$KV.wechat.lease.wxkeeper-check.access_token": // the marker of the trial lease
			default:
				t.Errorf("%s has a message on %s", name, subject)
			}
		}
	}
	if _, err := store.Acquire(t.Context(), trialAppID, messages.AccessToken, time.Second); err != nil {
		t.Errorf("the lease was not given back: %v", err)
	}
	calls := sim.Snapshot().Accounts
	got := calls[stable.AppID][messages.SourceStableToken]
	if got.Calls != 1 {
		t.Errorf("stable account: %d calls of stable_token, want 1", got.Calls)
	}
	if got.Minted != 0 {
		t.Errorf("stable account: %d new tokens, want 0", got.Minted)
	}
	for endpoint, want := range map[string]int{"stable_token": 1, "get_api_domain_ip": 1, "token": 0, "getticket": 0} {
		if got := calls[classic.AppID][endpoint]; got.Calls != want {
			t.Errorf("classic account: %d calls of %s, want %d", got.Calls, endpoint, want)
		}
	}
}

func TestStreamThatStoresRequestsIsFound(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	createBuckets(t, s.Connect())
	js, err := jetstream.New(s.Connect())
	if err == nil {
		_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "AUDIT", Subjects: []string{"wechat.>"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	wantFinding(t, runAll(t, configOf(s.URL(), "")), Buckets, Fail, "AUDIT", "stores requests or tokens",
		"nats stream edit")
}

// JetStream lets no two streams store the same subject.
func TestStreamInTheWayOfABucketIsFoundBeforeTheFirstWorkerStarts(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	js, err := jetstream.New(s.Connect())
	if err == nil {
		_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ALLKV", Subjects: []string{"$KV.>"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	report := runAll(t, configOf(s.URL(), ""))
	for _, name := range []string{"wechat", "wechat_ledger"} {
		wantFinding(t, report, Buckets, Fail, "bucket "+name+" cannot be created: the stream ALLKV stores its subjects",
			"WXKEEPER_BUCKET")
	}
}

// The subscriptions of a check are outside the queue group of the workers.
func TestCheckTakesNoRequestFromAWorker(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	createBuckets(t, s.Connect())
	answering := s.Connect()
	for _, subject := range []string{"wechat.status", "wechat.status.*"} {
		respond := func(m *nats.Msg) { _ = m.Respond([]byte("{}")) }
		if _, err := answering.QueueSubscribe(subject, "wechat", respond); err != nil {
			t.Fatal(err)
		}
	}
	if err := answering.Flush(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 5 {
			wantNoTrouble(t, Run(t.Context(), configOf(s.URL(), "")))
		}
	}()
	defer func() { <-done }()
	nc := s.Connect()
	for n := 0; ; n++ {
		for _, subject := range []string{"wechat.status", "wechat.status.wx1"} {
			if _, err := nc.Request(subject, nil, patience); err != nil {
				t.Fatalf("request %d on %s: %v", n, subject, err)
			}
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

func TestFindingsOfTheEnvironmentNameTheirVariables(t *testing.T) {
	t.Parallel()
	found := runAll(t, Config{Environ: Environ{
		Wrong: []error{errors.New("WECHAT_SECRET_FILE: gone")}, NoAccount: true,
		Unknown:   []config.Unknown{{Name: "WECHAT_APP_ID", Nearest: "WECHAT_APPID"}, {Name: "WECHAT_X"}},
		OpenFiles: []config.OpenFile{{Variable: "WECHAT_SECRET_FILE", Path: "/s", Mode: 0o644}},
	}})
	wantFinding(t, found, Environment, Fail, "WECHAT_SECRET_FILE: gone")
	wantFinding(t, found, Environment, Warn, "WECHAT_APP_ID is not known", "perhaps WECHAT_APPID")
	wantFinding(t, found, Environment, Warn, "WECHAT_X is not known", "wxkeeper env")
	wantFinding(t, found, Environment, Warn, "WECHAT_SECRET_FILE: /s", "0644", "chmod 600 /s")
	wantFinding(t, found, Environment, Fail, "no account is configured: only NATS is checked")
	if len(found) != 5 {
		t.Errorf("%d findings, want 5: %s", len(found), describe(found))
	}
}

// A failure of one check does not hide the findings of the others.
func TestEveryPartIsCheckedWhateverFails(t *testing.T) {
	t.Parallel()
	sim := startWeChat(t, func(c *wechattest.Config) { c.AllowIPs = []string{"192.0.2.1"} })
	cfg := configOf("nats://127.0.0.1:1", sim.URL, stable)
	cfg.Environ.Wrong = []error{errors.New("WECHAT_ACCOUNTS_FILE: gone")}
	found := runAll(t, cfg)
	wantFinding(t, found, Environment, Fail, "WECHAT_ACCOUNTS_FILE")
	wantFinding(t, found, NATS, Fail, "no server can be reached at nats://127.0.0.1:1: connection refused", "NATS_URL")
	wantFinding(t, found, NATS, Warn, "permissions, buckets and workers are not checked")
	wantFinding(t, found, Account, Fail, "40164")
	wantFinding(t, found, Clock, OK)
	wantFinding(t, found, OtherSystem, OK, "cannot be checked")
}

// When its time is over, the check ends, and a finding counts the accounts that were not checked.
func TestAccountsThatWereNotCheckedInTimeAreFound(t *testing.T) {
	t.Parallel()
	sim := startWeChat(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := configOf("", sim.URL, stable, classic, stable)
	cfg.Concurrency = 1
	calls := 0
	cfg.WeChat.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		if calls++; calls == 2 {
			cancel() // in the middle of the second account
		}
		return http.DefaultTransport.RoundTrip(r)
	})
	found := withoutSecrets(t, Run(ctx, cfg))
	wantFinding(t, found, Account, OK, stable.AppID)
	wantFinding(t, found, Account, Warn, "2 accounts", "--timeout")
}

// WeChat sees the address of the way that calls take.
func TestWayOfCallsIsShown(t *testing.T) {
	t.Parallel()
	cfg := Config{Environ: Environ{
		Routes: []config.Route{
			{Host: "a.example", Proxy: "http://***@p:3128", Variable: "HTTPS_PROXY"},
			{Host: "b.example", Variable: "HTTPS_PROXY", Excepted: true},
			{Host: "c.example", Variable: "HTTPS_PROXY"},
		},
		Certificates: []string{"SSL_CERT_FILE=/etc/ca.pem", "SSL_CERT_DIR=/etc/certs"},
	}}
	found := Run(t.Context(), cfg)
	wantFinding(t, found, Environment, OK, "calls of a.example go through the proxy http://***@p:3128 (HTTPS_PROXY)")
	wantFinding(t, found, Environment, OK, "calls of b.example go directly", "NO_PROXY")
	wantFinding(t, found, Environment, Warn, "calls of c.example go directly", "set HTTPS_PROXY")
	wantFinding(t, found, Environment, OK, "are those of SSL_CERT_FILE=/etc/ca.pem and SSL_CERT_DIR=/etc/certs")
}
