package policy

import (
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// A dead token that has waited for the budget is asked about again before its refresh. If WeChat may not be asked yet,
// the refresh is due when it may: not before, because a turn could only be taken in vain, again and again.
func TestRefreshOfADeadTokenIsDueWhenWeChatMayBeAsked(t *testing.T) {
	t.Parallel()
	p := &Policy{RefreshBefore: 5 * time.Minute, Random: func() float64 { return 0.5 }}
	rec := record(3, t0, 2*time.Hour)
	now := t0.Add(time.Hour)
	for name, tc := range map[string]struct {
		asked time.Duration // ago
		full  bool          // the budget of questions is used up
		wait  time.Duration
	}{
		"asked long ago":                       {time.Minute, false, 0},
		"asked just now":                       {time.Second, true, 0},
		"asked a while ago, and too often":     {probeValid, true, 10 * time.Second},
		"the answer is too old at the refresh": {probeValid - time.Millisecond, true, 0},
	} {
		l := store.Ledger{
			Generation: 3, FirstSeen: t0, ExpiresAt: t0.Add(2 * time.Hour), NextAttempt: rec.RefreshAt,
			Probe: &store.Probe{At: now.Add(-tc.asked), Generation: 3, Verdict: store.Dead},
		}
		if tc.full {
			l.ProbePace = now.Add(time.Duration(ownQuestions.burst) * questions.every)
		}
		d := p.Next(now, View{Rule: Classic, Record: rec, Held: rec, Ledger: l})
		if wait := max(d.At.Sub(now), 0); wait != tc.wait {
			t.Errorf("%s: the refresh waits for %s, want %s", name, wait, tc.wait)
		}
		if want := messages.ReasonReported; tc.wait == 0 && (d.Action != Fetch || d.Reason != want) {
			t.Errorf("%s: the decision is %v, %s", name, d.Action, d.Reason)
		}
	}
}
