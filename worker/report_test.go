package worker

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func TestReportOfAValueThatIsNotCurrentCostsNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(nil)
	c := w.await(messages.AccessToken, 0)
	before := s.wechat.Calls("", "")
	for name, r := range map[string]messages.RefreshCredentialRequest{
		"by revision": {Revision: c.Revision - 1},
		"by hash":     {ValueSHA256: messages.ValueSHA256("an older one")},
	} {
		got, err := w.report(r)
		if err != nil || got.Refreshed || got.Reason != messages.ReasonNotCurrent || got.Revision != c.Revision {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if n := s.wechat.Calls("", "") - before; n != 0 {
		t.Errorf("%d upstream calls", n)
	}
}

func TestReportOfALivingTokenIsCheckedWithWeChatAndRefusedNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(nil)
	c := w.await(messages.AccessToken, 0)
	for range 20 {
		got, err := w.report(messages.RefreshCredentialRequest{Revision: c.Revision})
		if err != nil || got.Refreshed || got.Reason != messages.ReasonAlive {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if n := s.wechat.Calls("", "get_api_domain_ip"); n != 1 {
		t.Errorf("WeChat was asked %d times whether the token lives, want once", n)
	}
	if n := s.wechat.Calls("", "stable_token"); n != 1 {
		t.Errorf("%d token calls, want the first one alone", n)
	}
}

// A foreign system fetched classic tokens until ours died.
func TestTenThousandReportsMakeOneRefresh(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{Latency: 20 * time.Millisecond})
	events := s.events()
	w := s.worker(func(c *Config) { classic(c); c.WeChat.Timeout = 5 * time.Second })
	c := w.await(messages.AccessToken, 0)
	for range 2 {
		if _, err := s.wechat.ForeignRefresh(appid, "token"); err != nil {
			t.Fatal(err)
		}
	}
	before := s.wechat.Calls("", "token")
	var refreshed, others atomic.Int64
	var wg sync.WaitGroup
	for range 10_000 {
		wg.Go(func() {
			got, err := w.report(messages.RefreshCredentialRequest{ValueSHA256: messages.ValueSHA256(c.Value)})
			switch {
			case err != nil:
				t.Error(err)
			case got.Generation != c.Generation+1:
				t.Errorf("%+v", got)
			case got.Refreshed:
				refreshed.Add(1)
			default:
				others.Add(1)
			}
		})
	}
	wg.Wait()
	if n := s.wechat.Calls("", "token") - before; n != 1 {
		t.Errorf("%d refreshes for 10,000 reports, want 1", n)
	}
	if refreshed.Load() == 0 {
		t.Errorf("nobody was told of the refresh, %d of something else", others.Load())
	}
	if e := events.next(messages.EventConflict); e.Advice == "" || e.Generation != c.Generation {
		t.Errorf("the conflict is told as %+v", e)
	}
	if st := w.Worker.status(appid).Credentials[0]; st.Conflicts != 1 || st.Advice == "" || st.Forced != 1 {
		t.Errorf("the status says %+v", st)
	}
}

func TestReporterCannotSpendTheQuota(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(classic)
	c := w.await(messages.AccessToken, 0)
	s.wechat.Revoke(c.Value)
	got, err := w.report(messages.RefreshCredentialRequest{})
	if err != nil || !got.Refreshed {
		t.Fatalf("%+v, %v", got, err)
	}
	calls := s.wechat.Calls("", "token")
	s.wechat.Revoke(w.await(messages.AccessToken, got.Generation-1).Value)
	for range 5 {
		_, err := w.report(messages.RefreshCredentialRequest{})
		var e *messages.Error
		if !errors.As(err, &e) || e.Symbol != messages.Throttled || e.RetryAfterMS < 30_000 || e.RetryAfterMS > 60_000 {
			t.Errorf("%v, want throttled for most of a minute", err)
		}
	}
	if n := s.wechat.Calls("", "token") - calls; n != 0 {
		t.Errorf("%d more token calls within the minute", n)
	}
}

// force_refresh only when the normal mode returned the very token that WeChat refuses (design §5.5).
func TestForceRefreshOnlyForATokenThatWeChatRepeatsAndRefuses(t *testing.T) {
	t.Parallel()
	t.Run("foreign forced refresh", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, wechattest.Config{ForceGap: -1, Overlap: -1})
		w := s.worker(nil)
		c := w.await(messages.AccessToken, 0)
		for range 2 {
			if _, err := s.wechat.ForeignRefresh(appid, "stable_token"); err != nil {
				t.Fatal(err)
			}
		}
		got, err := w.report(messages.RefreshCredentialRequest{Revision: c.Revision})
		if err != nil || !got.Refreshed {
			t.Fatalf("%+v, %v", got, err)
		}
		if n := s.wechat.Minted(appid, "stable_token"); n != 1 {
			t.Errorf("%d tokens were minted for us: the normal mode had a living one", n)
		}
	})
	t.Run("repeated and refused", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, wechattest.Config{})
		w := s.worker(nil)
		c := w.await(messages.AccessToken, 0)
		s.wechat.Revoke(c.Value)
		got, err := w.report(messages.RefreshCredentialRequest{Revision: c.Revision})
		if err != nil || !got.Refreshed || got.Generation != 2 {
			t.Fatalf("%+v, %v", got, err)
		}
		if n := s.wechat.Calls(appid, "stable_token"); n != 3 { // at the start, normal, forced
			t.Errorf("%d calls, want 3", n)
		}
		if v := s.wechat.Judge(appid, "access_token", w.await(messages.AccessToken, 1).Value); v != wechattest.Valid {
			t.Errorf("WeChat says of the new one: %v", v)
		}
	})
	t.Run("repeated, and nobody knows", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, wechattest.Config{})
		w := s.worker(nil)
		c := w.await(messages.AccessToken, 0)
		s.wechat.Inject(wechattest.Fault{Endpoint: "get_api_domain_ip", Errcode: -1})
		got, err := w.report(messages.RefreshCredentialRequest{Revision: c.Revision})
		if err != nil || got.Refreshed || got.Reason != messages.ReasonUnchanged {
			t.Fatalf("%+v, %v", got, err)
		}
		if n := s.wechat.Minted(appid, "stable_token"); n != 1 {
			t.Errorf("%d tokens were minted", n)
		}
	})
}

func TestReportOfATicketAsksForTheTicketAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(everything)
	c := w.await(messages.JSAPITicket, 0)
	s.eventually("the floor between two calls is over", func() bool {
		got, err := w.report(messages.RefreshCredentialRequest{Kind: messages.JSAPITicket, Revision: c.Revision})
		return err == nil && !got.Refreshed && got.Reason == messages.ReasonUnchanged
	})
	if n := s.wechat.Minted(appid, "getticket"); n != 2 {
		t.Errorf("%d tickets were minted, want the two of the start", n)
	}
	if _, err := w.report(messages.RefreshCredentialRequest{Kind: messages.JSAPITicket, Revision: c.Revision}); symbol(err) != messages.Throttled {
		t.Errorf("the next report: %v, want throttled", err)
	}
}

func TestReportAsksAgainWhereThereIsNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	s.wechat.Inject(wechattest.Fault{Errcode: 40164, Times: 1})
	events := s.events()
	w := s.worker(nil)
	events.next(messages.EventFailed) // the next scheduled try is ten minutes away; the operator has put it right
	got, err := w.report(messages.RefreshCredentialRequest{})
	if err != nil || !got.Refreshed || got.Generation != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A refresh for a report that fails uses up the minute, but the schedule tries again soon: the caller is told of that.
func TestReportAfterAFailedRefreshIsToldOfTheNextTry(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(classic)
	c := w.await(messages.AccessToken, 0)
	s.wechat.Revoke(c.Value)
	s.wechat.Inject(wechattest.Fault{Endpoint: "token", Errcode: -1, Times: 1})
	if _, err := w.report(messages.RefreshCredentialRequest{Revision: c.Revision}); symbol(err) != messages.Upstream {
		t.Fatalf("%v, want upstream", err)
	}
	var e *messages.Error
	if _, err := w.report(messages.RefreshCredentialRequest{Revision: c.Revision}); errors.As(err, &e) && e.RetryAfterMS > 10_000 {
		t.Errorf("%v", err)
	}
	w.await(messages.AccessToken, c.Generation)
}

// WeChat has just said that the token lives when another system kills it: the worker's own refusal is not answered with
// the old verdict for long.
func TestTokenKilledRightAfterAProbeIsHealedSoon(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(classic)
	c := w.await(messages.AccessToken, 0)
	if got, err := w.report(messages.RefreshCredentialRequest{Revision: c.Revision}); err != nil || got.Reason != messages.ReasonAlive {
		t.Fatalf("%+v, %v", got, err)
	}
	s.wechat.Revoke(c.Value)
	began := time.Now()
	s.eventually("a resolution succeeds", func() bool { _, err := w.resolve(); return err == nil })
	if waited := time.Since(began); waited >= probeEvery {
		t.Errorf("healed after %s, only when the verdict for consumers was over", waited)
	}
}

// A token that WeChat is known to refuse, while the throttle of reports holds: said, and healed when the throttle ends,
// though nobody reports it again.
func TestRefusedTokenIsRenewedWhenTheThrottleEnds(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	var ahead atomic.Int64
	w := s.worker(func(c *Config) {
		classic(c)
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	first := w.await(messages.AccessToken, 0)
	s.wechat.Revoke(first.Value)
	if got, err := w.report(messages.RefreshCredentialRequest{}); err != nil || !got.Refreshed {
		t.Fatalf("%+v, %v", got, err)
	}
	second := w.await(messages.AccessToken, first.Generation)
	s.wechat.Revoke(second.Value)
	if _, err := w.report(messages.RefreshCredentialRequest{}); symbol(err) != messages.Throttled {
		t.Fatalf("%v, want throttled", err)
	}
	s.eventually("the status says so", func() bool {
		st := w.Worker.status(appid)
		return st.Summary[messages.StateRefused] == 1 && st.Credentials[0].Reason == reasonRefused
	})
	ahead.Store(int64(2 * forcedGap))
	w.scheduler.lanes[0].wake <- struct{}{} // its timer does not know of the other clock
	third := w.await(messages.AccessToken, second.Generation)
	if v := s.wechat.Judge(appid, "access_token", third.Value); v != wechattest.Valid {
		t.Errorf("WeChat says of the new one: %v", v)
	}
}

func TestWhatIsKnownIsAnsweredWithoutALease(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(nil)
	c := w.await(messages.AccessToken, 0)
	js, err := jetstreamOf(s.nats.Connect())
	if err != nil {
		t.Fatal(err)
	}
	writes := func() uint64 {
		st, err := js.Stream(s.context(), "KV_wechat")
		if err != nil {
			t.Fatal(err)
		}
		return st.CachedInfo().State.LastSeq
	}
	if _, err := w.report(messages.RefreshCredentialRequest{Revision: c.Revision}); err != nil {
		t.Fatal(err)
	}
	before := writes()
	for range 100 {
		for _, revision := range []uint64{c.Revision, c.Revision + 1000} { // the second was never given
			if _, err := w.report(messages.RefreshCredentialRequest{Revision: revision}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := writes() - before; n > 4 { // the markers of the first lease may still expire
		t.Errorf("200 reports of a living token made %d writes", n)
	}
}

// What the account is refused is not the request's fault: it may be asked again.
func TestRefusedAccountIsNoReasonToDropARequest(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(classic)
	s.wechat.Revoke(w.await(messages.AccessToken, 0).Value)
	s.wechat.Inject(wechattest.Fault{Endpoint: "token", Errcode: 40164})
	_, err := w.resolve()
	var e *messages.Error
	if !errors.As(err, &e) || e.Symbol != messages.NoCredential || e.Errcode != 40164 || e.RetryAfterMS == 0 {
		t.Errorf("%v, want no_credential with WeChat's errcode", err)
	}
}

// The AppSecret was reset: the token is dead, and WeChat refuses to give another. Told once, tried rarely, whatever
// consumers report; an operator, who names no value, is heard.
func TestResetSecretIsToldOnceAndNotSentAtEachReport(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	events := s.events()
	var ahead atomic.Int64
	w := s.worker(func(c *Config) {
		classic(c)
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	c := w.await(messages.AccessToken, 0)
	s.wechat.Revoke(c.Value)
	s.wechat.SetSecret(appid, "another")
	for minute := range 4 {
		ahead.Store(int64(minute) * int64(2*time.Minute))
		s.wechat.ClearFaults()
		if minute == 2 { // WeChat cannot say in between: that is no news, and what it says after it is none
			s.wechat.Inject(wechattest.Fault{Endpoint: "get_api_domain_ip", Errcode: -1})
		}
		if _, err := w.report(messages.RefreshCredentialRequest{Revision: c.Revision}); symbol(err) != messages.NoCredential {
			t.Errorf("minute %d: %v, want no_credential", 2*minute, err)
		}
	}
	if n := s.wechat.Calls("", "token"); n != 2 {
		t.Errorf("%d token calls, want the first and the refused one", n)
	}
	s.wechat.SetSecret(appid, secret)
	if got, err := w.report(messages.RefreshCredentialRequest{}); err != nil || !got.Refreshed {
		t.Errorf("the operator: %+v, %v", got, err)
	}
	conflicts := 0
	for told := ""; told != messages.EventRecovered; {
		m, err := events.sub.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		told = m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
		if told == messages.EventConflict {
			conflicts++
		}
	}
	if conflicts != 1 {
		t.Errorf("the conflict is told %d times", conflicts)
	}
}

// The schedule and a report want the same turn: whoever loses must not sleep over the renewal of the value that follows.
func TestTurnThatAnotherTookDoesNotDelayTheNextRenewal(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(nil)
	c := w.await(messages.AccessToken, 0)
	s.eventually("its renewal is planned", func() bool {
		_, next := w.scheduler.known(w.accounts.get(appid), messages.AccessToken)
		return next.After(time.Now().Add(time.Hour))
	})
	w.scheduler.each(func(it *item) {
		it.heldUntil = c.ExpiresAt // as after ErrLeaseHeld, with a lease that outlives the token
		w.scheduler.plan(it)
		if !it.next.at.Before(c.ExpiresAt) {
			t.Errorf("its renewal waits until %s, it ends at %s", it.next.at, c.ExpiresAt)
		}
		past := time.Now().Add(-time.Minute)
		it.ledger.LastAttempt, it.ledger.NextAttempt = past, past // due, and the other still has it
		w.scheduler.plan(it)
		if !it.next.at.Equal(c.ExpiresAt) {
			t.Errorf("its next turn is at %s, while another has the lease", it.next.at)
		}
		it.heldUntil = time.Time{}
	})
}
