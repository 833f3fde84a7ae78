package check

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// On a sound installation nothing is found, and nothing is left: no record, no consumer, no token that was minted, no lease
// that stands, and one call of WeChat for each account (two where a classic token is asked about).
func TestSoundInstallationIsSoundAndStaysAsItIs(t *testing.T) {
	t.Parallel()
	s, store, sim := installation(t)
	before := []messages.Credential{publish(t, store, sim, stable, 1, 0), publish(t, store, sim, classic, 1, 0)}
	sim.ResetCounters()

	found := ran(t, of(s.URL(), sim.URL, stable, classic))
	wantsNothing(t, found)
	for _, check := range []string{Environment, NATS, Permissions, Buckets, Workers, Account, Clock, OtherSystem} {
		wants(t, found, check, OK)
	}
	wants(t, found, NATS, OK, "server test, version 2.", "round trip")
	wants(t, found, Workers, OK, "no worker runs on wechat.> yet")
	wants(t, found, OtherSystem, OK, "no sign")

	for _, c := range before {
		if now, err := store.Get(t.Context(), c.AppID, c.Kind); err != nil || now.Revision != c.Revision {
			t.Errorf("the record of %s was %v, is %v, %v", c.AppID, c, now, err)
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
		if err != nil || info.State.Consumers != 0 {
			t.Errorf("%s has %d consumers, %v", name, info.State.Consumers, err)
		}
		for subject := range info.State.Subjects {
			switch subject {
			case "$KV.wechat.wx-stable.access_token", "$KV.wechat.wx-classic.access_token",
				"$KV.wechat.lease.wx-stable.access_token", "$KV.wechat.lease.wx-classic.access_token": // markers of leases
			case "$KV.wechat.lease.wxkeeper-check.access_token": // the marker of the trial
			default:
				t.Errorf("%s holds %s", name, subject)
			}
		}
	}
	if _, err := store.Acquire(t.Context(), probeAppID, messages.AccessToken, time.Second); err != nil {
		t.Errorf("the lease was not given back: %v", err)
	}
	calls := sim.Snapshot().Accounts
	if got := calls[stable.AppID][string(messages.SourceStableToken)]; got.Calls != 1 || got.Minted != 0 {
		t.Errorf("stable account: %+v", got)
	}
	for endpoint, want := range map[string]int{"stable_token": 1, "get_api_domain_ip": 1, "token": 0, "getticket": 0} {
		if got := calls[classic.AppID][endpoint]; got.Calls != want {
			t.Errorf("classic account: %d calls of %s, want %d", got.Calls, endpoint, want)
		}
	}
}

// A check takes no request away from a worker: it stands outside the queue group.
func TestCheckTakesNoRequest(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	fleet(t, s.Connect())
	answering := s.Connect()
	for _, subject := range []string{"wechat.status", "wechat.status.*"} {
		if _, err := answering.QueueSubscribe(subject, "wechat", func(m *nats.Msg) { _ = m.Respond([]byte("{}")) }); err != nil {
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
			wantsNothing(t, Run(t.Context(), of(s.URL(), "")))
		}
	}()
	defer func() { <-done }()
	nc := s.Connect()
	for n := 0; ; n++ {
		for _, subject := range []string{"wechat.status", "wechat.status.wx1"} {
			if _, err := nc.Request(subject, nil, 5*time.Second); err != nil {
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

func TestEnvironmentIsToldWithItsVariables(t *testing.T) {
	t.Parallel()
	found := ran(t, Config{Environ: Environ{
		Wrong: []error{errors.New("WECHAT_SECRET_FILE: gone")}, NoAccount: true,
		Unknown:   []Unknown{{"WECHAT_APP_ID", "WECHAT_APPID"}, {"WECHAT_X", ""}},
		OpenFiles: []OpenFile{{"WECHAT_SECRET_FILE", "/s", 0o644}},
	}})
	wants(t, found, Environment, Fail, "WECHAT_SECRET_FILE: gone")
	wants(t, found, Environment, Warn, "WECHAT_APP_ID is not known", "perhaps WECHAT_APPID")
	wants(t, found, Environment, Warn, "WECHAT_X is not known", "wxkeeper env")
	wants(t, found, Environment, Warn, "WECHAT_SECRET_FILE: /s", "0644", "chmod 600")
	wants(t, found, Environment, Warn, "no account is configured: NATS alone is checked")
	if len(found) != 5 {
		t.Errorf("more than that: %s", lines(found))
	}
}

// What fails in one part does not hide the others.
func TestEveryPartIsCheckedWhateverFails(t *testing.T) {
	t.Parallel()
	sim := upstream(t, func(c *wechattest.Config) { c.AllowIPs = []string{"192.0.2.1"} })
	cfg := of("nats://127.0.0.1:1", sim.URL, stable)
	cfg.Environ.Wrong = []error{errors.New("WECHAT_ACCOUNTS_FILE: gone")}
	found := ran(t, cfg)
	wants(t, found, Environment, Fail, "WECHAT_ACCOUNTS_FILE")
	wants(t, found, NATS, Fail, "no server can be reached at nats://127.0.0.1:1: connection refused", "NATS_URL")
	wants(t, found, NATS, Warn, "permissions, buckets and workers are not checked")
	wants(t, found, Account, Fail, "40164")
	wants(t, found, Clock, OK)
	wants(t, found, OtherSystem, OK, "cannot be seen")
}

// When the time is over it ends, and says what it has not done.
func TestWhatIsNotCheckedInTimeIsTold(t *testing.T) {
	t.Parallel()
	sim := upstream(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := of("", sim.URL, stable, classic, stable)
	cfg.Concurrency = 1
	calls := 0
	cfg.WeChat.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		if calls++; calls == 2 {
			cancel() // in the middle of the second account
		}
		return http.DefaultTransport.RoundTrip(r)
	})
	found := clean(t, Run(ctx, cfg))
	wants(t, found, Account, OK, stable.AppID)
	wants(t, found, Account, Warn, "2 accounts", "--timeout")
}
