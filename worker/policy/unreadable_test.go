package policy

import (
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// A call after an unreadable classic answer may end the token that consumers have (docs/architecture.md#refresh-12).
func TestWaitAfterAnUnreadableAnswerKeepsTheTokenOfConsumers(t *testing.T) {
	t.Parallel()
	rec := record(5, t0, 2*time.Hour)
	dead := &store.Probe{At: t0, Generation: 5, Verdict: store.Dead}
	const life = 2 * time.Hour
	for name, tc := range map[string]struct {
		rule     Rule
		attempts int
		left     time.Duration // of the token; 0: none
		probe    *store.Probe
		from, to time.Duration
	}{
		"a token, and time":               {Classic, 1, 10 * time.Minute, nil, 210 * time.Second, 4 * time.Minute},
		"its end is near":                 {Classic, 1, time.Minute, nil, 37 * time.Second, 45 * time.Second},
		"its end is there":                {Classic, 1, time.Second, nil, RetryMin, RetryMin},
		"no token":                        {Classic, 1, 0, nil, time.Minute, 75 * time.Second},
		"its end is past":                 {Classic, 1, -time.Minute, nil, time.Minute, 75 * time.Second},
		"WeChat refuses it":               {Classic, 1, 10 * time.Minute, dead, time.Minute, 75 * time.Second},
		"the second time":                 {Classic, 2, 10 * time.Minute, nil, 2 * time.Minute, 150 * time.Second},
		"after many other failures":       {Classic, 9, 10 * time.Minute, nil, 210 * time.Second, 4 * time.Minute},
		"after many, its end is near":     {Classic, 9, time.Minute, nil, time.Minute, time.Minute},
		"after many, no token":            {Classic, 9, 0, nil, 10 * time.Minute, 750 * time.Second},
		"a stable token is repeated":      {Stable, 1, 4 * time.Minute, nil, RetryMin, 2 * RetryMin},
		"a ticket is repeated":            {Ticket, 1, 0, nil, RetryMin, 2 * RetryMin},
		"a stable token, after many":      {Stable, 9, 0, nil, RetryMin, RetryMin + retryMax},
		"a ticket is repeated after many": {Ticket, 9, 0, nil, RetryMin, RetryMin + retryMax},
	} {
		for _, random := range []float64{0, 0.5, 0.999} {
			l := store.Ledger{Attempts: tc.attempts, Generation: 5, Probe: tc.probe}
			if tc.left != 0 {
				l.ExpiresAt = t0.Add(tc.left)
				l.FirstSeen = l.ExpiresAt.Add(-life)
			}
			after := testPolicy(random).Fail(t0, View{Rule: tc.rule, Record: rec, Ledger: l},
				store.Failure{Class: wechat.ClassBroken}, 0)
			if wait := after.NextAttempt.Sub(t0); wait < tc.from || wait > tc.to {
				t.Errorf("%s, jitter %v: a wait of %s, want %s to %s", name, random, wait, tc.from, tc.to)
			}
			later := testPolicy(random).Fail(t0, View{Rule: tc.rule, Record: rec, Ledger: l},
				store.Failure{Class: wechat.ClassBroken}, time.Hour)
			if wait := later.NextAttempt.Sub(t0); wait < time.Hour {
				t.Errorf("%s: WeChat asked for a wait of an hour, got %s", name, wait)
			}
		}
	}
}

// Waits of minutes would be longer than the whole life of a token that lives for seconds, as in tests and the demo.
func TestWaitAfterAnUnreadableAnswerIsShorterForAShortLife(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		life, least, most time.Duration // most: after many attempts
	}{
		{2 * time.Hour, time.Minute, 10 * time.Minute}, {90 * time.Second, 6 * time.Second, 30 * time.Second},
		{time.Second, RetryMin, RetryMin},
	} {
		l := store.Ledger{Attempts: 1, Generation: 5, FirstSeen: t0.Add(-tc.life), ExpiresAt: t0}
		wait := func() time.Duration {
			after := testPolicy(0).Fail(t0, View{Rule: Classic, Ledger: l}, store.Failure{Class: wechat.ClassBroken}, 0)
			return after.NextAttempt.Sub(t0)
		}
		if got := wait(); got != tc.least {
			t.Errorf("a life of %s: a wait of %s, want %s", tc.life, got, tc.least)
		}
		if l.Attempts = 20; wait() != tc.most {
			t.Errorf("a life of %s: a wait of %s after many attempts, want %s", tc.life, wait(), tc.most)
		}
	}
}
