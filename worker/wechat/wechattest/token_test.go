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

func TestClassicSuccessHasNoErrcodeAndTheWholeLife(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	got := fx.ok(fx.classic())
	fx.equal("body", got.body, `{"access_token":"`+got.AccessToken+`","expires_in":7200}`)
	fx.equal("Content-Type", got.header.Get("Content-Type"), "text/plain")
	if !tokenForm.MatchString(got.AccessToken) {
		t.Errorf("token %q does not look like WeChat's", got.AccessToken)
	}
}

func TestEveryClassicSuccessIssuesANewToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	a, b := fx.ok(fx.classic()), fx.ok(fx.classic())
	if a.AccessToken == b.AccessToken {
		t.Error("the same token twice")
	}
	fx.equal("Minted", fx.Minted(app, "token"), 2)
}

func TestClassicOldTokenIsValidForTheOverlap(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	old := fx.ok(fx.classic()).AccessToken
	fx.clock.Advance(time.Hour)
	fx.ok(fx.classic())
	fx.clock.Advance(5*time.Minute - 1)
	fx.checkValidity(old, Valid)
	fx.clock.Advance(1)
	fx.checkValidity(old, Dead)
}

func TestClassicOverlapDoesNotOutliveTheToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	old := fx.ok(fx.classic()).AccessToken
	fx.clock.Advance(7200*time.Second - time.Minute)
	fx.ok(fx.classic())
	fx.clock.Advance(time.Minute - 1)
	fx.checkValidity(old, Valid)
	fx.clock.Advance(1)
	fx.checkValidity(old, Expired)
}

func TestClassicNewTokenEndsTheTokenBeforeThePreviousAtOnce(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	a, b, c := fx.ok(fx.classic()).AccessToken, fx.ok(fx.classic()).AccessToken, fx.ok(fx.classic()).AccessToken
	fx.checkValidity(a, Dead)
	fx.checkValidity(b, Valid)
	fx.checkValidity(c, Valid)
}

func TestTokenExpiresByTime(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.ok(fx.classic()).AccessToken
	fx.clock.Advance(7200*time.Second - 1)
	fx.checkValidity(token, Valid)
	fx.clock.Advance(1)
	fx.checkValidity(token, Expired)
}

func TestOverlapIsAtMostAThirdOfAShortLife(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *Config) { c.TokenLife = 30 * time.Second })
	old := fx.ok(fx.classic()).AccessToken
	fx.ok(fx.classic())
	fx.clock.Advance(10*time.Second - 1)
	fx.checkValidity(old, Valid)
	fx.clock.Advance(1)
	fx.checkValidity(old, Dead)
}

func TestStableRepeatsTheTokenWithItsRemainingLife(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first := fx.ok(fx.stable(false))
	fx.equal("expires_in", first.ExpiresIn, 7200)
	fx.clock.Advance(1500 * time.Millisecond)
	again := fx.ok(fx.stable(false))
	fx.equal("token", again.AccessToken, first.AccessToken)
	fx.equal("expires_in, rounded down", again.ExpiresIn, 7198)
	fx.clock.Advance(7200*time.Second - 300*time.Second - 1501*time.Millisecond)
	again = fx.ok(fx.stable(false))
	fx.equal("token just before the last five minutes", again.AccessToken, first.AccessToken)
	fx.equal("expires_in", again.ExpiresIn, 300)
	fx.equal("Minted", fx.Minted(app, "stable_token"), 1)
}

func TestStableIssuesANewTokenInTheLastFiveMinutesAndTheOldKeepsItsEnd(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first := fx.ok(fx.stable(false)).AccessToken
	fx.clock.Advance(7200*time.Second - 300*time.Second)
	next := fx.ok(fx.stable(false))
	if next.AccessToken == first {
		t.Fatal("no new token in the last five minutes")
	}
	fx.equal("expires_in", next.ExpiresIn, 7200)
	fx.clock.Advance(300*time.Second - 1)
	fx.checkValidity(first, Valid)
	fx.checkValidity(next.AccessToken, Valid)
	fx.clock.Advance(1)
	fx.checkValidity(first, Expired)
	fx.checkValidity(next.AccessToken, Valid)
}

func TestStableNeverAnswersZeroSecondsEvenInAShortLife(t *testing.T) {
	t.Parallel()
	for life := time.Second; life <= 4*time.Second; life += time.Second {
		fx := newFixture(t, func(c *Config) { c.TokenLife = life })
		for range 100 {
			if got := fx.ok(fx.stable(false)); got.ExpiresIn < 1 {
				t.Fatalf("life %v: %s", life, got.body)
			}
			fx.clock.Advance(53 * time.Millisecond)
		}
	}
}

func TestForcedIssuesANewTokenAndTheOldIsValidForTheOverlap(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	old := fx.ok(fx.stable(false)).AccessToken
	fx.clock.Advance(time.Hour)
	next := fx.ok(fx.stable(true))
	if next.AccessToken == old {
		t.Fatal("forced, and the same token")
	}
	fx.equal("expires_in", next.ExpiresIn, 7200)
	fx.equal("token of normal mode", fx.ok(fx.stable(false)).AccessToken, next.AccessToken)
	fx.clock.Advance(5*time.Minute - 1)
	fx.checkValidity(old, Valid)
	fx.clock.Advance(1)
	fx.checkValidity(old, Dead)
}

func TestTwoForcedCallsThirtySecondsApartEndALeakedToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	leaked := fx.ok(fx.stable(false)).AccessToken
	second := fx.ok(fx.stable(true)).AccessToken
	fx.clock.Advance(30 * time.Second)
	fx.checkValidity(leaked, Valid)
	fx.ok(fx.stable(true))
	fx.checkValidity(leaked, Dead)
	fx.checkValidity(second, Valid)
}

func TestForcedTooSoonDoesNotRefreshAndUsesNoQuota(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *Config) { c.ForcesPerDay = 2 })
	first := fx.ok(fx.stable(true)).AccessToken
	for range 9 {
		fx.clock.Advance(3 * time.Second)
		fx.equal("token", fx.ok(fx.stable(true)).AccessToken, first)
	}
	fx.clock.Advance(3*time.Second - 1)
	soon := fx.ok(fx.stable(true))
	fx.equal("token", soon.AccessToken, first)
	fx.equal("expires_in", soon.ExpiresIn, 7170)
	fx.clock.Advance(1)
	if fx.ok(fx.stable(true)).AccessToken == first {
		t.Error("not refreshed 30 s after the last forced call")
	}
}

func TestTwentyForcedCallsADay(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	for range 20 {
		fx.ok(fx.stable(true))
		fx.clock.Advance(30 * time.Second)
	}
	fx.refused(fx.stable(true), 45009, "daily quota")
	fx.ok(fx.stable(false))
	fx.equal("Minted", fx.Minted(app, "stable_token"), 20)
	fx.clock.Advance(12 * time.Hour)
	fx.ok(fx.stable(true))
}

func TestStableAndClassicAreIsolated(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	stable := fx.ok(fx.stable(false)).AccessToken
	classic := fx.ok(fx.classic()).AccessToken
	for range 3 {
		fx.ok(fx.classic())
	}
	fx.checkValidity(stable, Valid)
	fx.checkValidity(classic, Dead)
	classic = fx.ok(fx.classic()).AccessToken
	for range 3 {
		fx.ok(fx.stable(true))
		fx.clock.Advance(30 * time.Second)
	}
	fx.checkValidity(classic, Valid)
	fx.checkValidity(stable, Dead)
}

func TestTokenEndpointsRefuse(t *testing.T) {
	t.Parallel()
	const path = "/cgi-bin/token?grant_type=client_credential"
	stable := func(fields string) string { return `{"grant_type":"client_credential",` + fields + `}` }
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
		{"stable, appid a number", "POST", "/cgi-bin/stable_token", stable(`"appid":1,"secret":"x"`), 47001,
			"data format"},
		{"stable, force_refresh a string", "POST", "/cgi-bin/stable_token",
			stable(`"appid":"` + app + `","secret":"` + secret + `","force_refresh":"true"`), 47001, "data format"},
		{"stable, no grant_type", "POST", "/cgi-bin/stable_token",
			`{"appid":"` + app + `","secret":"` + secret + `"}`, 40002, "grant_type"},
		{"stable, no appid", "POST", "/cgi-bin/stable_token", stable(`"secret":"x"`), 41002, "appid missing"},
		{"stable, appid misspelt", "POST", "/cgi-bin/stable_token",
			stable(`"AppID":"` + app + `","secret":"x"`), 41002, "appid missing"},
		{"stable, no secret", "POST", "/cgi-bin/stable_token", stable(`"appid":"` + app + `"`), 41004,
			"secret missing"},
		{"stable, unknown appid", "POST", "/cgi-bin/stable_token",
			stable(`"appid":"wx0","secret":"x"`), 40013, "invalid appid"},
		{"stable, wrong secret", "POST", "/cgi-bin/stable_token",
			stable(`"appid":"` + app + `","secret":"x"`), 40125, "invalid appsecret"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t)
			fx.refused(fx.do(tt.method, tt.target, tt.body), tt.errcode, tt.text)
			fx.equal("Minted", fx.Minted("", ""), 0)
			fx.equal("Calls", fx.Calls("", ""), 1)
		})
	}
}

func TestUnknownPathIsNotFound(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.equal("status", fx.do("GET", "/cgi-bin/menu/get", "").status, http.StatusNotFound)
	fx.equal("Calls", fx.Calls("", ""), 0)
	fx.equal("NotFound", fx.Snapshot().NotFound, 1)
}

func TestReplacedTokensAreDroppedWhenTheyAreDeadAndTooMany(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *Config) { c.TokensPerDay = -1 })
	first := fx.ok(fx.classic()).AccessToken
	fx.ok(fx.classic())
	fx.ok(fx.classic())
	fx.checkValidity(first, Dead)
	var last string
	for range remembered + 10 {
		last = fx.ok(fx.classic()).AccessToken
	}
	fx.checkValidity(first, Unknown)
	fx.checkValidity(last, Valid)
	if n := len(fx.issued.byValue); n > remembered+3 {
		t.Errorf("%d tokens remembered", n)
	}
}
