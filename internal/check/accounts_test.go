package check

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func TestRefusalsOfWeChatAreFoundWithAdvice(t *testing.T) {
	t.Parallel()
	fault := func(f wechattest.Fault) func(*testing.T) Config {
		return func(t *testing.T) Config {
			t.Helper()
			sim := startWeChat(t)
			sim.Inject(f)
			cfg := configOf("", sim.URL, classic)
			if f.Hang {
				cfg.WeChat.Timeout = 200 * time.Millisecond
			}
			return cfg
		}
	}
	dialing := func(err error) func(*testing.T) Config {
		return func(*testing.T) Config {
			cfg := configOf("", "http://127.0.0.1:1", classic)
			dial := func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
			}
			cfg.WeChat.Transport = &http.Transport{DialContext: dial}
			return cfg
		}
	}
	for name, tt := range map[string]struct {
		cfg   func(t *testing.T) Config
		level Level
		texts []string
	}{
		"wrong secret": {func(t *testing.T) Config {
			t.Helper()
			return configOf("", startWeChat(t).URL, worker.Account{AppID: classic.AppID, Secret: "S3CRET-of-another"})
		}, Fail, []string{"wx-classic: ", "errcode 40125", "(rid ", "correct the AppSecret of this account"}},
		"unknown appid": {func(t *testing.T) Config {
			t.Helper()
			return configOf("", startWeChat(t).URL, worker.Account{AppID: "wx-nobody", Secret: secret})
		}, Fail, []string{"40013", "correct the AppID"}},
		"white list": {func(t *testing.T) Config {
			t.Helper()
			return configOf("", startWeChat(t, func(c *wechattest.Config) { c.AllowIPs = []string{"192.0.2.1"} }).URL,
				classic)
		}, Fail, []string{"wx-classic (shop): ", "40164", "put 127.0.0.1 on the API IP white list"}},
		"frozen secret": {fault(wechattest.Fault{Errcode: 40243}), Fail, []string{"40243", "unfreeze it"}},
		"quota":         {fault(wechattest.Fault{Errcode: 45009}), Fail, []string{"45009", "quota of the day"}},
		"minute quota":  {fault(wechattest.Fault{Errcode: 45011}), Warn, []string{"45011", "check again in a minute"}},
		"busy": {fault(wechattest.Fault{Errcode: -1}), Warn,
			[]string{"errcode -1", "check again in a minute"}},
		"unknown code": {fault(wechattest.Fault{Errcode: 99999}), Fail, []string{"99999", "look it up"}},
		"gateway":      {fault(wechattest.Fault{Status: 502}), Fail, []string{"HTTP 502", "look at WECHAT_API_URL"}},
		"login page":   {fault(wechattest.Fault{Body: "html"}), Fail, []string{"cannot be used", "a proxy between"}},
		"silence": {
			fault(wechattest.Fault{Hang: true}), Fail,
			[]string{"no answer from 127.0.0.1", "nothing answers in time", "WECHAT_HTTP_TIMEOUT"},
		},
		"no such host": {
			dialing(&net.DNSError{Err: "no such host", Name: "api.example", IsNotFound: true}), Fail,
			[]string{"no such host", "the DNS of this machine"},
		},
		"no such proxy": {func(*testing.T) Config {
			cfg := configOf("", "https://api.example", classic)
			cfg.WeChat.Proxy = func(*url.URL) (*url.URL, error) {
				return &url.URL{Scheme: "http", User: url.UserPassword("u", "S3CRET"), Host: "127.0.0.1:1"}, nil
			}
			return cfg
		}, Fail, []string{"the proxy cannot be reached", "connection refused", "look at the proxy in HTTPS_PROXY"}},
		"connection cut": {dialing(errors.New("cut")), Fail, []string{"look at the connection to WeChat"}},
		"nobody listens": {
			func(*testing.T) Config { return configOf("", "http://127.0.0.1:1", classic) }, Fail,
			[]string{"connection refused", "the connection is refused: look for a firewall"},
		},
		"unknown certificate": {func(t *testing.T) Config {
			t.Helper()
			s := httptest.NewUnstartedServer(http.NotFoundHandler())
			s.Config.ErrorLog = quiet()
			s.StartTLS()
			t.Cleanup(s.Close)
			return configOf("", s.URL, classic)
		}, Fail, []string{"certificate", "a proxy that opens TLS"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantFinding(t, runAll(t, tt.cfg(t)), Account, tt.level, tt.texts...)
		})
	}
}

// The clock is compared with the Date of WeChat's answer, also if the answer is a refusal.
func TestWrongClockIsFoundFromTheDateOfWeChat(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ahead time.Duration // of this machine's clock
		level Level
		texts []string
	}{
		{0, OK, []string{"agrees with WeChat's"}},
		{1500 * time.Millisecond, OK, nil},
		{-1500 * time.Millisecond, OK, nil},
		{10 * time.Second, Warn, []string{"s ahead of WeChat's", "NTP"}},
		{-10 * time.Second, Warn, []string{"s behind WeChat's", "NTP"}},
		{2 * time.Minute, Fail, []string{"ahead of WeChat's", "at the wrong time"}},
		{-time.Hour, Fail, []string{"at the wrong time", "behind WeChat's", "NTP"}},
	} {
		sim := startWeChat(t, func(c *wechattest.Config) {
			c.Now = func() time.Time { return time.Now().Add(-tt.ahead) }
			c.AllowIPs = []string{"192.0.2.1"} // a refusal has a Date too
		})
		wantFinding(t, runAll(t, configOf("", sim.URL, stable)), Clock, tt.level, tt.texts...)
	}
	wantFinding(t, runAll(t, configOf("", "http://127.0.0.1:1", stable)), Clock, Warn, "not compared")
}

// A slow answer, and a Date in whole seconds, leave a range of possible differences: the smallest counts.
func TestDifferenceOfClocksIsNeverExaggerated(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		received time.Time
		took     time.Duration
		want     time.Duration
	}{
		{at, 0, 0},
		{at.Add(999 * time.Millisecond), 0, 0},
		{at.Add(4 * time.Second), 5 * time.Second, 0},
		{at.Add(4 * time.Second), time.Second, 2 * time.Second},
		{at.Add(-4 * time.Second), time.Second, -4 * time.Second},
	} {
		if got := ahead(tt.received, tt.took, at); got != tt.want {
			t.Errorf("received %s, took %s: %s, want %s", tt.received, tt.took, got, tt.want)
		}
	}
	c := &clocks{now: func() time.Time { return at.Add(10 * time.Second) }}
	c.observe(wechat.Call{Duration: 9 * time.Second, Date: at})
	c.observe(wechat.Call{Duration: time.Second, Date: at})
	c.observe(wechat.Call{Duration: 5 * time.Second, Date: at})
	c.observe(wechat.Call{}) // no answer
	if f := c.finding(); !strings.Contains(f.What, "8s ahead") {
		t.Errorf("the difference is not taken from the fastest answer: %s", f.What)
	}
}

func TestOtherSystemThatRefreshesIsFound(t *testing.T) {
	t.Parallel()
	t.Run("force_refresh", func(t *testing.T) {
		t.Parallel()
		s, st, sim := startAll(t)
		publish(t, st, sim, stable, 1, 0)
		foreignRefresh(t, sim, stable)
		found := runAll(t, configOf(s.URL(), sim.URL, stable))
		wantFinding(t, found, OtherSystem, Fail, stable.AppID, "another stable token", "force_refresh",
			"read the credential from NATS")
	})
	t.Run("classic tokens", func(t *testing.T) {
		t.Parallel()
		s, st, sim := startAll(t)
		publish(t, st, sim, classic, 1, 0)
		foreignRefresh(t, sim, classic)
		found := runAll(t, configOf(s.URL(), sim.URL, classic))
		wantNoTrouble(t, found) // WeChat still accepts the old token: there is no sign yet
		foreignRefresh(t, sim, classic)
		found = runAll(t, configOf(s.URL(), sim.URL, classic))
		wantFinding(t, found, OtherSystem, Fail, "wx-classic (shop)", "refuses the token of the bucket",
			"wxkeeper refresh --appid wx-classic", "WECHAT_TOKEN_API=stable_token")
		wantFinding(t, found, Account, OK, classic.AppID)
	})
	t.Run("conflicts in the ledger", func(t *testing.T) {
		t.Parallel()
		s, st, sim := startAll(t)
		now := time.Now()
		for _, l := range []store.Ledger{
			{
				AppID: classic.AppID, Kind: messages.AccessToken,
				Conflicts: 3, LastConflict: now.Add(-time.Hour),
			},
			{
				AppID: stable.AppID, Kind: messages.AccessToken,
				Day: "2026-01-01", HardForced: 1, LastForced: now.Add(-2 * time.Hour),
			},
		} {
			if _, err := st.PutLedger(t.Context(), l); err != nil {
				t.Fatal(err)
			}
		}
		found := runAll(t, configOf(s.URL(), sim.URL, stable, classic))
		wantFinding(t, found, OtherSystem, Warn, classic.AppID, "long before their end, 3 times so far",
			"WECHAT_TOKEN_API=stable_token")
		wantFinding(t, found, OtherSystem, Warn, stable.AppID, "had to force a new stable token once", "force_refresh")
		cfg := configOf(s.URL(), sim.URL, stable, classic)
		cfg.Now = func() time.Time { return now.Add(25 * time.Hour) }
		found = runAll(t, cfg)
		wantFinding(t, found, OtherSystem, OK, "no sign")
	})
}

func TestRecordOfNoWorkerOrOfAnotherSecretIsFound(t *testing.T) {
	t.Parallel()
	s, st, sim := startAll(t)
	publish(t, st, sim, stable, 1, 0)
	other := stable
	other.Secret = "0123456789another-AppSecret-6789"
	found := runAll(t, configOf(s.URL(), sim.URL, other))
	wantFinding(t, found, OtherSystem, Warn, stable.AppID, "another AppSecret", "same AppSecret")
	js, err := jetstream.New(s.Connect())
	if err == nil {
		_, err = js.Publish(t.Context(), "$KV.wechat."+messages.Key(stable.AppID, messages.AccessToken), []byte("{}"))
	}
	if err != nil {
		t.Fatal(err)
	}
	found = runAll(t, configOf(s.URL(), sim.URL, stable))
	wantFinding(t, found, OtherSystem, Fail, stable.AppID, "not stored by a worker", "which NATS user")
}

// foreignRefresh fetches a token as another system does.
func foreignRefresh(t *testing.T, sim *wechattest.Server, a worker.Account) {
	t.Helper()
	if _, err := sim.ForeignRefresh(a.AppID, a.TokenAPI); err != nil {
		t.Fatal(err)
	}
}

// A token may be dead or replaced for other reasons: its end is near, a worker refreshes it at the same time,
// the account has changed its interface, or WeChat did not say whether the token is alive.
func TestOtherSystemIsNotBlamedForNothing(t *testing.T) {
	t.Parallel()
	s, st, sim := startAll(t)
	for _, a := range []worker.Account{stable, classic} {
		publish(t, st, sim, a, 1, 4*time.Minute) // four minutes of its two hours are left
		foreignRefresh(t, sim, a)
		foreignRefresh(t, sim, a)
	}
	wantNoTrouble(t, runAll(t, configOf(s.URL(), sim.URL, stable, classic)))

	// A worker refreshes the token while the check asks WeChat.
	for _, a := range []worker.Account{stable, classic} {
		publish(t, st, sim, a, 2, 0)
		foreignRefresh(t, sim, a)
		foreignRefresh(t, sim, a)
		cfg := configOf(s.URL(), sim.URL, a)
		renew := true
		cfg.WeChat.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			isFirst := strings.HasSuffix(r.URL.Path, "/stable_token") == (a.TokenAPI == messages.SourceStableToken)
			if !renew || !isFirst {
				return http.DefaultTransport.RoundTrip(r)
			}
			renew = false
			resp, err := http.DefaultTransport.RoundTrip(r)
			publish(t, st, sim, a, 3, 0)
			return resp, err
		})
		found := runAll(t, cfg)
		wantNoTrouble(t, found)
		if renew {
			t.Fatalf("%s: the worker did not refresh the token", a.AppID)
		}
	}

	other := classic // with another interface than the published token
	other.TokenAPI = messages.SourceStableToken
	foreignRefresh(t, sim, classic)
	foreignRefresh(t, sim, classic)
	wantNoTrouble(t, runAll(t, configOf(s.URL(), sim.URL, other)))

	sim.Inject(wechattest.Fault{Endpoint: "get_api_domain_ip", Errcode: -1})
	wantNoTrouble(t, runAll(t, configOf(s.URL(), sim.URL, classic)))
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// The rate of calls does not grow with the number of accounts.
func TestCallsOfWeChatAreSpaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pace := time.NewTicker(pause)
		defer pace.Stop()
		e := &examiner{pace: pace.C}
		began := time.Now()
		for range 20 {
			if !e.wait(t.Context()) {
				t.Fatal("a call was not allowed")
			}
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("20 calls in %s", took)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if e.wait(ended) {
			t.Error("a call was allowed after its context had ended")
		}
	})
}

// An account may not have a permission for a kind of ticket that is kept by default.
func TestKindOfTicketThatWeChatDoesNotPermitIsAWarning(t *testing.T) {
	t.Parallel()
	sim := startWeChat(t)
	account := classic
	account.Tickets = []messages.Kind{messages.JSAPITicket, messages.WXCardTicket}
	wantNoTrouble(t, runAll(t, configOf("", sim.URL, account)), NATS)
	if n := sim.Calls(account.AppID, "getticket"); n != 2 {
		t.Errorf("WeChat was asked for %d tickets, want 2", n)
	}
	sim.Inject(wechattest.Fault{Endpoint: "getticket", Times: 1, Errcode: 48001})
	found := runAll(t, configOf("", sim.URL, account))
	wantFinding(t, found, Account, Warn, "wx-classic (shop)", "no jsapi_ticket", "48001", "WECHAT_TICKETS", "`tickets`")
	wantFinding(t, found, Account, OK, "accepts the AppSecret")
	if strings.Contains(describe(found), "no wx_card_ticket") {
		t.Errorf("the other ticket is blamed: %s", describe(found))
	}
	sim.Inject(wechattest.Fault{Endpoint: "getticket", Errcode: 45009})
	wantFinding(t, runAll(t, configOf("", sim.URL, account)), Account, Fail, "no wx_card_ticket", "45009")
}
