package wechattest

import (
	"testing"
	"time"
)

func TestTicketIsTheSameForItsWholeLifeForEveryToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first := fx.ok(fx.ticket(fx.ok(fx.classic()).AccessToken, "jsapi"))
	fx.equal("body", first.body, `{"errcode":0,"errmsg":"ok","ticket":"`+first.Ticket+`","expires_in":7200}`)
	fx.equal("length", len(first.Ticket), 86)
	fx.clock.Advance(7200*time.Second - 1)
	again := fx.ok(fx.ticket(fx.ok(fx.stable(false)).AccessToken, "jsapi"))
	fx.equal("ticket", again.Ticket, first.Ticket)
	fx.equal("expires_in", again.ExpiresIn, 7200)
	fx.equal("Minted", fx.Minted(app, "getticket"), 1)
}

func TestTicketIsNewAfterItsLifeAndTheOldTicketIsValidForTheOverlap(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := func() string { return fx.ok(fx.stable(false)).AccessToken }
	old := fx.ok(fx.ticket(token(), "jsapi")).Ticket
	fx.clock.Advance(7200 * time.Second)
	next := fx.ok(fx.ticket(token(), "jsapi")).Ticket
	if next == old {
		t.Fatal("the same ticket after its life")
	}
	fx.clock.Advance(5*time.Minute - 1)
	fx.equal("old", fx.Validity(app, KindJSAPITicket, old), Valid)
	fx.clock.Advance(1)
	fx.equal("old", fx.Validity(app, KindJSAPITicket, old), Expired)
	fx.equal("new", fx.Validity(app, KindJSAPITicket, next), Valid)
}

func TestTicketsOfTypesAndAccountsDiffer(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.AddAccount(Account{"wx2", "s2"})
	token := fx.ok(fx.classic()).AccessToken
	js, card := fx.ok(fx.ticket(token, "jsapi")).Ticket, fx.ok(fx.ticket(token, "wx_card")).Ticket
	other := fx.ok(fx.ticket(fx.ok(fx.classicOf("wx2", "s2")).AccessToken, "jsapi")).Ticket
	if js == card || js == other {
		t.Error("one ticket for two uses")
	}
	fx.equal("kind", fx.Validity(app, KindWXCardTicket, card), Valid)
	fx.equal("wrong kind", fx.Validity(app, KindWXCardTicket, js), Unknown)
	fx.equal("wrong account", fx.Validity(app, KindJSAPITicket, other), Dead)
	fx.refused(fx.ticket(token, "sdk"), 40097, "invalid args")
}

func TestEndpointsRefuseByTheValidityOfTheToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	expired := fx.ok(fx.stable(false)).AccessToken
	fx.clock.Advance(7200 * time.Second)
	dead := fx.ok(fx.classic()).AccessToken
	fx.Revoke(dead)
	ticket := fx.ok(fx.ticket(fx.ok(fx.classic()).AccessToken, "jsapi")).Ticket
	calls := map[string]func(string) response{
		"getticket":         func(token string) response { return fx.ticket(token, "jsapi") },
		"tickettocode":      func(token string) response { return fx.code(token, sampleOpenID, sampleTicket) },
		"get_api_domain_ip": fx.domainIP,
	}
	for name, call := range calls {
		fx.refused(call(""), 41001, "access_token missing")
		fx.refused(call("nonsense"), 40014, "invalid access_token")
		fx.refused(call(ticket), 40014, "invalid access_token")
		fx.refused(call(expired), 42001, "access_token expired")
		fx.refused(call(dead), 40001, "invalid credential, access_token is invalid or not latest rid: ")
		fx.equal("unknown at "+name, fx.Calls(UnknownAppID, name), 3)
	}
	fx.refused(fx.do("POST", "/cgi-bin/ticket/getticket", ""), 43001, "require GET")
	fx.refused(fx.do("GET", "/intp/marketcode/tickettocode", ""), 43002, "require POST")
	fx.refused(fx.do("PUT", "/cgi-bin/get_api_domain_ip", ""), 43001, "require GET")
}
