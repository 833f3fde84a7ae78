package worker

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// pass advances the clock without waiting until no turn is due: turns may be given up again and again.
func (f *fixture) pass(d time.Duration) {
	f.Helper()
	f.clock.advance(d)
	for _, w := range f.workers {
		w.retryBlocked()
		for _, l := range w.scheduler.lanes {
			select {
			case l.wake <- struct{}{}:
			default:
			}
		}
	}
}

// awaitHindered waits until several turns of the token were given up, for this reason.
func (w *testWorker) awaitHindered(reason messages.Reason) (st messages.CredentialStatus) {
	w.Helper()
	w.eventually("the token cannot be refreshed: "+string(reason), func() bool {
		c, _ := w.scheduler.of(messages.Key(appid, messages.AccessToken))
		st = w.statusOf(appid)[0]
		return st.Reason == reason && c.obstacle != nil && c.obstacle.turns > untoldTurns
	})
	if st.HinderedSince.IsZero() || st.Error == "" || st.Advice == "" {
		w.Errorf("the status does not say since when, why, and what to do: %+v", st)
	}
	return st
}

// awaitState waits until the token has this state.
func (w *testWorker) awaitState(want messages.State) {
	w.Helper()
	w.eventually("the token is "+string(want), func() bool { return w.statusOf(appid)[0].State == want })
}

// checkMetric waits until the page of metrics has a line.
func (w *testWorker) checkMetric(line string) {
	w.Helper()
	w.eventually(line, func() bool {
		_, page := w.page("/metrics")
		return strings.Contains(page, line)
	})
}

// checkReady checks the answer of /readyz.
func (w *testWorker) checkReady(want int, texts ...string) {
	w.Helper()
	code, body := w.page("/readyz")
	for _, text := range texts {
		if !strings.Contains(body, text) {
			w.Errorf("/readyz does not say %q: %s", text, body)
		}
	}
	if code != want {
		w.Errorf("/readyz answers %d, want %d: %s", code, want, body)
	}
}

// until returns the names of the events up to the first one of a name.
func (e *eventLog) until(name string) (names []string) {
	e.Helper()
	for !slices.Contains(names, name) {
		names = append(names, e.any().Event)
	}
	return names
}

// count is how many elements equal s.
func count(all []string, s string) (n int) {
	for _, one := range all {
		if one == s {
			n++
		}
	}
	return n
}

func TestFullStorageIsTheReasonOfTheStateUntilThereIsRoomAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(nil)
	first := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	w.checkReady(http.StatusOK, "ok")
	events := f.events()
	f.nats.LimitStorage(1)

	f.pass(first.RefreshAt.Sub(f.clock.Now()))
	st := w.awaitHindered(messages.ReasonUnwritable)
	if st.State != messages.StateFailing || st.ErrorClass != string(messages.ReasonUnwritable) ||
		!strings.Contains(st.Advice, "nats account info") {
		t.Errorf("while the storage is full: %+v", st)
	}
	failed := events.next(messages.EventFailed)
	if failed.Class != string(messages.ReasonUnwritable) || failed.Message != st.Error || failed.Advice != st.Advice {
		t.Errorf("the event %+v does not say what the status says", failed)
	}
	w.checkReady(http.StatusServiceUnavailable, "1 credential is due", st.Error, st.Advice)
	w.checkMetric(`wxkeeper_credentials{kind="access_token",state="failing"} 1`)
	w.checkMetric(`wxkeeper_refreshes_given_up_total{kind="access_token",reason="unwritable"}`)
	if c, err := w.client.GetCredential(f.context(), messages.GetCredentialRequest{AppID: appid}); err != nil ||
		c.Value != first.Value {
		t.Errorf("the old token is not handed out: %v", err)
	}

	_, err := w.report(messages.RefreshCredentialRequest{Revision: first.Revision})
	if e := refusal(t, "a report", err, messages.NoCredential); !strings.Contains(e.Message, st.Advice) {
		t.Errorf("the reply to a report does not say why nothing can be refreshed: %s", e.Message)
	}

	f.pass(first.ExpiresAt.Sub(f.clock.Now()))
	w.awaitState(messages.StateExpired)
	expired := events.next(messages.EventExpired)
	if expired.Generation != first.Generation || expired.Message == "" || expired.Advice == "" {
		t.Errorf("the event of the expiry is %+v", expired)
	}
	_, err = w.client.GetCredential(f.context(), messages.GetCredentialRequest{AppID: appid})
	if e := refusal(t, "no token", err, messages.NoCredential); !strings.Contains(e.Message, st.Error) ||
		!strings.Contains(e.Message, st.Advice) {
		t.Errorf("the error does not say why there is no token: %s", e.Message)
	}
	f.checkCalls("", 1)

	f.nats.LimitStorage(-1)
	w.await(messages.AccessToken, first.Generation)
	names := events.until(messages.EventRecovered)
	if n := count(names, messages.EventExpired) + count(names, messages.EventFailed); n > 0 {
		t.Errorf("told again: %v", names)
	}
	w.awaitState(messages.StateFresh)
	w.checkReady(http.StatusOK, "ok")
}

func TestLostNATSIsTheReasonOfTheState(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(nil)
	first := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	f.nats.Stop()

	f.pass(first.ExpiresAt.Sub(f.clock.Now()))
	st := w.awaitHindered(messages.ReasonDisconnected)
	if st.State != messages.StateExpired {
		t.Errorf("the state is %s, want expired", st.State)
	}
	w.checkReady(http.StatusServiceUnavailable, "not connected to NATS")
	err := w.service.lookup.missing(w.accounts.get(appid), messages.AccessToken)
	if e := refusal(t, "no token", err, messages.NoCredential); !strings.Contains(e.Message, st.Error) {
		t.Errorf("the error does not say why there is no token: %s", e.Message)
	}
	f.nats.Restart()
	w.await(messages.AccessToken, first.Generation)
	w.awaitState(messages.StateFresh)
}

// The user of this worker may not write the ledger entry of one account. The server reports that asynchronously, and
// the request only times out.
func TestMissingPermissionIsTheReasonOfItsAccountAlone(t *testing.T) {
	t.Parallel()
	const good = "wx-good"
	srv, unrestricted, restricted := natstest.StartRestricted(t, []string{
		"$JS.API.>", "$KV.wechat.>", "$KV.wechat_ledger." + good + ".>", "wechat.>", "_INBOX.>", "$SRV.>",
	}, []string{">"})
	f := &fixture{TB: t, nats: srv, hurried: true, user: unrestricted}
	f.startWeChat(wechattest.Config{Accounts: []wechattest.Account{
		{AppID: appid, Secret: secret}, {AppID: good, Secret: secret},
	}})
	events := f.events()
	nc := srv.Connect(restricted)
	nc.SetErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})
	w := f.workerOn(nc, func(c *Config) {
		c.Accounts = append(c.Accounts, Account{AppID: good, Secret: secret})
	})
	w.awaitOf(good, messages.AccessToken, 0)
	st := w.awaitHindered(messages.ReasonUnwritable)
	if st.State != messages.StateMissing || !strings.Contains(st.Error, "$KV.wechat_ledger."+appid) ||
		!strings.Contains(st.Advice, "wxkeeper permissions worker") {
		t.Errorf("without the permission: %+v", st)
	}
	if e := events.next(messages.EventFailed); e.AppID != appid || e.Advice != st.Advice {
		t.Errorf("the event is %+v", e)
	}
	if other := w.statusOf(good)[0]; other.State != messages.StateFresh {
		t.Errorf("the other account is %s", other.State)
	}
	w.checkReady(http.StatusOK, "ok", "1 credential is due")
	f.checkCalls("stable_token", 1)
}

func TestLeaseThatIsHeldAgainAndAgainIsTheReasonOfTheState(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	f.lease = 3 * time.Second
	events := f.events()
	f.seed(messages.SourceStableToken)
	f.takeLease("other", 2*patience)
	w := f.worker(nil)
	f.eventually("the lease is found held", func() bool {
		w.scheduler.mu.Lock()
		defer w.scheduler.mu.Unlock()
		return w.scheduler.items[messages.Key(appid, messages.AccessToken)].last.leaseHeld
	})
	if st := w.statusOf(appid)[0]; st.State != messages.StateFresh {
		t.Errorf("another worker may be refreshing the token, and the state is %s", st.State)
	}
	f.pass(f.lease)
	st := w.awaitHindered(messages.ReasonLeaseHeld)
	if st.State != messages.StateFailing {
		t.Errorf("the state is %s, want failing", st.State)
	}
	if failed := events.next(messages.EventFailed); failed.Class != string(messages.ReasonLeaseHeld) {
		t.Errorf("the event is %+v", failed)
	}
	w.checkReady(http.StatusOK, "ok", "1 credential is due")
	f.endLease(messages.Key(appid, messages.AccessToken))
	events.next(messages.EventRecovered)
	w.awaitState(messages.StateFresh)
}

// Only this worker knows a failure of WeChat that the ledger does not have.
func TestFailureThatCannotBeWrittenIsShown(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(nil)
	first := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	full := &fullAfterAttempt{turnUpstream: w.refresher.upstream, fill: func() { f.nats.LimitStorage(1) }}
	w.scheduler.mu.Lock() // no turn begins meanwhile
	w.refresher.upstream = full
	w.scheduler.mu.Unlock()
	f.pass(first.RefreshAt.Sub(f.clock.Now()))
	var st messages.CredentialStatus
	f.eventually("the failure is shown", func() bool {
		st = w.statusOf(appid)[0]
		return strings.Contains(st.Error, "40164")
	})
	if st.State != messages.StateFailing || st.Errcode != 40164 || st.ErrorClass != "account" ||
		st.Advice != "put 192.0.2.1 on the list" || !strings.Contains(st.Error, "the ledger cannot be written") {
		t.Errorf("the status is %+v", st)
	}
}

// fullAfterAttempt fills the storage while WeChat is asked, and refuses.
type fullAfterAttempt struct {
	turnUpstream
	fill func()
}

func (u *fullAfterAttempt) StableToken(context.Context, string, string, bool) (wechat.Issued, error) {
	u.fill()
	return wechat.Issued{}, &wechat.Error{Endpoint: wechat.EndpointStableToken, Class: wechat.ClassAccount,
		Errcode: 40164, Advice: "put 192.0.2.1 on the list", Sent: true, HTTPStatus: 200}
}

// A ticket whose token has expired waits for the token. That is no refresh.
func TestTicketThatWaitsForAHinderedTokenHasNotRecovered(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{TicketLife: 6 * time.Hour})
	f.clock.stop()
	w := f.worker(func(cfg *Config) { cfg.Accounts[0].Tickets = []messages.Kind{messages.JSAPITicket} })
	first, ticket := w.await(messages.AccessToken, 0), w.await(messages.JSAPITicket, 0)
	w.awaitQuiet(messages.JSAPITicket)
	events := f.events()
	f.nats.LimitStorage(1)

	key := messages.Key(appid, messages.JSAPITicket)
	f.pass(ticket.RefreshAt.Sub(f.clock.Now()))
	f.eventually("the ticket cannot be refreshed", func() bool {
		c, _ := w.scheduler.of(key)
		return c.obstacle != nil && c.obstacle.turns > untoldTurns
	})
	f.pass(first.ExpiresAt.Sub(f.clock.Now()))
	var c scheduled
	f.eventually("the ticket waits for the token", func() bool {
		c, _ = w.scheduler.of(key)
		return c.next.Reason == messages.ReasonNoToken && !c.running
	})
	w.awaitHindered(messages.ReasonUnwritable)
	if c, _ = w.scheduler.of(key); c.obstacle == nil {
		t.Error("the ticket is said to have recovered, and only waits for the token")
	}

	f.nats.LimitStorage(-1)
	w.await(messages.AccessToken, first.Generation)
	for e := events.any(); e.Kind != messages.JSAPITicket || e.Event != messages.EventRecovered; {
		e = events.any()
	}
	if c, _ = w.scheduler.of(key); c.obstacle != nil {
		t.Errorf("the ticket has recovered, and is still kept by %+v", c.obstacle)
	}
}
