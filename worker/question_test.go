package worker

import (
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// A report that says when its call was sent is answered by what WeChat said after that, and costs no question.
func TestReportOfAnEarlierCallIsAnsweredByWhatWeChatSaidSince(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(nil)
	c := w.await(messages.AccessToken, 0)
	sent := f.clock.Now()
	f.advance(time.Second)
	w.mustReport(messages.RefreshCredentialRequest{Revision: c.Revision}, messages.ReasonAlive)
	f.advance(20 * time.Second)
	for range 20 {
		w.mustReport(messages.RefreshCredentialRequest{Revision: c.Revision, SentAt: sent}, messages.ReasonAlive)
	}
	f.checkCalls("get_api_domain_ip", 1)
	for name, sent := range map[string]time.Time{
		"in the future": f.clock.Now().Add(time.Hour), "long ago": f.clock.Now().Add(-time.Hour),
	} {
		calls := f.calls("get_api_domain_ip")
		f.advance(time.Second)
		w.mustReport(messages.RefreshCredentialRequest{Revision: c.Revision, SentAt: sent}, messages.ReasonAlive)
		if f.calls("get_api_domain_ip") != calls+1 {
			t.Errorf("a call sent %s does not count as sent when its report arrives", name)
		}
	}
}

// A consumer that reports a live token without end costs a burst of questions, and then one in ten seconds. A report
// waits for its question; if that comes too late, the reply says when to ask again.
func TestStubbornReporterCostsAQuestionInTenSeconds(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(nil)
	c := w.await(messages.AccessToken, 0)
	report := messages.RefreshCredentialRequest{Revision: c.Revision}
	for range 5 {
		w.mustReport(report, messages.ReasonAlive)
		f.advance(time.Millisecond)
	}
	_, err := w.report(report)
	e := refusal(t, "the report after the burst", err, messages.Throttled)
	if wait := time.Duration(e.RetryAfterMS) * time.Millisecond; wait < 9*time.Second || wait > 10*time.Second {
		t.Errorf("the reporter is asked to wait for %s", wait)
	}
	for range 50 {
		if _, err := w.report(report); symbol(err) != messages.Throttled {
			t.Errorf("a further report is answered with %v", err)
		}
	}
	f.checkCalls("get_api_domain_ip", 5)
	f.advance(10 * time.Second)
	w.mustReport(report, messages.ReasonAlive)
	f.checkCalls("get_api_domain_ip", 6)
	f.checkCalls("stable_token", 1)
}

// The question that a report waits for is asked, and heals the token.
func TestReportWaitsForItsQuestion(t *testing.T) {
	t.Parallel()
	f := newFixture(t, noOverlap)
	f.clock.stop()
	w := f.worker(classic)
	c := w.await(messages.AccessToken, 0)
	for range 5 {
		w.mustReport(messages.RefreshCredentialRequest{Revision: c.Revision}, messages.ReasonAlive)
		f.advance(time.Millisecond)
	}
	f.wechat.Revoke(c.Value)
	f.advance(9 * time.Second) // a second is left, and the clock stands still
	waiting := make(chan error, 1)
	go func() {
		_, err := w.report(messages.RefreshCredentialRequest{Revision: c.Revision})
		waiting <- err
	}()
	f.eventually("the report waits", func() bool {
		w.memory.mu.Lock()
		defer w.memory.mu.Unlock()
		return w.memory.of(messages.Key(appid, messages.AccessToken)).replaced != nil
	})
	f.checkCalls("get_api_domain_ip", 5)
	f.clock.advance(time.Second)
	if err := <-waiting; err != nil {
		t.Errorf("the report: %v", err)
	}
	f.checkCalls("token", 2)
}

// A consumer that reports a live token without end does not delay the resolutions when the token dies.
func TestStubbornReporterDoesNotDelayAResolution(t *testing.T) {
	t.Parallel()
	f := newFixture(t, noOverlap)
	f.clock.stop()
	w := f.worker(classic)
	c := w.await(messages.AccessToken, 0)
	report := messages.RefreshCredentialRequest{Revision: c.Revision}
	for range 5 {
		w.mustReport(report, messages.ReasonAlive)
		f.advance(time.Millisecond)
	}
	_, err := w.report(report)
	checkSymbol(t, "the report after the burst", err, messages.Throttled)
	f.wechat.Revoke(c.Value)
	if _, err := w.resolve(); err != nil {
		t.Errorf("the resolution: %v", err)
	}
	f.checkValid(w.await(messages.AccessToken, c.Generation))
}

// The clock of the worker is set back between the refused call and its report. WeChat's answer counts nevertheless.
func TestClockThatIsSetBackDoesNotMakeALiveTokenDead(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(classic)
	c := w.await(messages.AccessToken, 0)
	for _, back := range []time.Duration{time.Second, time.Hour} {
		report := policy.Report{Revision: c.Revision, SentAt: f.clock.Now().Add(back)}
		o, err := w.refresher.report(f.context(), w.accounts.get(appid), messages.AccessToken, report)
		if err != nil || o.reason != messages.ReasonAlive {
			t.Errorf("set back by %s: the outcome is %q, %v", back, o.reason, err)
		}
	}
	f.checkCalls("token", 1)
	f.checkCalls("get_api_domain_ip", 2)
}
