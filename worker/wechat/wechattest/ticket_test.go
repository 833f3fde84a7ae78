package wechattest

import (
	"testing"
	"time"
)

func TestTicketIsTheSameForItsWholeLifeWhateverTokenAsks(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.ok(h.ticket(h.ok(h.classic()).AccessToken, "jsapi"))
	h.equal("body", first.body, `{"errcode":0,"errmsg":"ok","ticket":"`+first.Ticket+`","expires_in":7200}`)
	h.equal("length", len(first.Ticket), 86)
	h.clock.Advance(7200*time.Second - 1)
	again := h.ok(h.ticket(h.ok(h.stable(false)).AccessToken, "jsapi"))
	h.equal("ticket", again.Ticket, first.Ticket)
	h.equal("expires_in", again.ExpiresIn, 7200)
	h.equal("Minted", h.Minted(app, "getticket"), 1)
}

func TestTicketIsNewAfterItsLifeAndTheOldOneLivesForTheOverlap(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	token := func() string { return h.ok(h.stable(false)).AccessToken }
	old := h.ok(h.ticket(token(), "jsapi")).Ticket
	h.clock.Advance(7200 * time.Second)
	next := h.ok(h.ticket(token(), "jsapi")).Ticket
	if next == old {
		t.Fatal("the same ticket after its life")
	}
	h.clock.Advance(5*time.Minute - 1)
	h.equal("old", h.Judge(app, KindJSAPITicket, old), Valid)
	h.clock.Advance(1)
	h.equal("old", h.Judge(app, KindJSAPITicket, old), Expired)
	h.equal("new", h.Judge(app, KindJSAPITicket, next), Valid)
}

func TestTicketTypesAndAccountsAreApart(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.AddAccount(Account{"wx2", "s2"})
	token := h.ok(h.classic()).AccessToken
	js, card := h.ok(h.ticket(token, "jsapi")).Ticket, h.ok(h.ticket(token, "wx_card")).Ticket
	other := h.ok(h.ticket(h.ok(h.classicOf("wx2", "s2")).AccessToken, "jsapi")).Ticket
	if js == card || js == other {
		t.Error("one ticket for two uses")
	}
	h.equal("kind", h.Judge(app, KindWXCardTicket, card), Valid)
	h.equal("wrong kind", h.Judge(app, KindWXCardTicket, js), Unknown)
	h.equal("wrong account", h.Judge(app, KindJSAPITicket, other), Dead)
	h.refused(h.ticket(token, "sdk"), 40097, "invalid args")
}

func TestAPIEndpointsRefuseByTheStateOfTheToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	expired := h.ok(h.stable(false)).AccessToken
	h.clock.Advance(7200 * time.Second)
	dead := h.ok(h.classic()).AccessToken
	h.Revoke(dead)
	ticket := h.ok(h.ticket(h.ok(h.classic()).AccessToken, "jsapi")).Ticket
	calls := map[string]func(string) said{
		"getticket":         func(token string) said { return h.ticket(token, "jsapi") },
		"tickettocode":      func(token string) said { return h.code(token, sampleOpenID, sampleTicket) },
		"get_api_domain_ip": h.domainIP,
	}
	for name, call := range calls {
		h.refused(call(""), 41001, "access_token missing")
		h.refused(call("nonsense"), 40014, "invalid access_token")
		h.refused(call(ticket), 40014, "invalid access_token")
		h.refused(call(expired), 42001, "access_token expired")
		h.refused(call(dead), 40001, "invalid credential, access_token is invalid or not latest rid: ")
		h.equal("unknown at "+name, h.Calls(UnknownAppID, name), 3)
	}
	h.refused(h.do("POST", "/cgi-bin/ticket/getticket", ""), 43001, "require GET")
	h.refused(h.do("GET", "/intp/marketcode/tickettocode", ""), 43002, "require POST")
	h.refused(h.do("PUT", "/cgi-bin/get_api_domain_ip", ""), 43001, "require GET")
}
