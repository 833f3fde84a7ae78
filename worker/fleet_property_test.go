package worker

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// mishaps are what may happen while clocks are right and WeChat follows its rules; anything is all that may happen.
var (
	mishaps  = mischief{die: true, freeze: true, cut: true, idle: true, lose: true, replay: true}
	anything = mischief{
		die: true, freeze: true, cut: true, idle: true, lose: true, replay: true, fail: true, report: true, forget: true,
		foreign: true, odd: true, skew: 3 * time.Hour,
	}
)

// lives draws the lives of fleets, and lets watch add what must be true in them.
func lives(t *testing.T, may mischief, events int, watch func(*fleet)) {
	t.Helper()
	drawn := 0
	rapid.Check(t, func(t *rapid.T) {
		if drawn++; raceEnabled && drawn > 10 {
			return
		}
		f := newFleet(t, may)
		defer f.end()
		watch(f)
		f.run(48*time.Hour, events)
	})
}

// Whatever happens, no worker tries to publish a value that has expired by its own clock
// (docs/architecture.md#refresh-3).
func TestNeverPublishesExpired(t *testing.T) {
	t.Parallel()
	lives(t, anything, 200, func(f *fleet) {
		f.choosing = func(w *virtualWorker, c messages.Credential) {
			decided := w.now()
			if !w.chose.IsZero() { // before its ledger entry was written
				decided = w.chose
			}
			if !c.Valid(decided) {
				f.violated("%s would publish what has expired: %v", w.name, c)
			}
		}
	})
}

// While clocks are right, no record says that a token lives longer than WeChat accepts it
// (docs/architecture.md#refresh-9).
func TestNoTokenOutlivesItsEnd(t *testing.T) {
	t.Parallel()
	may := anything
	may.odd, may.skew = false, 0
	lives(t, may, 200, func(f *fleet) {
		f.publishing = func(w *virtualWorker, c messages.Credential) {
			if end := f.wechat.ended[c.Value]; f.wechat.rule != policy.Ticket && c.ExpiresAt.After(end) {
				f.violated("%s publishes %s, which WeChat ends at %s: %v", w.name, c.Value, f.since(end), c)
			}
		}
	})
}

// While the ledger entry exists, the generations of a key never decrease, and each is given to one value
// (docs/architecture.md#bucket), unless WeChat issues no other value than the older one that a worker holds. If the
// entry is lost, or could not be written, a worker still publishes nothing older than what it holds.
func TestGenerationNeverDecreases(t *testing.T) {
	t.Parallel()
	lives(t, anything, 200, func(f *fleet) {
		f.may.forget = rapid.Bool().Draw(f.T, "the ledger may be lost")
		newest, values := uint64(0), map[uint64]string{}
		f.publishing = func(w *virtualWorker, c messages.Credential) {
			held := w.memory.held("wx1", f.kind)
			switch {
			case held != nil && held.Valid(w.now()) && c.Generation < held.Generation:
				f.violated("%s publishes generation %d and holds %d", w.name, c.Generation, held.Generation)
			case f.may.forget, f.unwritten, f.nats.Ledger(f.key()).Attempts > 0:
				return
			case c.Generation < newest:
				f.violated("%s publishes generation %d after %d", w.name, c.Generation, newest)
			case values[c.Generation] != "" && values[c.Generation] != c.Value:
				f.violated("%s gives generation %d to %s, which was that of %s", w.name, c.Generation, c.Value,
					values[c.Generation])
			}
			newest, values[c.Generation] = max(newest, c.Generation), c.Value
		}
	})
}

// WeChat is asked once for each planned time, however many workers there are and whatever happens to them. A mishap
// costs one more call, and another one if a token was minted and its lease was lost (docs/architecture.md#refresh-1,
// docs/architecture.md#refresh-2).
func TestAtMostOneRefreshPerDueWindow(t *testing.T) {
	t.Parallel()
	may := mishaps
	lives(t, may, 200, func(f *fleet) {
		early := 0
		planned := time.Time{}
		f.callMade = func(c *call) {
			if c.at.Before(planned) {
				early++
			}
			if early > 2*f.mishaps {
				f.violated("%s asks WeChat, though the last answer said to ask at %s; %d such calls after %d mishaps",
					c.worker, f.since(planned), early, f.mishaps)
			}
		}
		f.settling = func(next time.Time) { planned = next }
	})
}

// While WeChat fails, every worker hands out the last value until its end, though workers come and go and some of them
// lose NATS. If the bucket loses the record, a worker that holds the value publishes it again
// (docs/architecture.md#refresh-3, docs/architecture.md#refresh-7).
func TestOldValueServedWhileRefreshFails(t *testing.T) {
	t.Parallel()
	may := mishaps
	may.idle = false
	lives(t, may, 150, func(f *fleet) {
		busy := func(w *virtualWorker) bool { return w.next != nil }
		for f.record() == nil || slices.ContainsFunc(f.workers, busy) {
			f.event()
		}
		f.mishaps, f.calm = 0, f.now
		f.wechat.fails(rapid.SampledFrom(f.classes()).Draw(f.T, "class"), 100*time.Hour)
		old := *f.record()
		f.check = func() {
			if !f.now.Before(old.ExpiresAt.Add(-time.Second)) {
				return
			}
			holders := 0
			for _, w := range f.workers {
				if c, err := w.memory.get("wx1", f.kind); err == nil && c.Value == old.Value {
					holders++
				} else if f.record() != nil && !f.now.Before(f.calm) {
					f.violated("%s does not hand out %v", w.name, old)
				}
			}
			switch r := f.record(); {
			case r != nil && r.Value != old.Value:
				f.violated("the record is %v instead of %v", *r, old)
			case r == nil && holders > 0 && f.now.After(f.calm.Add(time.Minute)):
				f.violated("no worker publishes %v again, and %d workers hold it", old, holders)
			}
		}
	})
}

// The attempts after failures are spaced as their class says, for the whole fleet: never earlier, and never much later
// (docs/architecture.md#refresh-4).
func TestBackoffGapsGrowAndCap(t *testing.T) {
	t.Parallel()
	lives(t, mischief{fail: true}, 200, func(f *fleet) {
		f.callMade = func(c *call) {
			if len(f.calls) < 2 {
				return
			}
			last := f.calls[len(f.calls)-2]
			if last.class == 0 {
				return
			}
			least, most := f.spacing(last)
			// for the steps of a turn, and a lease
			if gap := c.at.Sub(last.at); gap+begins < least || gap > most+time.Minute {
				f.violated("try %d comes %s after a failure of class %s, want %s to %s", last.ledger.Attempts+2, gap,
					last.class, least, most)
			}
		}
	})
}

// begins is how long a turn that is not disturbed takes at most from its beginning, which spacing counts from,
// to its call.
const begins = 500 * time.Millisecond

// spacing is the time in which the attempt after a failed call comes.
func (f *fleet) spacing(c *call) (least, most time.Duration) {
	n := c.ledger.Attempts + 1 // it is the n-th failure in a row
	grown := func(lo, hi time.Duration) time.Duration { return min(lo<<min(n-1, 10), hi) }
	neverIssued := c.ledger.Kind != messages.AccessToken && c.ledger.Generation == 0
	if c.class == wechat.ClassPermission && neverIssued {
		return 24 * time.Hour, 25 * time.Hour
	}
	switch c.class {
	case wechat.ClassAccount, wechat.ClassPermission, wechat.ClassBug:
		d := grown(10*time.Minute, time.Hour)
		return d, d + d/4
	case wechat.ClassDailyQuota:
		return time.Hour, time.Hour + 15*time.Minute
	case wechat.ClassMinuteQuota:
		return time.Second, time.Minute + grown(10*time.Second, time.Minute)
	case wechat.ClassUnknown, wechat.ClassRequest:
		d := grown(time.Minute, 30*time.Minute)
		return d, d + d/4
	case wechat.ClassBroken:
		if f.wechat.rule != policy.Classic {
			break
		}
		// A token that WeChat may still accept is not ended by a quick retry.
		lo, hi := time.Minute, 10*time.Minute
		if life := c.ledger.ExpiresAt.Sub(c.ledger.FirstSeen); life > 0 {
			lo, hi = max(time.Second, min(lo, life/15)), max(time.Second, min(hi, life/3))
		}
		d := grown(lo, hi)
		if n > 1 || policy.HasExpired(c.at, c.ledger) || c.ledger.Generation == 0 {
			return lo, d + d/4
		}
		left := c.ledger.ExpiresAt.Sub(c.at)
		return min(3*time.Minute, left/2), 4 * time.Minute
	}
	return time.Second, time.Second + grown(time.Second, time.Minute)
}

// A worker that starts does not repeat at once what another worker was told to wait with. A worker that died during a
// turn counts as a failure (docs/architecture.md#refresh-4).
func TestRestartKeepsBackoff(t *testing.T) {
	t.Parallel()
	lives(t, mischief{fail: true, die: true}, 200, func(f *fleet) {
		f.callMade = func(c *call) {
			if len(f.calls) < 2 {
				return
			}
			last := f.calls[len(f.calls)-2]
			least, gap := time.Second, c.at.Sub(last.at)
			if last.noted {
				least, _ = f.spacing(last)
			}
			if gap+begins < least {
				f.violated("%s asks WeChat %s after a call of %s that failed with class %s, want %s or more", c.worker,
					gap, last.worker, last.class, least)
			}
		}
	})
}

// No answer of WeChat, no setting and no mishap causes a storm of calls (docs/architecture.md#refresh-10). Budgets
// limit the scheduled calls of any period, and the calls for reports, of which one may need two. Two scheduled calls
// are a second apart, except for the steps of a turn.
func TestNoAnswerMakesAStorm(t *testing.T) {
	t.Parallel()
	watch := func(f *fleet) {
		forced := 0
		f.callMade = func(c *call) {
			if c.forced {
				forced++
			}
			d := f.now.Sub(f.began)
			if n := len(f.calls) - forced; n > 120+1+int(d/time.Minute) {
				f.violated("%d scheduled calls in %s", n, d)
			}
			if forced > 2*(10+int(d/time.Minute)) {
				f.violated("%d calls in %s for reports", forced, d)
			}
			if len(f.calls) > 1 && !c.forced {
				if gap := c.at.Sub(f.calls[len(f.calls)-2].at); gap+2*begins < policy.MinGap {
					f.violated("two calls are %s apart", gap)
				}
			}
		}
	}
	t.Run("answers", func(t *testing.T) {
		t.Parallel()
		lives(t, mischief{odd: true, fail: true, report: true, brisk: true}, 400, watch)
	})
	t.Run("mishaps", func(t *testing.T) {
		t.Parallel()
		may := anything
		may.forget, may.skew, may.idle = false, 0, false // a lost ledger entry is also the memory of the calls
		lives(t, may, 200, watch)
	})
}

// While WeChat answers, no consumer is without a valid value after it had one, and few calls are made; also
// while workers come, go, freeze and lose NATS, each for less than the time that is reserved for that.
func TestNoGapWhileWeChatAnswers(t *testing.T) {
	t.Parallel()
	watch := func(f *fleet) {
		if !f.may.brisk {
			f.policy.RefreshBefore = max(f.policy.RefreshBefore, 10*time.Minute)
		}
		var consumer messages.Credential
		f.check = func() {
			if r := f.record(); r != nil && r.Generation >= consumer.Generation {
				consumer = *r
			}
			if consumer.Generation > 0 && !consumer.Valid(f.now) {
				f.violated("consumers have nothing but %v", consumer)
			}
			lived := float64(f.now.Sub(f.began)) / float64(f.wechat.life)
			if f.may.brisk && f.wechat.rule != policy.Ticket && float64(len(f.calls)) > 2+1.6*lived {
				f.violated("%d calls in %.1f lives", len(f.calls), lived)
			}
		}
	}
	t.Run("calm", func(t *testing.T) {
		t.Parallel()
		lives(t, mischief{brisk: true}, 200, watch)
	})
	t.Run("mishaps", func(t *testing.T) {
		t.Parallel()
		lives(t, mischief{die: true, freeze: true, cut: true, lose: true, longest: 30 * time.Second, most: 4}, 200,
			watch)
	})
}

// A late writer never wins (docs/architecture.md#refresh-2): a minute after a mishap, the published token is one that
// WeChat accepts, though workers have minted tokens that they could not publish, or published late.
func TestPublishedTokenIsTheOneThatWeChatAccepts(t *testing.T) {
	t.Parallel()
	lives(t, mishaps, 200, func(f *fleet) {
		f.policy.RefreshBefore = max(f.policy.RefreshBefore, 10*time.Minute)
		f.calm = f.now
		f.check = func() {
			if !f.now.After(f.calm.Add(time.Minute)) {
				return
			}
			switch r := f.record(); {
			case r == nil:
				f.violated("there is no record")
			case f.wechat.rule != policy.Ticket && !f.wechat.accepts(r.Value):
				f.violated("%v is published, and WeChat accepts %s", *r, f.wechat.value)
			}
		}
	})
}

// An attempt that could not be made, because NATS left too little time of the lease, is taken back: WeChat has
// not failed, and has not been called. See virtualWorker.checkTurn, which checks every turn of every test.
func TestAttemptThatWasNotMadeIsTakenBack(t *testing.T) {
	t.Parallel()
	lives(t, mischief{slow: true}, 200, func(*fleet) {})
}

// A lost record is left to a worker that holds its value: a worker without the value does not call WeChat for 8
// s, because its call would be wasted, and with the classic interface would kill that value
// (docs/architecture.md#refresh-7).
func TestLostRecordIsLeftToTheOthers(t *testing.T) {
	t.Parallel()
	lives(t, mischief{die: true, lose: true, freeze: true, longest: 3 * time.Second}, 200, func(f *fleet) {
		f.check = func() { // reports arrive while the record is lost
			if f.record() == nil && f.now.Sub(f.lostRecord) < 7*time.Second {
				f.workers[rapid.IntRange(0, len(f.workers)-1).Draw(f.T, "reported to")].report()
			}
		}
		f.calling = func(w *virtualWorker, c *call) {
			l := c.ledger
			if f.record() != nil || f.now.Sub(f.lostRecord) > 7*time.Second || policy.HasExpired(f.now, l) ||
				l.Attempts > 0 || !l.NextAttempt.After(f.now) {
				return
			}
			if w.turnCalls > 0 { // it has lost its lease: one more refresh makes the published token the newest
				return
			}
			if w.frozenUntil.After(f.lostRecord) { // it slept through the end of an earlier loss, and counts from that
				return
			}
			if _, err := w.memory.get("wx1", f.kind); err == nil {
				return
			}
			for _, o := range f.workers {
				if held, err := o.memory.get("wx1", f.kind); err == nil && o != w &&
					messages.ValueSHA256(held.Value) == l.ValueSHA256 {
					f.violated("%s calls WeChat %s after the record was lost, and %s holds it", w.name,
						f.now.Sub(f.lostRecord), o.name)
				}
			}
		}
	})
}

// A ledger entry that the bucket has lost is written again by a worker that remembers it, and nothing of it is
// forgotten; see also virtualWorker.wrote, which checks every write of every test.
func TestLostLedgerEntryIsWrittenAgain(t *testing.T) {
	t.Parallel()
	lives(t, mischief{forget: true, replay: true, lose: true, fail: true, report: true}, 200, func(f *fleet) {
		f.check = func() {
			if l := f.nats.Ledger(f.key()); !l.IsEmpty() || f.now.Before(f.lostEntry.Add(time.Minute)) {
				return
			}
			for _, w := range f.workers {
				if !w.known.IsEmpty() {
					f.violated("the ledger entry was lost at %s, %s remembers it, and nobody writes it again",
						f.since(f.lostEntry), w.name)
				}
			}
		}
	})
}
