package worker

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// A report that names a value waits at least this long for the next one that causes a refresh.
const betweenForced = time.Minute

func TestReportOfAValueThatIsNotCurrentCostsNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(nil)
	c := w.await(messages.AccessToken, 0)
	for name, r := range map[string]messages.RefreshCredentialRequest{
		"by revision": {Revision: c.Revision - 1},
		"by hash":     {ValueSHA256: messages.ValueSHA256("an older value")},
	} {
		got := w.mustReport(r, messages.ReasonNotCurrent)
		if got.Revision != c.Revision {
			t.Errorf("%s: the current revision is %d, want %d", name, got.Revision, c.Revision)
		}
	}
	f.checkCalls("", 1)
}

func TestReportOfALivingTokenIsProbedOnceAndRefreshesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop() // a verdict is valid for some seconds
	w := f.worker(nil)
	c := w.await(messages.AccessToken, 0)
	for range 20 {
		w.mustReport(messages.RefreshCredentialRequest{Revision: c.Revision}, messages.ReasonAlive)
	}
	f.checkCalls("get_api_domain_ip", 1)
	f.checkCalls("stable_token", 1)
}

// Another system fetched classic tokens until the published one died.
func TestTenThousandReportsMakeOneRefresh(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{Latency: 20 * time.Millisecond})
	f.clock.stop()
	events := f.events()
	w := f.worker(classic)
	c := w.await(messages.AccessToken, 0)
	f.killToken()
	var refreshed, notCurrent atomic.Int64
	var reports sync.WaitGroup
	for range 10_000 {
		reports.Go(func() {
			got, err := w.report(messages.RefreshCredentialRequest{ValueSHA256: messages.ValueSHA256(c.Value)})
			if err != nil {
				t.Error(err)
				return
			}
			if got.Generation != c.Generation+1 {
				t.Errorf("the current generation is %d, want %d", got.Generation, c.Generation+1)
			}
			switch got.Reason {
			case messages.ReasonRefreshed:
				refreshed.Add(1)
			case messages.ReasonNotCurrent:
				notCurrent.Add(1)
			default:
				t.Errorf("the outcome is %s", got.Reason)
			}
		})
	}
	reports.Wait()
	f.checkCalls("token", 2)
	if refreshed.Load() == 0 {
		t.Errorf("no report has the outcome refreshed; %d have not_current", notCurrent.Load())
	}
	e := events.next(messages.EventConflict)
	if e.Generation != c.Generation {
		t.Errorf("the conflict is of generation %d, want %d", e.Generation, c.Generation)
	}
	if e.Advice == "" {
		t.Error("the event of the conflict has no advice")
	}
	st := w.statusOf(appid)[0]
	type facts struct{ Conflicts, Forced int }
	checkDiff(t, "the status", facts{st.Conflicts, st.Forced}, facts{Conflicts: 1, Forced: 1})
	if st.Advice == "" {
		t.Error("the status has no advice")
	}
}

// What WeChat has not refused itself is refreshed for reports once a minute: WeChat cannot be asked about a ticket.
func TestReporterCannotSpendTheQuota(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(everything)
	c := w.await(messages.JSAPITicket, 0)
	w.await(messages.WXCardTicket, 0)
	report := messages.RefreshCredentialRequest{Kind: messages.JSAPITicket, Revision: c.Revision}
	w.mustReport(report, messages.ReasonUnchanged)
	calls := f.calls("getticket")
	for range 5 {
		_, err := w.report(report)
		e := refusal(t, "a report within a minute of the last refresh", err, messages.Throttled)
		if e.RetryAfterMS != betweenForced.Milliseconds() {
			t.Errorf("the reporter is asked to wait for %d ms, want a minute", e.RetryAfterMS)
		}
	}
	f.checkCalls("getticket", calls)
}

// force_refresh is called only if the normal mode returned the token that WeChat refuses
// (docs/architecture.md#refresh-5).
func TestForceRefreshOnlyForATokenThatWeChatRepeatsAndRefuses(t *testing.T) {
	t.Parallel()
	t.Run("forced by another system", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, wechattest.Config{ForceGap: -1, Overlap: -1})
		w := f.worker(nil)
		c := w.await(messages.AccessToken, 0)
		f.foreignRefresh(messages.SourceStableToken)
		f.foreignRefresh(messages.SourceStableToken)
		w.mustReport(messages.RefreshCredentialRequest{Revision: c.Revision}, messages.ReasonRefreshed)
		if n := f.wechat.Minted(appid, "stable_token"); n != 1 {
			t.Errorf("WeChat issued %d tokens to the worker, want 1: the normal mode had a valid one", n)
		}
	})
	t.Run("repeated and refused", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, wechattest.Config{})
		w := f.worker(nil)
		c := w.await(messages.AccessToken, 0)
		f.wechat.Revoke(c.Value)
		got := w.mustReport(messages.RefreshCredentialRequest{Revision: c.Revision}, messages.ReasonRefreshed)
		if got.Generation != 2 {
			t.Errorf("the current generation is %d, want 2", got.Generation)
		}
		f.checkCalls("stable_token", 3) // at the start, in normal mode, with force_refresh
		f.checkValid(w.await(messages.AccessToken, 1))
	})
	t.Run("repeated, and the verdict is inconclusive", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, wechattest.Config{})
		w := f.worker(nil)
		c := w.await(messages.AccessToken, 0)
		f.wechat.Inject(wechattest.Fault{Endpoint: "get_api_domain_ip", Errcode: -1})
		w.mustReport(messages.RefreshCredentialRequest{Revision: c.Revision}, messages.ReasonUnchanged)
		if n := f.wechat.Minted(appid, "stable_token"); n != 1 {
			t.Errorf("WeChat issued %d tokens, want 1", n)
		}
	})
}

func TestReportOfATicketAsksForTheTicketAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(everything)
	c := w.await(messages.JSAPITicket, 0)
	w.await(messages.WXCardTicket, 0)
	report := messages.RefreshCredentialRequest{Kind: messages.JSAPITicket, Revision: c.Revision}
	w.mustReport(report, messages.ReasonUnchanged)
	f.checkCalls("getticket", 3)
	if n := f.wechat.Minted(appid, "getticket"); n != 2 {
		t.Errorf("WeChat issued %d tickets, want the 2 of the start", n)
	}
}

func TestReportRefreshesAMissingCredential(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.wechat.Inject(wechattest.Fault{Errcode: 40164, Times: 1})
	events := f.events()
	w := f.worker(nil)
	events.next(messages.EventFailed) // the next attempt is planned in ten minutes; the operator has fixed the cause
	got := w.mustReport(messages.RefreshCredentialRequest{}, messages.ReasonRefreshed)
	if got.Generation != 1 {
		t.Errorf("the current generation is %d, want 1", got.Generation)
	}
}

// A refresh for a report uses up the minute, also if it fails. But the schedule retries it soon, and the next
// reporter is asked to wait for that.
func TestReportAfterAFailedRefreshIsAnsweredWithTheNextAttempt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(classic)
	c := w.await(messages.AccessToken, 0)
	f.wechat.Revoke(c.Value)
	f.wechat.Inject(wechattest.Fault{Endpoint: "token", Errcode: -1, Times: 1})
	_, err := w.report(messages.RefreshCredentialRequest{Revision: c.Revision})
	checkSymbol(t, "a report whose refresh fails", err, messages.Upstream)
	w.awaitIdle()
	_, err = w.report(messages.RefreshCredentialRequest{Revision: c.Revision})
	e := refusal(t, "the next report", err, messages.Throttled)
	wait := w.statusOf(appid)[0].NextAttempt.Sub(f.clock.Now())
	if got := time.Duration(e.RetryAfterMS) * time.Millisecond; got < wait.Truncate(time.Millisecond) ||
		got > wait+policy.RetryMin {
		t.Errorf("the reporter is asked to wait for %s, and the next attempt is in %s", got, wait)
	}
	f.advance(wait)
	w.await(messages.AccessToken, c.Generation)
}

func TestWhatIsKnownIsAnsweredWithoutALease(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop() // a verdict is valid for some seconds
	w := f.worker(nil)
	c := w.await(messages.AccessToken, 0)
	w.mustReport(messages.RefreshCredentialRequest{Revision: c.Revision}, messages.ReasonAlive)
	leases, err := f.bucket("wechat").Watch(f.context(), "lease.*.*")
	if err != nil {
		t.Fatal(err)
	}
	for e := range leases.Updates() {
		if e == nil {
			break // the snapshot is complete
		}
	}
	for range 100 {
		w.mustReport(messages.RefreshCredentialRequest{Revision: c.Revision}, messages.ReasonAlive)
		madeUp := c.Revision + 1000
		w.mustReport(messages.RefreshCredentialRequest{Revision: madeUp}, messages.ReasonNotCurrent)
	}
	f.endLease("the.end") // what the watch delivers before this was written before it
	for e := range leases.Updates() {
		if e.Key() == "lease.the.end" {
			break
		}
		if len(e.Value()) > 0 {
			t.Errorf("a report took the lease %s", e.Key())
		}
	}
	_ = leases.Stop()
}

// WeChat refuses the account, which is not the fault of the request: the request may be sent again.
func TestRefusedAccountIsNoReasonToDropARequest(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(classic)
	f.wechat.Revoke(w.await(messages.AccessToken, 0).Value)
	f.wechat.Inject(wechattest.Fault{Endpoint: "token", Errcode: 40164})
	_, err := w.resolve()
	e := refusal(t, "a resolution", err, messages.NoCredential)
	if e.Errcode != 40164 {
		t.Errorf("the error has errcode %d, want WeChat's 40164", e.Errcode)
	}
	if e.RetryAfterMS == 0 {
		t.Error("the error does not say when to try again")
	}
}

// The AppSecret was reset: WeChat refuses the token, and refuses to issue another. That is one conflict, and
// the secret is tried rarely, whatever consumers report. A report of an operator, which names no value, is
// tried at once.
func TestResetSecretIsOneConflictAndNotSentAtEachReport(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	events := f.events()
	w := f.worker(classic)
	c := w.await(messages.AccessToken, 0)
	f.wechat.Revoke(c.Value)
	f.wechat.SetSecret(appid, "another")
	for report := range 4 {
		f.wechat.ClearFaults()
		if report == 2 { // an inconclusive verdict does not make the next refusal a new conflict
			f.wechat.Inject(wechattest.Fault{Endpoint: "get_api_domain_ip", Errcode: -1})
		}
		_, err := w.report(messages.RefreshCredentialRequest{Revision: c.Revision})
		checkSymbol(t, "a report of a consumer", err, messages.NoCredential)
		f.advance(2 * time.Minute)
	}
	f.checkCalls("token", 2)
	f.wechat.SetSecret(appid, secret)
	w.mustReport(messages.RefreshCredentialRequest{}, messages.ReasonRefreshed)
	conflicts := 0
	for e := events.any(); e.Event != messages.EventRecovered; e = events.any() {
		if e.Event == messages.EventConflict {
			conflicts++
		}
	}
	if conflicts != 1 {
		t.Errorf("%d events of a conflict, want 1", conflicts)
	}
}

// gatedUpstream holds back the probes until it is opened.
type gatedUpstream struct {
	turnUpstream
	probing chan struct{} // receives each probe
	open    chan struct{}
}

func (u *gatedUpstream) APIDomainIP(ctx context.Context, token string) ([]string, error) {
	select {
	case u.probing <- struct{}{}:
		<-u.open
	case <-u.open:
	}
	return u.turnUpstream.APIDomainIP(ctx, token)
}

// A consumer's report is refused, because WeChat has refused the account and a report does not change that. A
// report of an operator, which names no value and may mean that the cause is fixed, has other rules: it must
// not get that refusal because it arrived while the consumer's report was being answered.
func TestOperatorsReportDoesNotShareTheRefusalOfAConsumersReport(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	upstream := &gatedUpstream{probing: make(chan struct{}), open: make(chan struct{})}
	w := f.workerOn(f.connect(), classic, func(w *Worker) {
		upstream.turnUpstream, w.refresher.upstream = w.refresher.upstream, upstream
	})
	openAll := sync.OnceFunc(func() { close(upstream.open) })
	t.Cleanup(openAll)
	c := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	f.wechat.Revoke(c.Value)
	f.wechat.SetSecret(appid, "another")
	report := func(r messages.RefreshCredentialRequest) <-chan error {
		answered := make(chan error, 1)
		go func() {
			_, err := w.report(r)
			answered <- err
		}()
		return answered
	}
	// The first report makes WeChat refuse the account.
	first := report(messages.RefreshCredentialRequest{Revision: c.Revision})
	<-upstream.probing
	upstream.open <- struct{}{}
	checkSymbol(t, "the first report", <-first, messages.NoCredential)

	f.advance(2 * betweenForced)
	consumers := report(messages.RefreshCredentialRequest{Revision: c.Revision})
	<-upstream.probing
	f.wechat.SetSecret(appid, secret) // the operator fixes the cause, and reports
	operators := report(messages.RefreshCredentialRequest{})
	f.eventually("both reports are in flight", func() bool {
		w.refresher.reports.mu.Lock()
		defer w.refresher.reports.mu.Unlock()
		return len(w.refresher.reports.m) == 2
	})
	openAll()
	checkSymbol(t, "the consumer's report", <-consumers, messages.NoCredential)
	if err := <-operators; err != nil {
		t.Errorf("the operator's report was refused: %v", err)
	}
	f.checkValid(w.await(messages.AccessToken, c.Generation))
}

// The schedule and a report want the same turn. If the schedule does not get it, it must still be in time for
// the renewal of the value that the report brings.
func TestTurnThatAnotherTookDoesNotDelayTheNextRenewal(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(nil)
	c := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	key := messages.Key(appid, messages.AccessToken)
	planned := func(change func(*item)) time.Time {
		w.scheduler.mu.Lock()
		defer w.scheduler.mu.Unlock()
		it := w.scheduler.items[key]
		change(it)
		w.scheduler.plan(it)
		return it.next.At
	}
	// As after ErrLeaseHeld, with a lease that outlives the token.
	at := planned(func(it *item) { it.blockedUntil = c.ExpiresAt })
	if !at.Before(c.ExpiresAt) {
		t.Errorf("the renewal is planned at %s, and the token ends at %s", at, c.ExpiresAt)
	}
	// Due now, and the other worker still holds the lease.
	l := w.memory.ledger(key)
	l.LastAttempt = f.clock.Now().Add(-time.Minute)
	l.NextAttempt = l.LastAttempt
	w.memory.observeLedger(l)
	if at = planned(func(*item) {}); !at.Equal(c.ExpiresAt) {
		t.Errorf("the next turn is at %s, want %s: another worker holds the lease", at, c.ExpiresAt)
	}
	planned(func(it *item) { it.blockedUntil = time.Time{} })
}
