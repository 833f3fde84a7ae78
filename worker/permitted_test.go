package worker

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// A ticket that WeChat does not permit is not missing: nobody waits for it.
func TestTicketThatWeChatDoesNotPermitHasItsOwnState(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	f.wechat.Inject(wechattest.Fault{Endpoint: "getticket", Errcode: 48001})
	events := f.events()
	w := f.worker(func(c *Config) { c.Accounts[0].Tickets = []messages.Kind{messages.JSAPITicket} })
	if e := events.next(messages.EventFailed); e.Class != "permission" || !strings.Contains(e.Advice, "WECHAT_TICKETS") ||
		!strings.Contains(e.Advice, "`tickets`") {
		t.Errorf("the event is %+v", e)
	}
	w.awaitIdle()
	status := func() messages.CredentialStatus {
		for _, st := range w.statusOf(appid) {
			if st.Kind == messages.JSAPITicket {
				return st
			}
		}
		t.Fatal("the status has no ticket")
		return messages.CredentialStatus{}
	}
	st := status()
	if st.State != messages.StateNotPermitted || st.Reason != messages.ReasonNotPermitted || st.Errcode != 48001 ||
		st.NextAttempt.Before(f.clock.Now().Add(24*time.Hour)) {
		t.Errorf("the status is %+v", st)
	}
	w.checkMetric(`wxkeeper_credentials{kind="jsapi_ticket",state="not_permitted"} 1`)
	w.checkMetric(`wxkeeper_credentials{kind="jsapi_ticket",state="missing"} 0`)
	w.checkReady(http.StatusOK, "ok")
	ask := messages.GetCredentialRequest{AppID: appid, Kind: messages.JSAPITicket}
	_, err := w.client.GetCredential(f.context(), ask)
	if e := refusal(t, "the ticket", err, messages.NoCredential); !strings.Contains(e.Message, "WECHAT_TICKETS") {
		t.Errorf("the error has no advice: %s", e.Message)
	}
	_, err = w.report(messages.RefreshCredentialRequest{Kind: messages.JSAPITicket, Revision: 1})
	checkSymbol(t, "a report of the ticket", err, messages.NoCredential)
	f.checkCalls("getticket", 1)

	// A day later it is tried again, which is no news. With a new setting of the account it is tried at once.
	f.advanceTo(st.NextAttempt)
	f.eventually("the next attempt, with a new token", func() bool {
		f.pass(policy.MinGap)
		return f.calls("getticket") == 2
	})
	w.awaitIdle()
	account := Account{AppID: appid, Secret: secret, Tickets: []messages.Kind{messages.JSAPITicket}}
	if err := w.SetAccounts([]Account{account}); err != nil {
		t.Fatal(err)
	}
	f.advance(time.Minute)
	f.checkCalls("getticket", 2)
	f.wechat.ClearFaults()
	account.Tickets = append(account.Tickets, messages.WXCardTicket)
	if err := w.SetAccounts([]Account{account}); err != nil {
		t.Fatal(err)
	}
	w.await(messages.JSAPITicket, 0)
	w.await(messages.WXCardTicket, 0)
	for {
		e := events.any()
		if e.Event == messages.EventFailed {
			t.Errorf("told again: %+v", e)
		}
		if e.Event == messages.EventRefreshed && e.Kind == messages.WXCardTicket {
			break
		}
	}
}
