package wechattest

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestRevokedTokenIsDeadAndNormalModeRepeatsIt(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.ok(fx.stable(false)).AccessToken
	fx.Revoke(token)
	fx.checkValidity(token, Dead)
	fx.equal("normal mode", fx.ok(fx.stable(false)).AccessToken, token)
	next := fx.ok(fx.stable(true)).AccessToken
	fx.checkValidity(next, Valid)
	fx.clock.Advance(7200 * time.Second)
	fx.checkValidity(token, Expired)
	fx.Revoke("never issued")
}

func TestForeignRefreshEndsTokensAndIsCountedSeparately(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *Config) { c.TokensPerDay = 4 })
	ours := fx.ok(fx.classic()).AccessToken
	for _, want := range []Validity{Valid, Dead} {
		if _, err := fx.ForeignRefresh(app, "token"); err != nil {
			t.Fatal(err)
		}
		fx.equal("ours", fx.Validity(app, KindAccessToken, ours), want)
	}
	theirs, err := fx.ForeignRefresh(app, "stable_token")
	if err != nil {
		t.Fatal(err)
	}
	fx.equal("stable", fx.ok(fx.stable(false)).AccessToken, theirs)
	fx.equal("Calls", fx.Calls(app, "token"), 1)
	fx.equal("Minted", fx.Minted(app, "token"), 1)
	fx.equal("Foreign", fx.Snapshot().Accounts[app]["token"].Foreign, 2)

	fx.ok(fx.classic())
	for _, tt := range []struct{ appid, endpoint, text string }{
		{app, "token", "45009"},
		{app, "stable_token", "ForceGap"},
		{app, "getticket", "issues no token"},
		{"wx0", "token", "no account"},
	} {
		token, err := fx.ForeignRefresh(tt.appid, tt.endpoint)
		fx.equal("token of "+tt.endpoint, token, "")
		if err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s %s: %v, want an error with %q", tt.appid, tt.endpoint, err, tt.text)
		}
	}
}

func TestValidityDependsOnTheAccountOfAToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.ok(fx.classic()).AccessToken
	fx.equal("token of another account", fx.Validity("wx2", KindAccessToken, token), Dead)
	fx.equal("never issued", fx.Validity(app, KindAccessToken, "x"), Unknown)
	fx.equal("Calls", fx.Calls("", ""), 1)
}

func TestSetSecretMakesTheOldSecretWrongAndKeepsTokens(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.ok(fx.classic()).AccessToken
	fx.SetSecret(app, "new")
	fx.refused(fx.classic(), 40001, "")
	fx.refused(fx.stable(false), 40125, "")
	fx.checkValidity(token, Valid)
	fx.ok(fx.classicOf(app, "new"))
	fx.AddAccount(Account{app, secret}) // has the effect of SetSecret
	fx.ok(fx.classic())
}

func TestRemoveAccountEndsItsTokensAndTickets(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	a, b := fx.ok(fx.classic()).AccessToken, fx.ok(fx.classic()).AccessToken
	stable := fx.ok(fx.stable(false)).AccessToken
	ticket := fx.ok(fx.ticket(b, "jsapi")).Ticket
	fx.RemoveAccount(app)
	fx.RemoveAccount(app)
	for _, token := range []string{a, b, stable} {
		fx.checkValidity(token, Dead)
	}
	fx.equal("ticket", fx.Validity(app, KindJSAPITicket, ticket), Dead)
	fx.refused(fx.classic(), 40013, "invalid appid")
	fx.equal("Calls", fx.Calls(app, "token"), 3)
	fx.AddAccount(Account{app, secret})
	fx.checkValidity(fx.ok(fx.classic()).AccessToken, Valid)
	fx.checkValidity(b, Dead)
}

func TestSnapshotHasEveryCounterAndNoSecret(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.ok(fx.classic()).AccessToken
	fx.classicOf(app, "wrong")
	fx.classicOf("wx0", "x")
	fx.domainIP("nonsense")
	s := fx.Snapshot()
	c := s.Accounts[app]["token"]
	fx.equal("calls", c.Calls, 2)
	fx.equal("minted", c.Minted, 1)
	fx.equal("max", c.MaxConcurrent, 1)
	fx.equal("success", c.Errcodes[0], 1)
	fx.equal("40001", c.Errcodes[40001], 1)
	fx.equal("40013", s.Accounts["wx0"]["token"].Errcodes[40013], 1)
	fx.equal("40014", s.Accounts[UnknownAppID]["get_api_domain_ip"].Errcodes[40014], 1)
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), token) || strings.Contains(string(b), secret) {
		t.Errorf("a secret shows: %s", b)
	}
	if !strings.Contains(string(b), `"errcodes":{"0":1,"40001":1}`) {
		t.Errorf("%s", b)
	}
	fx.ResetCounters()
	fx.equal("after ResetCounters", len(fx.Snapshot().Accounts), 0)
	fx.equal("Calls", fx.Calls("", ""), 0)
}

func TestUnknownAppIDsAreCountedInBoundedMemory(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.classicOf(strings.Repeat("x", maxAppID+1), "x")
	fx.equal("overlong", fx.Calls(UnknownAppID, "token"), 1)
	fx.stats.unknown = maxUnknown
	fx.classicOf("one-too-many", "x")
	fx.equal("one too many", fx.Calls(UnknownAppID, "token"), 2)
	fx.AddAccount(Account{"wx2", "s2"})
	fx.ok(fx.classicOf("wx2", "s2"))
	fx.equal("known", fx.Calls("wx2", "token"), 1)
}

func TestManyConcurrentCallersGetOneStableToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	var wg sync.WaitGroup
	tokens := make([]string, 50)
	for i := range tokens {
		wg.Go(func() {
			tokens[i] = fx.stable(false).AccessToken
			fx.Validity(app, KindAccessToken, tokens[i])
			fx.ticket(tokens[i], "wx_card")
			fx.code(tokens[i], sampleOpenID, sampleTicket)
			fx.Snapshot()
		})
	}
	wg.Wait()
	for _, token := range tokens {
		fx.equal("token", token, tokens[0])
	}
	fx.equal("Minted tokens", fx.Minted(app, "stable_token"), 1)
	fx.equal("Minted tickets", fx.Minted(app, "getticket"), 1)
	fx.equal("Calls", fx.Calls(app, ""), 150)
}
