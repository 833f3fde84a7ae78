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

func TestFaultStrikesTheNumberOfTimesItSays(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.Inject(Fault{AppID: app, Endpoint: "token", Times: 2, Errcode: -1})
	h.ok(h.stable(false))
	h.refused(h.classic(), -1, "system error")
	h.equal("left", h.Faults()[0].Times, 1)
	h.refused(h.classic(), -1, "system error")
	h.equal("armed", len(h.Faults()), 0)
	h.ok(h.classic())
	h.equal("Minted", h.Minted(app, "token"), 1)
	h.equal("Calls", h.Calls(app, "token"), 3)
	h.equal("faults", h.Snapshot().Accounts[app]["token"].Faults, 2)
	h.equal("-1", h.Snapshot().Accounts[app]["token"].Errcodes[-1], 2)
}

func TestFaultWithoutTimesLastsUntilCleared(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.Inject(Fault{Errcode: 89503})
	for range 5 {
		h.refused(h.classic(), 89503, "administrator")
	}
	h.ClearFaults()
	h.ok(h.classic())
}

func TestTheOldestMatchingFaultStrikesAlone(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.Inject(Fault{AppID: "wx2", Errcode: 1})
	h.Inject(Fault{Endpoint: "token", Times: 1, Errcode: 2, Errmsg: "two"})
	h.Inject(Fault{Times: 1, Errcode: 3, Errmsg: `three "quoted" <> rid: mine`})
	h.refused(h.classic(), 2, "two")
	h.equal("errmsg with its own rid", h.classic().Errmsg, `three "quoted" <> rid: mine`)
	h.ok(h.classic())
}

func TestFaultTimesHoldUnderConcurrency(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.Inject(Fault{Times: 20, Errcode: -1})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { h.stable(false) })
	}
	wg.Wait()
	h.equal("struck", h.Snapshot().Accounts[app]["stable_token"].Errcodes[-1], 20)
	h.equal("answered", h.Snapshot().Accounts[app]["stable_token"].Errcodes[0], 80)
}

func TestAfterTakesEffectAndHidesTheAnswer(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		h := newHouse(t)
		a, b := h.ok(h.classic()).AccessToken, h.ok(h.classic()).AccessToken
		h.judge(a, Valid)
		h.Inject(Fault{Endpoint: "token", Times: 1, Status: 502, After: after})
		got := h.classic()
		h.equal("status", got.status, 502)
		if !strings.Contains(got.body, "Bad Gateway") || got.header.Get("Content-Type") != "text/html" {
			t.Errorf("%v %s", got.header, got.body)
		}
		if after {
			h.judge(a, Dead)
			h.equal("Minted", h.Minted(app, "token"), 3)
		} else {
			h.judge(a, Valid)
			h.equal("Minted", h.Minted(app, "token"), 2)
		}
		h.judge(b, Valid)
	}
}

func TestFaultErrcode40164NamesTheCallersIP(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.Inject(Fault{Errcode: 40164})
	h.refused(h.classic(), 40164, "invalid ip 192.0.2.1 ipv6 ::ffff:192.0.2.1, not in whitelist")
}

func TestFaultErrcodeAloneHasTheTextOfItsEndpoint(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	token := h.ok(h.classic()).AccessToken
	for errcode, text := range map[int]string{
		40001: "access_token is invalid or not latest", 40097: "invalid args", 48001: "api unauthorized", 99999: "error",
	} {
		h.ClearFaults()
		h.Inject(Fault{Errcode: errcode})
		h.refused(h.domainIP(token), errcode, text)
	}
	h.ClearFaults()
	h.Inject(Fault{Errcode: 40001})
	h.refused(h.classic(), 40001, "appsecret error")
}

func TestASpoiledAnswerWithoutAfterPretendsASuccessOfItsEndpoint(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.Inject(Fault{Body: "short_life"})
	h.equal("ticket", len(h.ticket("", "jsapi").Ticket), 86)
	h.equal("code", h.code("", "o", "t").Code, "8")
	h.equal("ip_list", h.domainIP("").body, domainIPReply)
	h.equal("stable_token", h.stable(false).ExpiresIn, 1)
	h.equal("Minted", h.Minted("", ""), 0)
}

func TestBodiesAreSpoiledAsNamed(t *testing.T) {
	t.Parallel()
	type fields = map[string]any
	parse := func(got said) fields {
		var m fields
		_ = json.Unmarshal([]byte(got.body), &m)
		return m
	}
	length := func(v any) int { s, _ := v.(string); return len(s) }
	tests := map[string]func(got said, m fields) bool{
		"empty":      func(got said, _ fields) bool { return got.body == "" },
		"truncated":  func(got said, m fields) bool { return m == nil && strings.HasPrefix(got.body, `{"access_token":"`) },
		"html":       func(got said, m fields) bool { return m == nil && strings.HasPrefix(got.body, "<html>") },
		"binary":     func(got said, m fields) bool { return m == nil && !utf8.ValidString(got.body) },
		"huge":       func(got said, m fields) bool { return len(got.body) > 1<<20 && length(m["access_token"]) == 136 },
		"wrong_type": func(_ said, m fields) bool { return m["expires_in"] == "7200" && length(m["access_token"]) == 136 },
		"short_life": func(_ said, m fields) bool { return m["expires_in"] == 1.0 && length(m["access_token"]) == 136 },
		"zero_life":  func(_ said, m fields) bool { return m["expires_in"] == 0.0 },
		"no_value": func(_ said, m fields) bool {
			_, there := m["access_token"]
			return !there && m["expires_in"] == 7200.0
		},
		"empty_value":       func(_ said, m fields) bool { return m["access_token"] == "" },
		"long_value":        func(_ said, m fields) bool { return length(m["access_token"]) > 2<<10 },
		"unprintable_value": func(_ said, m fields) bool { s, _ := m["access_token"].(string); return strings.Contains(s, "\x00") },
		"raw:{oops":         func(got said, _ fields) bool { return got.body == "{oops" },
	}
	for body, good := range tests {
		for _, after := range []bool{false, true} {
			h := newHouse(t)
			h.Inject(Fault{Times: 1, Body: body, After: after})
			got := h.classic()
			if got.status != http.StatusOK || !good(got, parse(got)) {
				t.Errorf("%s: HTTP %d %.200q", body, got.status, got.body)
			}
			want := Unknown
			if after {
				want = Valid
			}
			if body == "short_life" {
				h.judge(got.AccessToken, want)
			}
			h.equal("Minted with "+body, h.Minted(app, "token") == 1, after)
		}
	}
	for _, body := range bodies {
		if tests[body] == nil && body != "cut" {
			t.Errorf("%s is not tested", body)
		}
	}
}

func TestSpoiledValuesOfTheOtherEndpoints(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	token := h.ok(h.classic()).AccessToken
	spoiled := func(body string, call func() said) said {
		h.ClearFaults()
		h.Inject(Fault{Body: body, After: true})
		return call()
	}
	ticket := func() said { return h.ticket(token, "jsapi") }
	code := func() said { return h.code(token, sampleOpenID, sampleTicket) }
	ips := func() said { return h.domainIP(token) }
	for _, tt := range []struct {
		body, want string
		call       func() said
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
		if got := spoiled(tt.body, tt.call); !strings.Contains(got.body, tt.want) {
			t.Errorf("%s: %s, want %s", tt.body, got.body, tt.want)
		}
	}
	// What is refused stays refused: there is no value to spoil.
	h.refused(spoiled("empty_value", func() said { return h.classicOf("wx0", "x") }), 40013, "")
	h.AddCode("", "o", "t", []byte(`not json`))
	h.equal("no object", spoiled("huge", func() said { return h.code(token, "o", "t") }).body, "not json")
	h.AddCode("", "o", "t", []byte(`{"a":1`))
	h.equal("no whole object", spoiled("huge", func() said { return h.code(token, "o", "t") }).body, `{"a":1`)
}

// get asks a served simulation, on a connection of its own.
func get(t *testing.T, ctx context.Context, s *Server) (string, error) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/cgi-bin/token?grant_type=client_credential&appid="+app+"&secret="+secret, nil)
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
	if body, err := get(t, t.Context(), s); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(body, `{"access_token"`) {
		t.Errorf("%q, %v, want a beginning and unexpected EOF", body, err)
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
		t.Error("an answer out of a closed server")
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

func TestDelayAloneLetsTheTrueAnswerThrough(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		h := newHouse(t, func(c *Config) { c.Latency = time.Nanosecond })
		h.Inject(Fault{Delay: time.Nanosecond, After: after})
		h.equal("token", h.Judge(app, KindAccessToken, h.ok(h.classic()).AccessToken), Valid)
		h.equal("Minted", h.Minted(app, "token"), 1)
		h.equal("success", h.Snapshot().Accounts[app]["token"].Errcodes[0], 1)
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

func TestCallsOneAfterAnotherAreNeverSeenAtOnce(t *testing.T) {
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
