package policy

import (
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// kills lives through deaths of a classic token, one every interval: WeChat is asked about each, and it is replaced as
// soon as a report may cause that. It returns how many deaths had to wait, and the calls of each day.
func kills(interval, duration time.Duration) (waited int, calls map[string]int) {
	p := &Policy{RefreshBefore: 5 * time.Minute, Random: func() float64 { return 0.5 }}
	start := time.Date(2026, 1, 2, 0, 0, 0, 0, shanghai)
	l := store.Ledger{Generation: 1, FirstSeen: start, ExpiresAt: start.Add(2 * time.Hour)}
	calls = make(map[string]int)
	for now := start.Add(interval); now.Before(start.Add(duration)); now = now.Add(interval) {
		rec := record(l.Generation, l.FirstSeen, 2*time.Hour)
		l = Asked(l, store.Probe{At: now, Generation: l.Generation, Verdict: store.Dead})
		if until := ThrottledUntil(now, l, Classic, rec); !until.IsZero() {
			waited++
			continue // it is killed again before it is replaced
		}
		sent := now.Add(20 * time.Millisecond)
		l = p.Begin(now, View{Rule: Classic, Record: rec, Ledger: l}, messages.ReasonReported, false)
		l.Generation, l.FirstSeen, l.ExpiresAt = l.Generation+1, sent, sent.Add(2*time.Hour)
		l.Attempts, l.LastSuccess = 0, now
		calls[l.Day] = l.Calls
	}
	return waited, calls
}

// A token that is killed again and again is replaced at once while the budget lasts, and the budget stays within what
// the quota of the day spares.
func TestDeadTokenIsReplacedAtOnceWhileTheBudgetLasts(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		interval, duration time.Duration
		waits              bool
		least, most        int // calls of a day
	}{
		"five times in a minute":           {12 * time.Second, time.Minute, false, 4, 4},
		"every second, ten times":          {time.Second, 11 * time.Second, false, 10, 10},
		"every minute for two days":        {time.Minute, 48 * time.Hour, false, 1400, 1440},
		"every ten seconds for two days":   {10 * time.Second, 48 * time.Hour, true, 1400, 1800},
		"every second for a day":           {time.Second, 24 * time.Hour, true, 1400, 1800},
		"at each renewal of another, 2 h":  {2 * time.Hour, 48 * time.Hour, false, 11, 12},
		"twice, ten seconds apart":         {10 * time.Second, 21 * time.Second, false, 2, 2},
		"every half a minute, for an hour": {30 * time.Second, time.Hour, true, 60, 70},
	} {
		waited, calls := kills(tc.interval, tc.duration)
		if (waited > 0) != tc.waits {
			t.Errorf("%s: %d deaths had to wait", name, waited)
		}
		for day, n := range calls {
			if n < tc.least || n > tc.most {
				t.Errorf("%s: %d calls on %s, want %d to %d", name, n, day, tc.least, tc.most)
			}
		}
	}
}

// A value that WeChat has not refused, and one that a refresh did not replace, is refreshed for reports once a minute.
func TestOnlyADeadValueUsesTheBurst(t *testing.T) {
	t.Parallel()
	l := store.Ledger{Generation: 5, FirstSeen: t0, LastForced: t0, ForcedPace: t0.Add(time.Minute)}
	now := t0.Add(time.Second)
	if at := forcedAt(now, l, Classic, true); at.After(now) {
		t.Errorf("a value that died after the last refresh waits until %s", at)
	}
	if at := forcedAt(now, l, Classic, false); !at.Equal(t0.Add(forcedGap)) {
		t.Errorf("a value that WeChat did not refuse is refreshed again at %s", at)
	}
	l.LastForced = t0.Add(5 * time.Millisecond)
	if at := forcedAt(now, l, Classic, true); !at.Equal(l.LastForced.Add(forcedGap)) {
		t.Errorf("a value that the last refresh did not replace is refreshed again at %s", at)
	}
}

// A clock that was ahead when it wrote the levels does not stop anything.
func TestLevelsFromTheFutureAreIgnored(t *testing.T) {
	t.Parallel()
	ahead := t0.Add(48 * time.Hour)
	l := store.Ledger{
		LastForced: ahead, ForcedPace: ahead, LastHardForced: ahead, HardPace: ahead, ProbePace: ahead, Pace: ahead,
	}
	if at := forcedAt(t0, l, Classic, true); at.After(t0) {
		t.Errorf("a report may cause a refresh at %s", at)
	}
	if at := QuestionAt(t0, l, false); at.After(t0) {
		t.Errorf("WeChat may be asked at %s", at)
	}
	if at := earliestCall(t0, l); at.After(t0) {
		t.Errorf("a scheduled call may be made at %s", at)
	}
	if !MayForce(t0, l) {
		t.Error("stable_token may not be called with force_refresh")
	}
}

// WeChat allows 20 calls a day with force_refresh, at least 30 s apart.
func TestForceRefreshHasABudgetOfItsOwn(t *testing.T) {
	t.Parallel()
	p := &Policy{RefreshBefore: 5 * time.Minute, Random: func() float64 { return 0.5 }}
	var l store.Ledger
	day := make(map[string]int)
	last := time.Time{}
	for now := t0; now.Before(t0.Add(72 * time.Hour)); now = now.Add(10 * time.Second) {
		if !MayForce(now, l) {
			continue
		}
		if now.Sub(last) < forceGap {
			t.Fatalf("force_refresh %s after the last one", now.Sub(last))
		}
		last = now
		l = p.Begin(now, View{Rule: Stable, Ledger: l}, messages.ReasonReported, true)
		day[l.Day] = l.HardForced
	}
	for d, n := range day {
		if n > 18 {
			t.Errorf("%d calls with force_refresh on %s", n, d)
		}
	}
}

func TestQuestionsAreABurstAndThenOneInTenSeconds(t *testing.T) {
	t.Parallel()
	var l store.Ledger
	asked := 0
	for now := t0; now.Before(t0.Add(time.Minute)); now = now.Add(100 * time.Millisecond) {
		if !QuestionAt(now, l, false).After(now) {
			l = Asked(l, store.Probe{At: now})
			asked++
		}
	}
	if asked != 5+5 {
		t.Errorf("WeChat was asked %d times in a minute, want a burst of 5 and one in ten seconds", asked)
	}
}

// A consumer that reports without end leaves questions to the workers, whose calls WeChat has refused itself. When they
// have used those, a consumer still waits ten seconds at most.
func TestConsumersLeaveQuestionsToWorkers(t *testing.T) {
	t.Parallel()
	var l store.Ledger
	ask := func(own bool) (asked int) {
		for ; !QuestionAt(t0, l, own).After(t0); asked++ {
			l = Asked(l, store.Probe{At: t0})
		}
		return asked
	}
	if consumers, workers := ask(false), ask(true); consumers != 5 || workers != 5 {
		t.Errorf("consumers have asked %d questions, and workers %d after that", consumers, workers)
	}
	for _, own := range []bool{false, true} {
		if wait := QuestionAt(t0, l, own).Sub(t0); wait != 10*time.Second {
			t.Errorf("own %t: the next question waits for %s", own, wait)
		}
	}
	now := t0
	for range 1000 { // consumers ask whenever they may
		now = later(now, QuestionAt(now, l, false))
		l = Asked(l, store.Probe{At: now})
	}
	if end := t0.Add(1000 * 10 * time.Second); !l.Probe.At.Equal(end) || l.ProbePace.Sub(end) > 100*time.Second {
		t.Errorf("after 1,000 questions it is %s, and the level %s", l.Probe.At, l.ProbePace)
	}
}
