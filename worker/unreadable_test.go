package worker

import (
	"errors"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// unreadable are answers with a new token that nobody can read.
var unreadable = map[string]wechattest.Fault{
	"compressed":      {Body: "gzip", After: true},
	"cut off":         {Body: "cut", After: true},
	"truncated":       {Body: "truncated", After: true},
	"too long":        {Body: "huge", After: true},
	"a page":          {Body: "html", After: true},
	"binary":          {Body: "binary", After: true},
	"without a token": {Body: "no_value", After: true},
	"without a life":  {Body: "zero_life", After: true},
}

// With the classic interface each call ends the token before the last one. While consumers have a token, the call after
// an unreadable answer comes shortly before WeChat's five minutes are over: the token of consumers is alive until then,
// and a report ends it no sooner (docs/architecture.md#refresh-12).
func TestUnreadableAnswerCostsNoSecondToken(t *testing.T) {
	t.Parallel()
	for name, fault := range unreadable {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, wechattest.Config{})
			f.clock.stop()
			events := f.events()
			first := f.seed(messages.SourceToken)
			fault.Endpoint = "token"
			f.wechat.Inject(fault)
			w := f.worker(classic)
			failed := events.next(messages.EventFailed)
			if failed.Class != "broken" {
				t.Errorf("the class is %q, want broken", failed.Class)
			}
			w.awaitIdle()
			next := w.planned(messages.AccessToken)
			if wait := next.Sub(f.clock.Now()); wait < 3*time.Minute || wait > 4*time.Minute {
				t.Errorf("WeChat is asked again after %s, want 3 to 4 min", wait)
			}
			// A consumer reports the token, and the same relay spoils the answer to the probe too.
			f.wechat.Inject(wechattest.Fault{Endpoint: "get_api_domain_ip", Body: "gzip"})
			_, err := w.report(messages.RefreshCredentialRequest{AppID: appid, Revision: first.Revision})
			var refusal *messages.Error
			if !errors.As(err, &refusal) || refusal.Symbol != messages.Upstream || refusal.RetryAfterMS <= 0 {
				t.Errorf("the reply to a report is %v", err)
			}
			f.checkCalls("token", 1)
			f.advanceTo(next.Add(-time.Millisecond))
			f.checkValid(first)

			f.wechat.ClearFaults()
			f.advanceTo(next)
			events.next(messages.EventRecovered)
			f.checkCalls("token", 2)
			f.checkValid(w.await(messages.AccessToken, first.Generation))
		})
	}
}

// Without a token there is none to lose; but an answer that cannot be read is seldom readable a second later.
func TestUnreadableAnswersAreSpacedByMinutes(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	events := f.events()
	f.wechat.Inject(wechattest.Fault{Endpoint: "token", Body: "gzip", After: true})
	w := f.worker(classic)
	for attempt, minutes := range []int{1, 2, 4, 8, 10, 10} {
		events.next(messages.EventFailed)
		w.awaitIdle()
		f.checkCalls("token", attempt+1)
		next := w.planned(messages.AccessToken)
		least := time.Duration(minutes) * time.Minute
		if wait := next.Sub(f.clock.Now()); wait < least || wait > least+least/4 {
			t.Errorf("attempt %d is followed by the next one after %s, want %s to %s", attempt+1, wait, least, least+least/4)
		}
		f.advanceTo(next)
	}
}
