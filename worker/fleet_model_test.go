package worker

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/store/storetest"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// fleet is some workers that keep one credential, in virtual time. Their memories, turns, schedulers and policy
// are the real ones; NATS is that of package storetest, and WeChat is played here. A worker can be slow,
// frozen, cut off or dead between any two steps of a turn. The properties are in fleet_property_test.go.
type fleet struct {
	*rapid.T
	may     mischief
	now     time.Time // the clock of the NATS server and of WeChat
	began   time.Time
	policy  *policy.Policy
	metrics *metrics
	account *Account
	kind    messages.Kind
	nats    *storetest.Server
	wechat  virtualWeChat
	workers []*virtualWorker
	byStore map[*storetest.Store]*virtualWorker
	started int           // workers
	ttl     time.Duration // of a lease

	calls      []*call               // of WeChat, in their order
	published  []messages.Credential // in their order
	entries    []store.Ledger        // of the ledger, in their order
	unwritten  bool                  // a value was published whose ledger entry could not be written
	mishaps    int
	calm       time.Time // when the last mishap is over
	lostRecord time.Time // when the record was deleted last
	lostEntry  time.Time // when the ledger entry was deleted last
	broken     string    // the promise that does not hold

	check      func()                                    // after each event
	calling    func(*virtualWorker, *call)               // before a call of WeChat
	callMade   func(*call)                               // after it
	settling   func(next time.Time)                      // at a success: when the next call is planned
	choosing   func(*virtualWorker, messages.Credential) // when a worker begins to publish
	publishing func(*virtualWorker, messages.Credential) // at a publication that NATS accepts
}

// mischief is what may happen to a fleet. The zero value: nothing, except that steps take time.
type mischief struct {
	die     bool          // workers die, also during a turn, and others start with an empty memory
	freeze  bool          // workers stand still, also for longer than a lease
	cut     bool          // workers lose NATS for a while, and receive late what others wrote
	idle    bool          // nobody does anything for a while
	fail    bool          // WeChat fails, in every way
	slow    bool          // NATS takes seconds
	lose    bool          // the record is deleted
	forget  bool          // the ledger is lost
	replay  bool          // earlier records, and with forget earlier ledger entries, are stored again
	report  bool          // consumers report the value
	foreign bool          // another system refreshes
	odd     bool          // WeChat's expires_in have any size, and its values return
	skew    time.Duration // by how much the clock of a worker may be wrong
	longest time.Duration // time for which workers stand still or lose NATS; 0: 200 s
	most    int           // mishaps; 0: any number
	brisk   bool          // a turn takes no time, so nothing comes between its steps
}

// call is one call of WeChat for the credential.
type call struct {
	at     time.Time // by the server's clock
	worker string
	forced bool         // for a report
	ledger store.Ledger // before the attempt was written down
	class  wechat.Class // of the failure; 0: it succeeded
	noted  bool         // the failure was written down
}

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newFleet(t *rapid.T, may mischief) *fleet {
	f := &fleet{
		T: t, may: may, now: t0, began: t0, ttl: leaseFor(5 * time.Second), kind: messages.AccessToken,
		byStore: map[*storetest.Store]*virtualWorker{},
	}
	var err error
	if f.metrics, err = newMetrics(prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	f.account = &Account{AppID: "wx1", Secret: "secret", TokenAPI: messages.SourceStableToken}
	switch rapid.SampledFrom([]policy.Rule{policy.Classic, policy.Stable, policy.Ticket}).Draw(t, "rule") {
	case policy.Classic:
		f.account.TokenAPI = messages.SourceToken
	case policy.Ticket:
		f.kind, f.account.Tickets = messages.JSAPITicket, []messages.Kind{messages.JSAPITicket}
	}
	f.policy = &policy.Policy{
		RefreshBefore: rapid.SampledFrom([]time.Duration{10 * time.Minute, time.Second, time.Hour}).
			Draw(t, "refresh before"),
		Random: func() float64 { return float64(rapid.IntRange(0, 7).Draw(t, "jitter")) / 8 },
	}
	f.wechat = virtualWeChat{fleet: f, rule: f.account.rule(f.kind), ended: map[string]time.Time{},
		life: time.Duration(rapid.IntRange(10, 120).Draw(t, "life in minutes")) * time.Minute}
	f.wechat.odd = []time.Duration{time.Second, 2 * time.Second, 10 * time.Second, time.Minute, 2 * time.Hour,
		30 * 24 * time.Hour}
	if may.odd { // sometimes only short lives, which could cause storms
		f.wechat.odd = f.wechat.odd[:rapid.IntRange(1, len(f.wechat.odd)).Draw(t, "odd lives")]
	}
	f.nats = storetest.NewServer(func() time.Time { return f.now })
	f.nats.OnRecord = func(s *storetest.Store, c messages.Credential) {
		w := f.byStore[s]
		f.Logf("%s %s publishes %s, generation %d, until %s", f.clock(), w.name, c.Value, c.Generation,
			f.since(c.ExpiresAt))
		if f.publishing != nil {
			f.publishing(w, c)
		}
		if f.nats.Ledger(f.key()).Generation < c.Generation {
			f.unwritten = true
		}
		f.published = append(f.published, c)
	}
	f.nats.OnLedger = func(s *storetest.Store, before, after store.Ledger) {
		f.entries = append(f.entries, after)
		f.byStore[s].wrote(before, after)
	}
	for range rapid.IntRange(1, 3).Draw(t, "workers") {
		f.join()
	}
	return f
}

func (f *fleet) key() string { return messages.Key("wx1", f.kind) }

// record is the record in the bucket; nil: none.
func (f *fleet) record() *messages.Credential {
	r, _ := f.nats.Record(f.key())
	return r
}

// end ends the turns that are under way.
func (f *fleet) end() {
	for _, w := range f.workers {
		w.die()
	}
}

// run runs the fleet for d, or n events.
func (f *fleet) run(d time.Duration, n int) {
	for end := f.now.Add(d); f.now.Before(end) && n > 0; n-- {
		if rapid.IntRange(0, 9).Draw(f.T, "fate") == 9 {
			f.meddle()
		}
		f.event()
		if f.check != nil {
			f.check()
		}
		if f.broken != "" {
			f.Fatal(f.clock(), f.broken)
		}
	}
}

// violated notes which promise does not hold. It does not call Fatalf, because rapid could not distinguish two
// failures inside a turn.
func (f *fleet) violated(format string, args ...any) {
	if f.broken == "" {
		f.broken = fmt.Sprintf(format, args...)
	}
}

// event is the next step of a worker. If several would do something at the same time, any of them may be first.
func (f *fleet) event() {
	var next []*virtualWorker
	at := f.now.Add(10 * time.Minute) // if there is nothing to wait for
	for _, w := range f.workers {
		if wakes, ok := w.wakes(); ok && wakes.Before(at) {
			at, next = wakes, []*virtualWorker{w}
		} else if ok && wakes.Equal(at) {
			next = append(next, w)
		}
		for _, back := range []time.Time{w.cutUntil, w.frozenUntil} { // then the watches deliver what it has missed
			if back.After(f.now) && back.Before(at) {
				at, next = back, nil
			}
		}
	}
	f.pass(at.Sub(f.now))
	if len(next) > 0 {
		next[rapid.IntRange(0, len(next)-1).Draw(f.T, "first")].step()
	}
	f.deliver()
}

// pass lets time pass.
func (f *fleet) pass(d time.Duration) {
	f.now = f.now.Add(max(d, 0))
	f.nats.Expire()
}

// deliver delivers what the buckets have to the workers that can receive it.
func (f *fleet) deliver() {
	for _, w := range f.workers {
		if !f.now.Before(w.cutUntil) && !f.now.Before(w.frozenUntil) {
			w.deliver()
		}
	}
}

// recordEvent is the event of a record, nil: of its removal.
func recordEvent(t *rapid.T, key string, c *messages.Credential, revision uint64) bucket.Event {
	if c == nil {
		return bucket.Event{Key: key, Revision: revision, Removed: true}
	}
	stored := *c
	stored.Revision = 0
	body, err := json.Marshal(stored)
	if err != nil {
		t.Fatal(err)
	}
	return bucket.Event{Key: key, Value: body, Revision: revision}
}

// meddle does one of the things that may happen.
func (f *fleet) meddle() {
	if f.may.most > 0 && f.mishaps >= f.may.most {
		return
	}
	deeds := map[string]func(){}
	may := func(b bool, name string, f func()) {
		if b {
			deeds[name] = f
		}
	}
	w := f.workers[rapid.IntRange(0, len(f.workers)-1).Draw(f.T, "whom")]
	seconds := func(most int) time.Duration {
		return time.Duration(rapid.IntRange(1, most).Draw(f.T, "for seconds")) * time.Second
	}
	longest := 200
	if f.may.longest > 0 {
		longest = int(f.may.longest / time.Second)
	}
	may(f.may.die, "restart", func() { f.restart(w) })
	may(f.may.freeze, "freeze", func() {
		w.frozenUntil = f.mishap(seconds(longest))
		f.Logf("%s %s stands still until %s", f.clock(), w.name, f.since(w.frozenUntil))
	})
	may(f.may.cut, "cut off", func() {
		w.cutUntil = f.mishap(seconds(longest))
		f.Logf("%s %s loses NATS until %s", f.clock(), w.name, f.since(w.cutUntil))
	})
	may(f.may.fail, "WeChat fails", func() {
		f.wechat.fails(rapid.SampledFrom(f.classes()).Draw(f.T, "class"), seconds(8000))
	})
	may(f.may.fail, "WeChat recovers", func() { f.wechat.failsUntil = f.now })
	may(f.may.lose, "lose the record", func() {
		f.mishap(0)
		f.Logf("%s the record is deleted", f.clock())
		if f.record() != nil {
			f.lostRecord = f.now
		}
		f.nats.RemoveRecord(f.key())
	})
	may(f.may.lose, "purge the bucket", func() {
		f.mishap(0)
		f.Logf("%s the bucket is purged", f.clock())
		if f.record() != nil {
			f.lostRecord = f.now
		}
		f.nats.Purge(f.key())
	})
	may(f.may.forget, "lose the ledger", func() {
		f.Logf("%s the ledger is lost", f.clock())
		f.nats.RemoveLedger(f.key())
		f.lostEntry = f.now
	})
	may(f.may.replay && len(f.published) > 0, "store an old record", func() {
		f.mishap(0)
		old := rapid.SampledFrom(f.published).Draw(f.T, "old record")
		f.Logf("%s a copy of generation %d is stored", f.clock(), old.Generation)
		f.lostRecord = f.now
		f.nats.StoreRecord(old)
	})
	may(f.may.replay && f.may.forget && len(f.entries) > 0, "store an old ledger entry", func() {
		old := rapid.SampledFrom(f.entries).Draw(f.T, "old entry")
		f.Logf("%s a copy of the entry with %d calls and generation %d is stored", f.clock(), old.Calls, old.Generation)
		f.nats.StoreLedger(old)
		f.lostEntry = f.now
	})
	may(f.may.skew > 0, "set a clock", func() {
		s := int(f.may.skew / time.Second)
		w.skew = time.Duration(rapid.IntRange(-s, s).Draw(f.T, "by seconds")) * time.Second
		f.Logf("%s the clock of %s is %s ahead", f.clock(), w.name, w.skew)
	})
	may(f.may.report, "report", w.report)
	may(f.may.foreign, "foreign refresh", f.wechat.foreign)
	may(f.may.idle, "idle", func() { f.pass(f.mishap(seconds(600)).Sub(f.now)) })
	names := make([]string, 0, len(deeds))
	for name := range deeds {
		names = append(names, name)
	}
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	deeds[rapid.SampledFrom(names).Draw(f.T, "deed")]()
	f.deliver()
}

// mishap notes that something happens which lasts for d, and returns its end.
func (f *fleet) mishap(d time.Duration) time.Time {
	f.mishaps++
	end := f.now.Add(d)
	if end.After(f.calm) {
		f.calm = end
	}
	return end
}

// classes are the ways in which WeChat may fail. A refused access_token, of a ticket, is reported by the real
// refresher in a goroutine of its own, which has no place in virtual time.
func (f *fleet) classes() []wechat.Class {
	if f.kind == messages.AccessToken {
		return wechat.Classes[:]
	}
	return slices.DeleteFunc(slices.Clone(wechat.Classes[:]),
		func(c wechat.Class) bool { return c == wechat.ClassDeadToken })
}

// join lets a worker with an empty memory start.
func (f *fleet) join() {
	f.started++
	f.workers = append(f.workers, f.start(fmt.Sprint("worker", f.started)))
}

func (f *fleet) restart(w *virtualWorker) {
	f.mishap(0)
	f.Logf("%s %s dies, another starts", f.clock(), w.name)
	w.die()
	f.workers = slices.DeleteFunc(f.workers, func(o *virtualWorker) bool { return o == w })
	f.join()
}

func (f *fleet) clock() string { return f.since(f.now) }
func (f *fleet) since(at time.Time) string {
	return at.Sub(f.began).Truncate(time.Millisecond).String()
}
