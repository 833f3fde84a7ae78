package worker

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wxkeeper/wxkeeper/messages"
)

// runUntil runs the fleet until a time.
func (f *fleet) runUntil(end time.Time) {
	for f.now.Before(end) {
		next := end
		for _, w := range f.workers {
			if at, ok := w.wakes(); ok && at.Before(next) {
				next = at
			}
		}
		if !next.Before(end) {
			f.pass(end.Sub(f.now))
			f.deliver()
			return
		}
		f.event()
		if f.broken != "" {
			f.Fatal(f.clock(), f.broken)
		}
	}
}

// killed lives a day in which another system kills the token again and again, and a consumer reports it each time.
// healed is called before the next kill with whether WeChat accepts the published token.
func (f *fleet) killed(every time.Duration, healed func(bool)) {
	f.runUntil(f.began.Add(time.Minute))
	for f.now.Before(f.began.Add(24 * time.Hour)) {
		next := f.now.Add(every)
		f.wechat.foreign()
		for _, w := range f.workers {
			if w.next == nil {
				w.report()
				break
			}
		}
		f.runUntil(next)
		c := f.record()
		healed(c != nil && f.wechat.accepts(c.Value))
	}
}

// days draws fleets that keep a token, and lets them live days in which it is killed.
func days(t *testing.T, day func(*fleet)) {
	t.Helper()
	lived, most := 0, 3
	if raceEnabled {
		most = 1
	}
	rapid.Check(t, func(t *rapid.T) {
		f := newFleet(t, mischief{brisk: true})
		defer f.end()
		if lived >= most || f.kind != messages.AccessToken {
			return
		}
		lived++
		day(f)
	})
}

// A system that fetches a token each minute kills 1,440 tokens a day. Each is replaced before the next one is killed,
// within the quota of a new account (docs/architecture.md#refresh-5).
func TestTokenThatIsKilledEachMinuteIsHealedEachTime(t *testing.T) {
	t.Parallel()
	days(t, func(f *fleet) {
		f.killed(time.Minute, func(healed bool) {
			if !healed {
				f.Fatalf("%s the token is dead since a minute", f.clock())
			}
		})
		if n := len(f.calls); n > 1500 {
			f.Fatalf("%d calls in a day", n)
		}
	})
}

// A system that fetches a token every ten seconds kills more tokens than the quota allows to replace. The budget is
// spent evenly over the day.
func TestBudgetIsSpentEvenlyOverTheDay(t *testing.T) {
	t.Parallel()
	days(t, func(f *fleet) {
		hours := make(map[int]int) // in which the token was replaced
		f.killed(10*time.Second, func(healed bool) {
			if healed {
				hours[int(f.now.Sub(f.began)/time.Hour)]++
			}
		})
		for hour := 1; hour < 24; hour++ {
			if n := hours[hour]; n < 55 || n > 61 {
				f.Fatalf("%d tokens were replaced in hour %d, want about one a minute", n, hour)
			}
		}
		if n := len(f.calls); n > 1500 {
			f.Fatalf("%d calls in a day", n)
		}
	})
}
