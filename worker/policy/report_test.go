package policy

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

func TestReportNamesAValueByItsRevisionOrItsHash(t *testing.T) {
	t.Parallel()
	c := record(5, t0, time.Hour)
	c.Revision = 17
	hash := messages.ValueSHA256(c.Value)
	for name, tc := range map[string]struct {
		report       Report
		names        bool
		fromOperator bool
	}{
		"the revision":         {Report{Revision: 17}, true, false},
		"another revision":     {Report{Revision: 16}, false, false},
		"the hash":             {Report{ValueSHA256: hash}, true, false},
		"another hash":         {Report{ValueSHA256: messages.ValueSHA256("other")}, false, false},
		"the revision decides": {Report{Revision: 16, ValueSHA256: hash}, false, false},
		"no value":             {Report{}, true, true},
	} {
		if got := tc.report.Names(c); got != tc.names {
			t.Errorf("%s: names the value: %t, want %t", name, got, tc.names)
		}
		if got := tc.report.FromOperator(); got != tc.fromOperator {
			t.Errorf("%s: sent by an operator: %t, want %t", name, got, tc.fromOperator)
		}
	}
}

// A report is answered from the ledger entry if that is enough (docs/architecture.md#refresh-5).
func TestAnswerFromTheLedgerEntry(t *testing.T) {
	t.Parallel()
	current := record(5, t0, 2*time.Hour)
	consumer, later := Report{ValueSHA256: messages.ValueSHA256(current.Value)}, Report{Revision: 1, SentAt: t0}
	longAgo := Report{Revision: 1, SentAt: t0.Add(-2 * time.Hour)}
	probed := func(verdict store.Verdict, ago time.Duration) store.Ledger {
		return store.Ledger{Generation: 5, Probe: &store.Probe{At: t0.Add(-ago), Generation: 5, Verdict: verdict}}
	}
	failed := func(class wechat.Class, next time.Duration) store.Ledger {
		return with(probed(store.Dead, 0), func(l *store.Ledger) {
			l.Attempts, l.NextAttempt = 1, t0.Add(next)
			l.Failure, l.Refused = &store.Failure{Class: class}, []string{"settings"}
		})
	}
	forced := with(probed(store.Dead, 0), func(l *store.Ledger) { l.LastForced = t0.Add(-forcedGap / 2) })
	forcedAndFailed := with(forced, func(l *store.Ledger) { l.Attempts, l.NextAttempt = 1, t0.Add(5*time.Second) })
	// outcome is an answer: a reason, or a refusal and the wait that it asks for. The zero outcome means: not
	// answered.
	type outcome struct {
		Reason messages.Reason
		Symbol messages.Symbol
		Retry  time.Duration
	}
	refused := func(symbol messages.Symbol, retry time.Duration) outcome {
		return outcome{Symbol: symbol, Retry: retry}
	}
	alive, operator := outcome{Reason: messages.ReasonAlive}, Report{}
	account, quota := failed(wechat.ClassAccount, time.Hour), failed(wechat.ClassDailyQuota, time.Hour)
	minuteQuota := failed(wechat.ClassMinuteQuota, time.Minute)
	for name, tc := range map[string]struct {
		ledger store.Ledger
		report Report
		want   outcome
	}{
		"never probed":                      {store.Ledger{}, consumer, outcome{}},
		"alive":                             {probed(store.Alive, 5*time.Second), consumer, alive},
		"alive, long ago":                   {probed(store.Alive, probeValid), consumer, outcome{}},
		"alive, asked as the call was sent": {probed(store.Alive, 0), later, alive},
		"alive, asked before that":          {probed(store.Alive, time.Millisecond), later, outcome{}},
		"alive, asked with a clock ahead":   {probed(store.Alive, -time.Second), consumer, alive},
		"alive, ahead of a timed call":      {probed(store.Alive, -time.Second), later, outcome{}},
		"alive, asked long after that":      {probed(store.Alive, time.Hour), longAgo, alive},
		"dead, asked before that":           {probed(store.Dead, time.Second), later, outcome{}},
		"dead":                              {probed(store.Dead, 0), consumer, outcome{}},
		"refreshed for a report":            {forced, consumer, refused(messages.Throttled, forcedGap/2)},
		"the refresh for a report failed":   {forcedAndFailed, consumer, refused(messages.Throttled, 5*time.Second)},
		"account refused":                   {account, consumer, refused(messages.NoCredential, time.Hour)},
		"account refused, operator":         {account, operator, outcome{}},
		"account refused, wait is over":     {failed(wechat.ClassAccount, 0), consumer, outcome{}},
		"daily quota used up":               {quota, consumer, refused(messages.QuotaExhausted, time.Hour)},
		"daily quota used up, operator":     {quota, operator, refused(messages.QuotaExhausted, time.Hour)},
		"minute quota used up":              {minuteQuota, consumer, refused(messages.Throttled, time.Minute)},
		"WeChat is busy":                    {failed(wechat.ClassBusy, time.Second), consumer, outcome{}},
	} {
		v := View{Rule: Classic, Ledger: tc.ledger, Settings: "settings"}
		reason, refusal := Answer(t0, v, "wx1.access_token", messages.AccessToken, current, tc.report)
		got := outcome{Reason: reason}
		if refusal != nil {
			got.Symbol, got.Retry = refusal.Symbol, time.Duration(refusal.RetryAfterMS)*time.Millisecond
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
