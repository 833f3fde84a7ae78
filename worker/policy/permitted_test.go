package policy

import (
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// refused is the entry after an attempt that failed with a class.
func refused(p *Policy, now time.Time, l store.Ledger, class wechat.Class) store.Ledger {
	l = p.Begin(now, View{Rule: Ticket, Ledger: l}, messages.ReasonMissing, false)
	return p.Fail(now, View{Rule: Ticket, Ledger: l, Settings: "settings"}, store.Failure{At: now, Class: class}, 0)
}

// A kind of ticket that WeChat has never issued to the account, and does not permit, is tried once a day, and at once
// with new settings or after a start.
func TestTicketThatWeChatDoesNotPermitIsTriedOnceADay(t *testing.T) {
	t.Parallel()
	p := testPolicy(0.5)
	ticket := store.Ledger{AppID: "wx1", Kind: messages.JSAPITicket}
	l := refused(p, t0, ticket, wechat.ClassPermission)
	if got := StateOf(t0, nil, l); got != messages.StateNotPermitted {
		t.Errorf("the state is %s", got)
	}
	later := t0.Add(time.Hour)
	view := View{Rule: Ticket, Ledger: l, Settings: "settings", HasToken: true}
	d := p.Next(later, view)
	if wait := d.At.Sub(t0); d.Action != Wait || d.Reason != messages.ReasonNotPermitted || wait < 24*time.Hour ||
		wait > 25*time.Hour {
		t.Errorf("after a refusal: %+v, in %s", d, wait)
	}
	if d := p.Next(t0.Add(25*time.Hour), view); d.Action != Fetch {
		t.Errorf("a day later: %+v", d)
	}
	changed, started := view, view
	changed.Settings, started.RetryBefore = "other settings", later
	for name, tt := range map[string]struct {
		view View
		want messages.Reason
	}{"new settings": {changed, messages.ReasonNewSettings}, "a start": {started, messages.ReasonRetry}} {
		if d := p.Next(later, tt.view); d.Action != Fetch || !d.At.Equal(later) || d.Reason != tt.want {
			t.Errorf("%s: %+v", name, d)
		}
		tt.view.Ledger = refused(p, later, l, wechat.ClassPermission)
		tt.view.Ledger.Refused = append(tt.view.Ledger.Refused, tt.view.Settings)
		if d := p.Next(later.Add(time.Minute), tt.view); d.Action != Wait {
			t.Errorf("%s, once more: %+v", name, d)
		}
	}

	// A failure that passes is tried again soon, and does not make the ticket look as if it were missing.
	busy := refused(p, later, l, wechat.ClassBusy)
	if got := StateOf(later, nil, busy); got != messages.StateNotPermitted {
		t.Errorf("while WeChat is busy the state is %s", got)
	}
	if wait := busy.NextAttempt.Sub(later); wait > 2*retryMax {
		t.Errorf("while WeChat is busy the next attempt is in %s", wait)
	}
}

// What was issued once is used: a refusal is a failure.
func TestTicketThatWasIssuedOnceIsNeverCalledNotPermitted(t *testing.T) {
	t.Parallel()
	p := testPolicy(0.5)
	for name, tt := range map[string]struct {
		ledger store.Ledger
		class  wechat.Class
		want   messages.State
	}{
		"issued once": {
			store.Ledger{Kind: messages.JSAPITicket, Generation: 1, ExpiresAt: t0.Add(-time.Hour)},
			wechat.ClassPermission, messages.StateExpired,
		},
		"issued after a refusal": {
			store.Ledger{Kind: messages.JSAPITicket, Generation: 1, NotPermitted: true, ExpiresAt: t0.Add(-time.Hour)},
			wechat.ClassPermission, messages.StateExpired,
		},
		"a token":         {store.Ledger{Kind: messages.AccessToken}, wechat.ClassPermission, messages.StateMissing},
		"another refusal": {store.Ledger{Kind: messages.JSAPITicket}, wechat.ClassAccount, messages.StateMissing},
	} {
		l := refused(p, t0, tt.ledger, tt.class)
		if got := StateOf(t0, nil, l); got != tt.want {
			t.Errorf("%s: the state is %s, want %s", name, got, tt.want)
		}
		if wait := l.NextAttempt.Sub(t0); wait > 2*PermanentMin {
			t.Errorf("%s: the next attempt is in %s", name, wait)
		}
	}
}
