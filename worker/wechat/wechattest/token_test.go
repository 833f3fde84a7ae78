package wechattest

import (
	"net/http"
	"regexp"
	"testing"
	"time"
)

var (
	ridAtEnd  = regexp.MustCompile(` rid: [0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}$`)
	tokenForm = regexp.MustCompile(`^[A-Za-z0-9_-]{136}$`)
)

func TestClassicSuccessHasNoErrcodeAndSaysTheWholeLife(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	got := h.ok(h.classic())
	h.equal("body", got.body, `{"access_token":"`+got.AccessToken+`","expires_in":7200}`)
	h.equal("Content-Type", got.header.Get("Content-Type"), "text/plain")
	if !tokenForm.MatchString(got.AccessToken) {
		t.Errorf("token %q does not look like WeChat's", got.AccessToken)
	}
}

func TestClassicEverySuccessMints(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a, b := h.ok(h.classic()), h.ok(h.classic())
	if a.AccessToken == b.AccessToken {
		t.Error("the same token twice")
	}
	h.equal("Minted", h.Minted(app, "token"), 2)
}

func TestClassicOldTokenLivesOnForTheOverlap(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	old := h.ok(h.classic()).AccessToken
	h.clock.Advance(time.Hour)
	h.ok(h.classic())
	h.clock.Advance(5*time.Minute - 1)
	h.judge(old, Valid)
	h.clock.Advance(1)
	h.judge(old, Dead)
}

func TestClassicOverlapDoesNotOutliveTheToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	old := h.ok(h.classic()).AccessToken
	h.clock.Advance(7200*time.Second - time.Minute)
	h.ok(h.classic())
	h.clock.Advance(time.Minute - 1)
	h.judge(old, Valid)
	h.clock.Advance(1)
	h.judge(old, Expired)
}

func TestClassicNewTokenKillsTheOneBeforeTheLastAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a, b, c := h.ok(h.classic()).AccessToken, h.ok(h.classic()).AccessToken, h.ok(h.classic()).AccessToken
	h.judge(a, Dead)
	h.judge(b, Valid)
	h.judge(c, Valid)
}

func TestTokenExpiresByTime(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	token := h.ok(h.classic()).AccessToken
	h.clock.Advance(7200*time.Second - 1)
	h.judge(token, Valid)
	h.clock.Advance(1)
	h.judge(token, Expired)
}

func TestOverlapIsAtMostAThirdOfAShortLife(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.TokenLife = 30 * time.Second })
	old := h.ok(h.classic()).AccessToken
	h.ok(h.classic())
	h.clock.Advance(10*time.Second - 1)
	h.judge(old, Valid)
	h.clock.Advance(1)
	h.judge(old, Dead)
}

func TestStableRepeatsTheTokenWithTheRestOfItsLife(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.ok(h.stable(false))
	h.equal("expires_in", first.ExpiresIn, 7200)
	h.clock.Advance(1500 * time.Millisecond)
	again := h.ok(h.stable(false))
	h.equal("token", again.AccessToken, first.AccessToken)
	h.equal("expires_in, rounded down", again.ExpiresIn, 7198)
	h.clock.Advance(7200*time.Second - 300*time.Second - 1501*time.Millisecond)
	again = h.ok(h.stable(false))
	h.equal("token just before the last five minutes", again.AccessToken, first.AccessToken)
	h.equal("expires_in", again.ExpiresIn, 300)
	h.equal("Minted", h.Minted(app, "stable_token"), 1)
}

func TestStableRenewsInTheLastFiveMinutesAndTheOldOneLivesToItsOwnEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.ok(h.stable(false)).AccessToken
	h.clock.Advance(7200*time.Second - 300*time.Second)
	next := h.ok(h.stable(false))
	if next.AccessToken == first {
		t.Fatal("no new token in the last five minutes")
	}
	h.equal("expires_in", next.ExpiresIn, 7200)
	h.clock.Advance(300*time.Second - 1)
	h.judge(first, Valid)
	h.judge(next.AccessToken, Valid)
	h.clock.Advance(1)
	h.judge(first, Expired)
	h.judge(next.AccessToken, Valid)
}

func TestStableNeverSaysZeroSecondsEvenInAShortLife(t *testing.T) {
	t.Parallel()
	for life := time.Second; life <= 4*time.Second; life += time.Second {
		h := newHouse(t, func(c *Config) { c.TokenLife = life })
		for range 100 {
			if got := h.ok(h.stable(false)); got.ExpiresIn < 1 {
				t.Fatalf("life %v: %s", life, got.body)
			}
			h.clock.Advance(53 * time.Millisecond)
		}
	}
}

func TestForcedGivesANewTokenAndTheLastLivesForTheOverlap(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	old := h.ok(h.stable(false)).AccessToken
	h.clock.Advance(time.Hour)
	next := h.ok(h.stable(true))
	if next.AccessToken == old {
		t.Fatal("forced, and the same token")
	}
	h.equal("expires_in", next.ExpiresIn, 7200)
	h.equal("token of normal mode", h.ok(h.stable(false)).AccessToken, next.AccessToken)
	h.clock.Advance(5*time.Minute - 1)
	h.judge(old, Valid)
	h.clock.Advance(1)
	h.judge(old, Dead)
}

func TestTwoForcedCallsThirtySecondsApartKillALeakedToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	leaked := h.ok(h.stable(false)).AccessToken
	second := h.ok(h.stable(true)).AccessToken
	h.clock.Advance(30 * time.Second)
	h.judge(leaked, Valid)
	h.ok(h.stable(true))
	h.judge(leaked, Dead)
	h.judge(second, Valid)
}

func TestForcedTooSoonDoesNotRefreshAndCostsNoForce(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.ForcesPerDay = 2 })
	first := h.ok(h.stable(true)).AccessToken
	for range 9 {
		h.clock.Advance(3 * time.Second)
		h.equal("token", h.ok(h.stable(true)).AccessToken, first)
	}
	h.clock.Advance(3*time.Second - 1)
	soon := h.ok(h.stable(true))
	h.equal("token", soon.AccessToken, first)
	h.equal("expires_in", soon.ExpiresIn, 7170)
	h.clock.Advance(1)
	if h.ok(h.stable(true)).AccessToken == first {
		t.Error("not refreshed 30 s after the last forced call")
	}
}

func TestTwentyForcedCallsADay(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for range 20 {
		h.ok(h.stable(true))
		h.clock.Advance(30 * time.Second)
	}
	h.refused(h.stable(true), 45009, "daily quota")
	h.ok(h.stable(false))
	h.equal("Minted", h.Minted(app, "stable_token"), 20)
	h.clock.Advance(12 * time.Hour)
	h.ok(h.stable(true))
}

func TestStableAndClassicAreIsolated(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	stable := h.ok(h.stable(false)).AccessToken
	classic := h.ok(h.classic()).AccessToken
	for range 3 {
		h.ok(h.classic())
	}
	h.judge(stable, Valid)
	h.judge(classic, Dead)
	classic = h.ok(h.classic()).AccessToken
	for range 3 {
		h.ok(h.stable(true))
		h.clock.Advance(30 * time.Second)
	}
	h.judge(classic, Valid)
	h.judge(stable, Dead)
}

func TestTokenEndpointsRefuse(t *testing.T) {
	t.Parallel()
	const path = "/cgi-bin/token?grant_type=client_credential"
	tests := []struct {
		name, method, target, body string
		errcode                    int
		text                       string
	}{
		{"classic by POST", "POST", path + "&appid=" + app + "&secret=" + secret, "", 43001, "require GET"},
		{"classic, no grant_type", "GET", "/cgi-bin/token?appid=" + app + "&secret=" + secret, "", 40002, "grant_type"},
		{"classic, no appid", "GET", path + "&secret=" + secret, "", 41002, "appid missing"},
		{"classic, no secret", "GET", path + "&appid=" + app, "", 41004, "secret missing"},
		{"classic, unknown appid", "GET", path + "&appid=wx0&secret=" + secret, "", 40013, "invalid appid"},
		{"classic, wrong secret", "GET", path + "&appid=" + app + "&secret=x", "", 40001, "invalid credential"},
		{"stable by GET", "GET", "/cgi-bin/stable_token", "", 43002, "require POST"},
		{"stable, empty body", "POST", "/cgi-bin/stable_token", "", 44002, "empty"},
		{"stable, a form", "POST", "/cgi-bin/stable_token", "appid=" + app, 47001, "data format"},
		{"stable, null", "POST", "/cgi-bin/stable_token", "null", 47001, "data format"},
		{"stable, more than one value", "POST", "/cgi-bin/stable_token", `{} {}`, 47001, "data format"},
		{"stable, appid a number", "POST", "/cgi-bin/stable_token", `{"grant_type":"client_credential","appid":1,"secret":"x"}`, 47001, "data format"},
		{"stable, force_refresh a string", "POST", "/cgi-bin/stable_token", `{"grant_type":"client_credential","appid":"` + app + `","secret":"` + secret + `","force_refresh":"true"}`, 47001, "data format"},
		{"stable, no grant_type", "POST", "/cgi-bin/stable_token", `{"appid":"` + app + `","secret":"` + secret + `"}`, 40002, "grant_type"},
		{"stable, no appid", "POST", "/cgi-bin/stable_token", `{"grant_type":"client_credential","secret":"x"}`, 41002, "appid missing"},
		{"stable, appid misspelt", "POST", "/cgi-bin/stable_token", `{"grant_type":"client_credential","AppID":"` + app + `","secret":"x"}`, 41002, "appid missing"},
		{"stable, no secret", "POST", "/cgi-bin/stable_token", `{"grant_type":"client_credential","appid":"` + app + `"}`, 41004, "secret missing"},
		{"stable, unknown appid", "POST", "/cgi-bin/stable_token", `{"grant_type":"client_credential","appid":"wx0","secret":"x"}`, 40013, "invalid appid"},
		{"stable, wrong secret", "POST", "/cgi-bin/stable_token", `{"grant_type":"client_credential","appid":"` + app + `","secret":"x"}`, 40125, "invalid appsecret"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.refused(h.do(tt.method, tt.target, tt.body), tt.errcode, tt.text)
			h.equal("Minted", h.Minted("", ""), 0)
			h.equal("Calls", h.Calls("", ""), 1)
		})
	}
}

func TestUnknownPathIsNotFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.equal("status", h.do("GET", "/cgi-bin/menu/get", "").status, http.StatusNotFound)
	h.equal("Calls", h.Calls("", ""), 0)
	h.equal("NotFound", h.Snapshot().NotFound, 1)
}

func TestSupersededTokensAreForgottenOnlyWhenDeadAndInBoundedNumber(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.TokensPerDay = -1 })
	first := h.ok(h.classic()).AccessToken
	h.ok(h.classic())
	h.ok(h.classic())
	h.judge(first, Dead)
	var last string
	for range remembered + 10 {
		last = h.ok(h.classic()).AccessToken
	}
	h.judge(first, Unknown)
	h.judge(last, Valid)
	if n := len(h.issued.byValue); n > remembered+3 {
		t.Errorf("%d tokens remembered", n)
	}
}
