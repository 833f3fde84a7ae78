package worker

import (
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// fleet is a model of some workers that keep one credential, under virtual time: their schedulers, readers and policy are
// the real ones; NATS, WeChat and the way through a turn (refresher.go, report.go) are played here, step by step, so that
// a worker can be slow, frozen, cut off or dead between any two of them. The properties are in policy_property_test.go.
type fleet struct {
	*rapid.T
	may     mischief
	now     time.Time // the clock of the NATS server and of WeChat
	began   time.Time
	policy  *policy
	account *Account
	kind    messages.Kind
	nats    virtualNATS
	wechat  virtualWeChat
	workers []*virtualWorker
	born    int
	ttl     time.Duration // of a lease

	calls      []*call               // of WeChat, in their order
	published  []messages.Credential // in their order
	unwritten  bool                  // a success was published and could not be written down
	mishaps    int
	calm       time.Time                                 // when the last of them is over
	check      func()                                    // after each event
	calling    func(*call)                               // at a call of WeChat
	settling   func(next time.Time)                      // at a success: when the next call is planned
	choosing   func(*virtualWorker, messages.Credential) // what a worker is about to publish
	publishing func(*virtualWorker, messages.Credential) // at a publication that NATS accepts
	broken     string                                    // the promise that does not hold
}

// mischief is what may happen to a fleet. The zero value: nothing, but that steps take their time.
type mischief struct {
	die     bool          // workers end, also in mid-turn, and others begin with an empty memory
	freeze  bool          // workers stand still for longer than a lease
	cut     bool          // workers lose NATS for a while, and learn late what others wrote
	idle    bool          // nobody does anything for a while
	fail    bool          // WeChat fails, in every way
	lose    bool          // the record is deleted
	forget  bool          // the ledger is lost
	report  bool          // consumers say that the value is dead
	foreign bool          // another system refreshes
	odd     bool          // WeChat's expires_in are of any size, and its values come back
	skew    time.Duration // by how much the clock of a worker may be wrong
	longest time.Duration // for which workers stand still or lose NATS; 0: 200 s
	most    int           // that may happen; 0: any number
	brisk   bool          // a turn takes no time, so nothing comes between its steps
}

// call is one call of WeChat for the credential.
type call struct {
	at     time.Time // by the server's clock
	worker string
	reason reason
	ledger store.Ledger // as the worker had it before
	class  wechat.Class // of the failure; 0: it succeeded
	noted  bool         // the failure was written down
}

// virtualNATS is the bucket and the ledger of one credential.
type virtualNATS struct {
	revision   uint64
	record     *messages.Credential
	recordEnds time.Time // the server's TTL
	recordRev  uint64    // of its last change
	ledger     store.Ledger
	lease      uint64 // revision; 0: none
	leaseEnds  time.Time
}

func newFleet(t *rapid.T, may mischief) *fleet {
	f := &fleet{T: t, may: may, now: t0, began: t0, ttl: leaseFor(5 * time.Second), kind: messages.AccessToken}
	f.account = &Account{AppID: "wx1", Secret: "secret", TokenAPI: messages.SourceStableToken}
	switch rapid.SampledFrom([]rule{classicRule, stableRule, ticketRule}).Draw(t, "rule") {
	case classicRule:
		f.account.TokenAPI = messages.SourceToken
	case ticketRule:
		f.kind, f.account.Tickets = messages.JSAPITicket, []messages.Kind{messages.JSAPITicket}
	}
	f.policy = &policy{
		refreshBefore: rapid.SampledFrom([]time.Duration{10 * time.Minute, time.Second, time.Hour}).Draw(t, "refresh before"),
		random:        func() float64 { return float64(rapid.IntRange(0, 7).Draw(t, "jitter")) / 8 },
	}
	f.wechat = virtualWeChat{fleet: f, rule: f.account.rule(f.kind), ended: map[string]time.Time{},
		life: time.Duration(rapid.IntRange(10, 120).Draw(t, "life in minutes")) * time.Minute}
	f.wechat.odd = []time.Duration{time.Second, 2 * time.Second, 10 * time.Second, time.Minute, 2 * time.Hour, 30 * 24 * time.Hour}
	if may.odd { // also: of short lives alone, which are those that make storms
		f.wechat.odd = f.wechat.odd[:rapid.IntRange(1, len(f.wechat.odd)).Draw(t, "odd lives")]
	}
	f.nats.ledger = store.Ledger{AppID: "wx1", Kind: f.kind}
	for range rapid.IntRange(1, 3).Draw(t, "workers") {
		f.join()
	}
	return f
}

// end lets the turns that are under way go.
func (f *fleet) end() {
	for _, w := range f.workers {
		w.die()
	}
}

// run lets the fleet live for d, or n events.
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

// violated says which promise does not hold. Not Fatalf, where rapid could not tell one failure in a turn from another.
func (f *fleet) violated(format string, args ...any) {
	if f.broken == "" {
		f.broken = fmt.Sprintf(format, args...)
	}
}

// event is the next step that a worker takes.
func (f *fleet) event() {
	var next *virtualWorker
	at := f.now.Add(10 * time.Minute) // where there is nothing to wait for
	for _, w := range f.workers {
		if wakes, ok := w.wakes(); ok && wakes.Before(at) {
			at, next = wakes, w
		}
		for _, back := range []time.Time{w.cutUntil, w.frozenUntil} { // then it is told what it has missed
			if back.After(f.now) && back.Before(at) {
				at, next = back, nil
			}
		}
	}
	f.pass(at.Sub(f.now))
	if next != nil {
		next.step()
	}
	f.tell()
}

// pass lets time pass.
func (f *fleet) pass(d time.Duration) {
	f.now = f.now.Add(max(d, 0))
	n := &f.nats
	if n.record != nil && !f.now.Before(n.recordEnds) {
		f.lose(true)
	}
	if !f.now.Before(n.leaseEnds) {
		n.lease = 0
	}
}

// tell brings what stands in the buckets to the workers that are not deaf to it.
func (f *fleet) tell() {
	for _, w := range f.workers {
		if f.now.Before(w.cutUntil) || f.now.Before(w.frozenUntil) {
			continue
		}
		if w.knows[0] != f.nats.recordRev {
			w.knows[0] = f.nats.recordRev
			if c := f.nats.record; c != nil {
				w.reader.Apply(*c)
			}
			w.scheduler.learnRecord(kv.Change{AppID: "wx1", Kind: f.kind, Record: f.nats.record, Revision: f.nats.recordRev})
		}
		if w.knows[1] != f.nats.ledger.Revision {
			w.knows[1] = f.nats.ledger.Revision
			w.scheduler.learnLedger(f.nats.ledger)
		}
	}
}

// lose takes the record away, with a marker as the server's TTL leaves it.
func (f *fleet) lose(byTTL bool) {
	if !byTTL {
		f.mishap(0)
		f.Logf("%s the record is deleted", f.clock())
	}
	f.nats.revision++
	f.nats.record, f.nats.recordRev = nil, f.nats.revision
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
		f.wechat.fails(rapid.SampledFrom(wechat.Classes[:]).Draw(f.T, "class"), seconds(8000))
	})
	may(f.may.fail, "WeChat is well", func() { f.wechat.failsUntil = f.now })
	may(f.may.lose, "lose the record", func() { f.lose(false) })
	may(f.may.forget, "lose the ledger", func() {
		f.Logf("%s the ledger is lost", f.clock())
		f.nats.revision++
		f.nats.ledger = store.Ledger{AppID: "wx1", Kind: f.kind, Revision: f.nats.revision}
		for _, w := range f.workers {
			w.scheduler.resetLedgers()
		}
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
	f.tell()
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

// join lets a worker with an empty memory begin.
func (f *fleet) join() {
	f.born++
	w := &virtualWorker{fleet: f, name: fmt.Sprint("worker", f.born)}
	var err error
	if w.reader, err = kv.NewReader(new(nats.Conn), kv.ReaderConfig{Now: w.now}); err != nil {
		f.Fatal(err)
	}
	if f.kind != messages.AccessToken { // a token that outlives the test
		w.reader.Apply(messages.Credential{
			AppID: "wx1", Kind: messages.AccessToken, Value: "token", Generation: 1, Revision: 1,
			ObtainedAt: t0, RefreshAt: t0.AddDate(1, 0, 0), ExpiresAt: t0.AddDate(2, 0, 0),
		})
	}
	s := newScheduler(1)
	s.policy, s.reader, s.now = f.policy, w.reader, w.now
	w.scheduler = s
	if f.nats.record != nil { // a snapshot is read before anything is planned
		w.reader.Apply(*f.nats.record)
	}
	s.learnLedger(f.nats.ledger)
	s.setAccounts(map[string]*Account{"wx1": f.account})
	w.knows = [2]uint64{f.nats.recordRev, f.nats.ledger.Revision}
	f.workers = append(f.workers, w)
}

func (f *fleet) restart(w *virtualWorker) {
	f.mishap(0)
	f.Logf("%s %s dies, another begins", f.clock(), w.name)
	w.die()
	f.workers = slices.DeleteFunc(f.workers, func(o *virtualWorker) bool { return o == w })
	f.join()
}

func (f *fleet) clock() string { return f.since(f.now) }
func (f *fleet) since(at time.Time) string {
	return at.Sub(f.began).Truncate(time.Millisecond).String()
}
