package wechattest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

func TestFaultAffectsTimesCalls(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.Inject(Fault{AppID: app, Endpoint: "token", Times: 2, Errcode: -1})
	fx.ok(fx.stable(false))
	fx.refused(fx.classic(), -1, "system error")
	fx.equal("left", fx.Faults()[0].Times, 1)
	fx.refused(fx.classic(), -1, "system error")
	fx.equal("faults in force", len(fx.Faults()), 0)
	fx.ok(fx.classic())
	fx.equal("Minted", fx.Minted(app, "token"), 1)
	fx.equal("Calls", fx.Calls(app, "token"), 3)
	fx.equal("faults", fx.Snapshot().Accounts[app]["token"].Faults, 2)
	fx.equal("-1", fx.Snapshot().Accounts[app]["token"].Errcodes[-1], 2)
}

func TestFaultWithoutTimesLastsUntilCleared(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.Inject(Fault{Errcode: 89503})
	for range 5 {
		fx.refused(fx.classic(), 89503, "administrator")
	}
	fx.ClearFaults()
	fx.ok(fx.classic())
}

func TestOnlyTheOldestMatchingFaultAffectsACall(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.Inject(Fault{AppID: "wx2", Errcode: 1})
	fx.Inject(Fault{Endpoint: "token", Times: 1, Errcode: 2, Errmsg: "two"})
	fx.Inject(Fault{Times: 1, Errcode: 3, Errmsg: `three "quoted" <> rid: mine`})
	fx.refused(fx.classic(), 2, "two")
	fx.equal("errmsg with its own rid", fx.classic().Errmsg, `three "quoted" <> rid: mine`)
	fx.ok(fx.classic())
}

func TestFaultTimesHoldUnderConcurrency(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.Inject(Fault{Times: 20, Errcode: -1})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { fx.stable(false) })
	}
	wg.Wait()
	fx.equal("affected", fx.Snapshot().Accounts[app]["stable_token"].Errcodes[-1], 20)
	fx.equal("answered", fx.Snapshot().Accounts[app]["stable_token"].Errcodes[0], 80)
}

func TestAfterTakesEffectAndHidesTheAnswer(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		fx := newFixture(t)
		a, b := fx.ok(fx.classic()).AccessToken, fx.ok(fx.classic()).AccessToken
		fx.checkValidity(a, Valid)
		fx.Inject(Fault{Endpoint: "token", Times: 1, Status: 502, After: after})
		got := fx.classic()
		fx.equal("status", got.status, 502)
		if !strings.Contains(got.body, "Bad Gateway") || got.header.Get("Content-Type") != "text/html" {
			t.Errorf("%v %s", got.header, got.body)
		}
		if after {
			fx.checkValidity(a, Dead)
			fx.equal("Minted", fx.Minted(app, "token"), 3)
		} else {
			fx.checkValidity(a, Valid)
			fx.equal("Minted", fx.Minted(app, "token"), 2)
		}
		fx.checkValidity(b, Valid)
	}
}

func TestFaultErrcode40164NamesTheCallersIP(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.Inject(Fault{Errcode: 40164})
	fx.refused(fx.classic(), 40164, "invalid ip 192.0.2.1 ipv6 ::ffff:192.0.2.1, not in whitelist")
}

func TestFaultErrcodeWithoutErrmsgHasTheTextOfItsEndpoint(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.ok(fx.classic()).AccessToken
	for errcode, text := range map[int]string{
		40001: "access_token is invalid or not latest", 40097: "invalid args", 48001: "api unauthorized",
		99999: "error",
	} {
		fx.ClearFaults()
		fx.Inject(Fault{Errcode: errcode})
		fx.refused(fx.domainIP(token), errcode, text)
	}
	fx.ClearFaults()
	fx.Inject(Fault{Errcode: 40001})
	fx.refused(fx.classic(), 40001, "appsecret error")
}

func TestACorruptAnswerWithoutAfterHasAValueThatWasNeverIssued(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.Inject(Fault{Body: "short_life"})
	fx.equal("ticket", len(fx.ticket("", "jsapi").Ticket), 86)
	fx.equal("code", fx.code("", "o", "t").Code, "8")
	fx.equal("ip_list", fx.domainIP("").body, domainIPReply)
	fx.equal("stable_token", fx.stable(false).ExpiresIn, 1)
	fx.equal("Minted", fx.Minted("", ""), 0)
}

func TestBodiesAreCorruptedAsNamed(t *testing.T) {
	t.Parallel()
	type fields = map[string]any
	parse := func(got response) fields {
		var m fields
		_ = json.Unmarshal([]byte(got.body), &m)
		return m
	}
	length := func(v any) int { s, _ := v.(string); return len(s) }
	tests := map[string]func(got response, m fields) bool{
		"empty": func(got response, _ fields) bool { return got.body == "" },
		"truncated": func(got response, m fields) bool {
			return m == nil && strings.HasPrefix(got.body, `{"access_token":"`)
		},
		"html":   func(got response, m fields) bool { return m == nil && strings.HasPrefix(got.body, "<html>") },
		"binary": func(got response, m fields) bool { return m == nil && !utf8.ValidString(got.body) },
		"huge": func(got response, m fields) bool {
			return len(got.body) > 1<<20 && length(m["access_token"]) == 136
		},
		"wrong_type": func(_ response, m fields) bool {
			return m["expires_in"] == "7200" && length(m["access_token"]) == 136
		},
		"short_life": func(_ response, m fields) bool {
			return m["expires_in"] == 1.0 && length(m["access_token"]) == 136
		},
		"zero_life": func(_ response, m fields) bool { return m["expires_in"] == 0.0 },
		"no_value": func(_ response, m fields) bool {
			_, there := m["access_token"]
			return !there && m["expires_in"] == 7200.0
		},
		"empty_value": func(_ response, m fields) bool { return m["access_token"] == "" },
		"long_value":  func(_ response, m fields) bool { return length(m["access_token"]) > 2<<10 },
		"unprintable_value": func(_ response, m fields) bool {
			s, _ := m["access_token"].(string)
			return strings.Contains(s, "\x00")
		},
		"raw_control": func(got response, m fields) bool {
			return m == nil && strings.HasSuffix(got.body, ",\"note\":\"two\nlines\"}")
		},
		"gzip": func(got response, m fields) bool {
			return m == nil && strings.HasPrefix(got.body, "\x1f\x8b") && got.header.Get("Content-Encoding") == "gzip"
		},
		"raw:{oops": func(got response, _ fields) bool { return got.body == "{oops" },
	}
	for body, good := range tests {
		for _, after := range []bool{false, true} {
			fx := newFixture(t)
			fx.Inject(Fault{Times: 1, Body: body, After: after})
			got := fx.classic()
			if got.status != http.StatusOK || !good(got, parse(got)) {
				t.Errorf("%s: HTTP %d %.200q", body, got.status, got.body)
			}
			want := Unknown
			if after {
				want = Valid
			}
			if body == "short_life" {
				fx.checkValidity(got.AccessToken, want)
			}
			fx.equal("Minted with "+body, fx.Minted(app, "token") == 1, after)
		}
	}
	for _, body := range bodies {
		if tests[body] == nil && body != "cut" {
			t.Errorf("%s is not tested", body)
		}
	}
}

func TestCorruptValuesOfTheOtherEndpoints(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.ok(fx.classic()).AccessToken
	corrupted := func(body string, call func() response) response {
		fx.ClearFaults()
		fx.Inject(Fault{Body: body, After: true})
		return call()
	}
	ticket := func() response { return fx.ticket(token, "jsapi") }
	code := func() response { return fx.code(token, sampleOpenID, sampleTicket) }
	ips := func() response { return fx.domainIP(token) }
	for _, tt := range []struct {
		body, want string
		call       func() response
	}{
		{"empty_value", `"ticket":""`, ticket},
		{"wrong_type", `"expires_in":"7200"`, ticket},
		{"wrong_type", `"code":8,`, code},
		{"empty_value", `"code":"","code_start":0`, code},
		{"no_value", `"errmsg":"ok","code_start"`, code},
		{"wrong_type", `{"ip_list":"203.0.113.18"}`, ips},
		{"empty_value", `{"ip_list":[]}`, ips},
		{"no_value", `{}`, ips},
	} {
		if got := corrupted(tt.body, tt.call); !strings.Contains(got.body, tt.want) {
			t.Errorf("%s: %s, want %s", tt.body, got.body, tt.want)
		}
	}
	// A refusal has no value to corrupt, so it stays as it is.
	fx.refused(corrupted("empty_value", func() response { return fx.classicOf("wx0", "x") }), 40013, "")
	fx.AddCode("", "o", "t", []byte(`not json`))
	fx.equal("no object", corrupted("huge", func() response { return fx.code(token, "o", "t") }).body, "not json")
	fx.AddCode("", "o", "t", []byte(`{"a":1`))
	fx.equal("no whole object", corrupted("huge", func() response { return fx.code(token, "o", "t") }).body, `{"a":1`)
}

// get requests a token from a server, on a new connection.
func get(t *testing.T, ctx context.Context, s *Server) (string, error) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	url := s.URL + "/cgi-bin/token?grant_type=client_credential&appid=" + app + "&secret=" + secret
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

func TestDropClosesTheConnectionWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	s := Start(t, Config{Accounts: []Account{{app, secret}}})
	s.Inject(Fault{Times: 1, Drop: true, After: true})
	if body, err := get(t, t.Context(), s); !errors.Is(err, io.EOF) {
		t.Errorf("%q, %v, want EOF", body, err)
	}
	if s.Minted(app, "token") != 1 {
		t.Error("After: not minted")
	}
	if _, err := get(t, t.Context(), s); err != nil {
		t.Error(err)
	}
}

func TestCutEndsTheConnectionInTheMiddle(t *testing.T) {
	t.Parallel()
	s := Start(t, Config{Accounts: []Account{{app, secret}}})
	s.Inject(Fault{Body: "cut"})
	body, err := get(t, t.Context(), s)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v, want unexpected EOF", err)
	}
	if !strings.HasPrefix(body, `{"access_token"`) {
		t.Errorf("body %q, want the beginning of the answer", body)
	}
}

func TestHangLastsUntilTheCallerGoesAwayOrTheServerCloses(t *testing.T) {
	t.Parallel()
	s := Start(t, Config{Accounts: []Account{{app, secret}}})
	s.Inject(Fault{Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { _, err := get(t, ctx, s); ended <- err }()
	go func() { _, err := get(t, context.Background(), s); ended <- err }()
	eventually(t, func() bool { return s.MaxConcurrent(app, "token") == 2 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.Close()
	if err := <-ended; err == nil {
		t.Error("a closed server has answered")
	}
	s.Close()
}

func TestDelayAndLatencyEndWithRelease(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{}, {Latency: time.Hour}} {
		cfg.Accounts = []Account{{app, secret}}
		s := Start(t, cfg)
		if cfg.Latency == 0 {
			s.Inject(Fault{Delay: time.Hour})
		}
		ended := make(chan error, 1)
		go func() { _, err := get(t, t.Context(), s); ended <- err }()
		eventually(t, func() bool { return s.Calls(app, "token") == 1 })
		s.Release()
		if err := <-ended; err == nil {
			t.Error("answered an hour early")
		}
	}
}

func TestDelayLetsTheTrueAnswerThrough(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		fx := newFixture(t, func(c *Config) { c.Latency = time.Nanosecond })
		fx.Inject(Fault{Delay: time.Nanosecond, After: after})
		fx.equal("token", fx.Validity(app, KindAccessToken, fx.ok(fx.classic()).AccessToken), Valid)
		fx.equal("Minted", fx.Minted(app, "token"), 1)
		fx.equal("success", fx.Snapshot().Accounts[app]["token"].Errcodes[0], 1)
	}
}

func TestMaxConcurrentIsPerAccountAndEndpoint(t *testing.T) {
	t.Parallel()
	s := Start(t, Config{Accounts: []Account{{app, secret}}})
	s.Inject(Fault{Times: 3, Hang: true})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { _, _ = get(t, context.Background(), s) })
	}
	eventually(t, func() bool { return s.Calls(app, "token") == 3 })
	if got := s.MaxConcurrent("", ""); got != 3 {
		t.Errorf("MaxConcurrent = %d, want 3", got)
	}
	s.ResetCounters()
	if got := s.MaxConcurrent(app, "token"); got != 3 {
		t.Errorf("MaxConcurrent = %d after ResetCounters, want the 3 in flight", got)
	}
	s.Close()
	wg.Wait()
	s.ResetCounters()
	if got := s.MaxConcurrent(app, "token"); got != 0 {
		t.Errorf("MaxConcurrent = %d, want 0", got)
	}
}

func TestSequentialCallsAreNeverCountedAsConcurrent(t *testing.T) {
	t.Parallel()
	s := Start(t, Config{Accounts: []Account{{app, secret}}})
	for range 300 {
		if _, err := get(t, t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.MaxConcurrent(app, "token"); got != 1 {
		t.Errorf("MaxConcurrent = %d, want 1", got)
	}
}
