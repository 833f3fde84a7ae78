package policy

import (
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// budget limits calls: burst of them at once, and one more for each time that has passed since. What is used up of it
// is kept in the ledger as a time, the level: when the whole budget is there again. So the fleet shares it, and a
// restart does not renew it. The zero level is a whole budget.
type budget struct {
	burst int
	every time.Duration
}

// The budgets of one credential (docs/architecture.md#refresh-5, docs/architecture.md#refresh-10).
var (
	// scheduledCalls: at most 1,560 a day, less than the 2,000 that WeChat allows a new account, whatever expires_in
	// it answers.
	scheduledCalls = budget{burst: 120, every: time.Minute}
	// reportedRefreshes are for values that WeChat itself has refused. At most 1,450 a day.
	reportedRefreshes = budget{burst: 10, every: time.Minute}
	// forceRefreshes are calls with force_refresh: at most 18 of the 20 that WeChat allows a day.
	forceRefreshes = budget{burst: 6, every: 2 * time.Hour}
	// questions are probes: whether WeChat accepts a token.
	questions = budget{burst: 5, every: 10 * time.Second}
	// ownQuestions are probes after WeChat refused a call of a worker. They share the level of questions: consumers who
	// report without end leave as many to workers, which cannot be wrong about what WeChat answered.
	ownQuestions = budget{burst: 10, every: 10 * time.Second}
)

// next is when one more call is allowed; a time that has passed: now. Calls that do not ask for next may overdraw the
// budget. A level of more than twice the budget was written by a worker whose clock was ahead, and is ignored.
func (b budget) next(now, level time.Time) time.Time {
	whole := time.Duration(b.burst) * b.every
	if level.IsZero() || level.After(now.Add(2*whole+clockTolerance)) {
		return time.Time{}
	}
	return level.Add(b.every - whole)
}

// spend is the level after one more call.
func (b budget) spend(now, level time.Time) time.Time { return later(now, level).Add(b.every) }

// forcedGap is the least time between two refreshes that reports cause for a value that WeChat has not refused, or
// that the first of them did not replace.
const forcedGap = time.Minute

// forceGap is the least time between two calls with force_refresh: WeChat ignores a sooner one
// (docs/wechat-api.md#stable_token).
const forceGap = 30 * time.Second

// forcedAt is the time before which no report may cause a refresh. dead: WeChat itself refuses the current value. A
// dead value is replaced at once while the budget lasts, unless that has been tried already. When half of the quota
// of the day is used, the rest is spread evenly over the day, so that scheduled refreshes always find some.
func forcedAt(now time.Time, l store.Ledger, r Rule, dead bool) time.Time {
	if l.LastForced.IsZero() || l.LastForced.After(now.Add(clockTolerance)) {
		return time.Time{}
	}
	at := reportedRefreshes.next(now, l.ForcedPace)
	// FirstSeen has the precision of a record.
	tried := l.Attempts > 0 || l.LastForced.Truncate(time.Millisecond).After(l.FirstSeen)
	if !dead || tried {
		at = later(at, l.LastForced.Add(forcedGap))
	}
	quota := r.dailyQuota()
	if l.Day != day(now) || l.Calls <= quota/2 {
		return at
	}
	midnight := now.In(shanghai).Truncate(time.Second)
	midnight = time.Date(midnight.Year(), midnight.Month(), midnight.Day()+1, 0, 0, 0, 0, shanghai)
	const reserve = 10 // a tenth of the quota is never used for reports
	left := quota - quota/reserve - l.Calls
	if left <= 0 {
		return midnight
	}
	return later(at, l.LastForced.Add(midnight.Sub(now)/time.Duration(left)))
}

// replaceAt is when a value that WeChat refuses is refreshed, even if nobody reports it again. If WeChat's verdict is
// too old then, WeChat is asked again, so it is not before that is allowed.
func replaceAt(now time.Time, l store.Ledger, r Rule) time.Time {
	at := forcedAt(now, l, r, true)
	if later(at, now).Sub(l.Probe.At) < probeValid {
		return at
	}
	return later(at, QuestionAt(now, l, true))
}

// ThrottledUntil is until when a value that WeChat refuses has to wait for the budget of reported refreshes; zero: it
// has not to wait, or for another reason: a refresh has failed. c may be nil.
func ThrottledUntil(now time.Time, l store.Ledger, r Rule, c *messages.Credential) time.Time {
	if c == nil || !c.Valid(now) || !IsRefused(l, c) || l.Attempts > 0 {
		return time.Time{}
	}
	if at := forcedAt(now, l, r, true); at.After(now) {
		return at
	}
	return time.Time{}
}

// MayForce reports whether stable_token may be called with force_refresh now.
func MayForce(now time.Time, l store.Ledger) bool {
	return !forceRefreshes.next(now, l.HardPace).After(now) &&
		(!l.LastHardForced.Add(forceGap).After(now) || l.LastHardForced.After(now.Add(clockTolerance)))
}

// QuestionAt is when WeChat may be asked again whether it accepts the current token; a time that has passed: now.
// own: WeChat has refused a call of a worker.
func QuestionAt(now time.Time, l store.Ledger, own bool) time.Time {
	if own {
		return ownQuestions.next(now, l.ProbePace)
	}
	at := questions.next(now, l.ProbePace)
	if l.Probe != nil { // workers may have used more of the budget; consumers need not wait for that
		at = earlier(at, l.Probe.At.Add(questions.every))
	}
	return at
}

// Asked is the ledger entry after WeChat was asked about a token. p.At is the time before the question was sent. Only
// a question in vain uses the budget. That a token is dead answers all reports of it for some time, and the next token
// comes with a refresh, which has a budget of its own.
func Asked(l store.Ledger, p store.Probe) store.Ledger {
	l.Probe = &p
	if p.Verdict != store.Dead {
		l.ProbePace = questions.spend(p.At, l.ProbePace)
	}
	return l
}

// toldEvery is how often operators are told that the budget of reported refreshes is used up.
const toldEvery = time.Hour

// MustTell reports whether operators must be told now that a dead value has to wait for the budget.
func MustTell(now time.Time, l store.Ledger) bool {
	return !now.Before(l.ThrottledAt.Add(toldEvery)) || l.ThrottledAt.After(now.Add(clockTolerance))
}
