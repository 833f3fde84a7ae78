package wechattest

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestRevokeKillsBeforeTheEndAndNormalModeRepeatsIt(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	token := h.ok(h.stable(false)).AccessToken
	h.Revoke(token)
	h.judge(token, Dead)
	h.equal("normal mode", h.ok(h.stable(false)).AccessToken, token)
	next := h.ok(h.stable(true)).AccessToken
	h.judge(next, Valid)
	h.clock.Advance(7200 * time.Second)
	h.judge(token, Expired)
	h.Revoke("never issued")
}

func TestForeignRefreshKillsLikeAnyOtherAndIsCountedApart(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.TokensPerDay = 4 })
	ours := h.ok(h.classic()).AccessToken
	for _, want := range []Verdict{Valid, Dead} {
		if _, err := h.ForeignRefresh(app, "token"); err != nil {
			t.Fatal(err)
		}
		h.equal("ours", h.Judge(app, KindAccessToken, ours), want)
	}
	theirs, err := h.ForeignRefresh(app, "stable_token")
	if err != nil {
		t.Fatal(err)
	}
	h.equal("stable", h.ok(h.stable(false)).AccessToken, theirs)
	h.equal("Calls", h.Calls(app, "token"), 1)
	h.equal("Minted", h.Minted(app, "token"), 1)
	h.equal("Foreign", h.Snapshot().Accounts[app]["token"].Foreign, 2)

	h.ok(h.classic())
	for _, tt := range []struct{ appid, endpoint, text string }{
		{app, "token", "45009"},
		{app, "stable_token", "ForceGap"},
		{app, "getticket", "gives no token"},
		{"wx0", "token", "no account"},
	} {
		if token, err := h.ForeignRefresh(tt.appid, tt.endpoint); token != "" || err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s %s: %q, %v, want an error with %q", tt.appid, tt.endpoint, token, err, tt.text)
		}
	}
}

func TestJudgeKnowsWhoseATokenIs(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	token := h.ok(h.classic()).AccessToken
	h.equal("of another", h.Judge("wx2", KindAccessToken, token), Dead)
	h.equal("never issued", h.Judge(app, KindAccessToken, "x"), Unknown)
	h.equal("Calls", h.Calls("", ""), 1)
}

func TestSetSecretMakesTheOldOneWrongAtOnceAndTokensLiveOn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	token := h.ok(h.classic()).AccessToken
	h.SetSecret(app, "new")
	h.refused(h.classic(), 40001, "")
	h.refused(h.stable(false), 40125, "")
	h.judge(token, Valid)
	h.ok(h.classicOf(app, "new"))
	h.AddAccount(Account{app, secret}) // the same as SetSecret
	h.ok(h.classic())
}

func TestRemoveAccountKillsWhatWasIssuedToIt(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a, b := h.ok(h.classic()).AccessToken, h.ok(h.classic()).AccessToken
	stable := h.ok(h.stable(false)).AccessToken
	ticket := h.ok(h.ticket(b, "jsapi")).Ticket
	h.RemoveAccount(app)
	h.RemoveAccount(app)
	for _, token := range []string{a, b, stable} {
		h.judge(token, Dead)
	}
	h.equal("ticket", h.Judge(app, KindJSAPITicket, ticket), Dead)
	h.refused(h.classic(), 40013, "invalid appid")
	h.equal("Calls", h.Calls(app, "token"), 3)
	h.AddAccount(Account{app, secret})
	h.judge(h.ok(h.classic()).AccessToken, Valid)
	h.judge(b, Dead)
}

func TestSnapshotHasEveryCounterAndNoSecret(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	token := h.ok(h.classic()).AccessToken
	h.classicOf(app, "wrong")
	h.classicOf("wx0", "x")
	h.domainIP("nonsense")
	s := h.Snapshot()
	c := s.Accounts[app]["token"]
	h.equal("calls", c.Calls, 2)
	h.equal("minted", c.Minted, 1)
	h.equal("max", c.MaxConcurrent, 1)
	h.equal("success", c.Errcodes[0], 1)
	h.equal("40001", c.Errcodes[40001], 1)
	h.equal("40013", s.Accounts["wx0"]["token"].Errcodes[40013], 1)
	h.equal("40014", s.Accounts[UnknownAppID]["get_api_domain_ip"].Errcodes[40014], 1)
	b, err := json.Marshal(s)
	if err != nil || strings.Contains(string(b), token) || strings.Contains(string(b), secret) {
		t.Errorf("%s, %v", b, err)
	}
	if !strings.Contains(string(b), `"errcodes":{"0":1,"40001":1}`) {
		t.Errorf("%s", b)
	}
	h.ResetCounters()
	h.equal("after ResetCounters", len(h.Snapshot().Accounts), 0)
	h.equal("Calls", h.Calls("", ""), 0)
}

func TestStrangersAreCountedInBoundedMemory(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.classicOf(strings.Repeat("x", maxAppID+1), "x")
	h.equal("overlong", h.Calls(UnknownAppID, "token"), 1)
	h.stats.strangers = maxStrangers
	h.classicOf("one-too-many", "x")
	h.equal("one too many", h.Calls(UnknownAppID, "token"), 2)
	h.AddAccount(Account{"wx2", "s2"})
	h.ok(h.classicOf("wx2", "s2"))
	h.equal("known", h.Calls("wx2", "token"), 1)
}

func TestManyCallersAtOnceGetOneStableToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var wg sync.WaitGroup
	tokens := make([]string, 50)
	for i := range tokens {
		wg.Go(func() {
			tokens[i] = h.stable(false).AccessToken
			h.Judge(app, KindAccessToken, tokens[i])
			h.ticket(tokens[i], "wx_card")
			h.code(tokens[i], sampleOpenID, sampleTicket)
			h.Snapshot()
		})
	}
	wg.Wait()
	for _, token := range tokens {
		h.equal("token", token, tokens[0])
	}
	h.equal("Minted tokens", h.Minted(app, "stable_token"), 1)
	h.equal("Minted tickets", h.Minted(app, "getticket"), 1)
	h.equal("Calls", h.Calls(app, ""), 150)
}
