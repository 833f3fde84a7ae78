package worker

import (
	"context"
	"iter"
	"log/slog"
	"time"

	"pgregory.net/rapid"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/store/storetest"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// virtualWorker is one worker of a fleet: the memory, the refresher with its turns, the scheduler and the
// policy are the real ones. Its store and WeChat are virtual, and so is its time: a turn runs as a coroutine
// that pauses at each step.
type virtualWorker struct {
	*fleet
	name        string
	memory      *memory
	refresher   *refresher
	scheduler   *scheduler
	skew        time.Duration // of its clock
	frozenUntil time.Time
	cutUntil    time.Time // NATS is not available to it until then
	delivered   [2]uint64 // revisions of record and ledger entry that the watches have delivered

	next  func() (time.Duration, bool) // the next step of its turn; nil: it has none
	stop  func()
	yield func(time.Duration) bool // of the turn
	at    time.Time                // when the current step ends
	dead  bool                     // it died in the current step

	attempt   *attempt     // the attempt that its turn has written down; nil: none
	called    *call        // the last call of its turn; nil: none
	turnCalls int          // how often its turn has called WeChat
	chose     time.Time    // by its clock: when its turn last wrote the ledger, with which it decides what it publishes
	known     store.Ledger // the last ledger entry that it has read, written or received, not counting lost ones
	lost      bool         // an operation of its turn was lost
}

// attempt is an attempt that a turn has written down and for which it has not called WeChat yet.
type attempt struct {
	before   store.Ledger // the entry before that
	revision uint64       // of the entry with the attempt
	forced   bool         // for a report
}

// died is the panic with which a worker leaves its turn when it dies.
type died struct{}

// start lets a worker with an empty memory join the fleet.
func (f *fleet) start(name string) *virtualWorker {
	w := &virtualWorker{fleet: f, name: name}
	st := f.nats.Connect(w.now)
	st.Before = w.reach
	f.byStore[st] = w
	log := slog.New(slog.DiscardHandler)
	w.memory = newMemory(w.now, log)
	w.refresher = &refresher{
		memory: w.memory, store: st, upstream: virtualUpstream{w}, policy: f.policy, clock: virtualClock{w},
		events:  &events{nats: discard{}, prefix: messages.DefaultPrefix, worker: name, now: w.now, log: log},
		metrics: f.metrics, log: log, worker: name, leaseTTL: f.ttl, accountRefused: func(string) {},
	}
	w.scheduler = newScheduler(w.memory, w.refresher, 1, log)
	if f.kind != messages.AccessToken { // a token that outlives the test
		w.memory.observeRecord(messages.Credential{
			AppID: "wx1", Kind: messages.AccessToken, Value: "token", Generation: 1, Revision: 1,
			ObtainedAt: t0, RefreshAt: t0.AddDate(1, 0, 0), ExpiresAt: t0.AddDate(2, 0, 0),
		})
	}
	w.deliver() // the snapshots are complete before anything is planned
	w.scheduler.setAccounts(map[string]*Account{"wx1": f.account})
	w.scheduler.start()
	return w
}

// discard is a publisher of events that nobody receives.
type discard struct{}

func (discard) Publish(string, []byte) error { return nil }

func (w *virtualWorker) now() time.Time { return w.fleet.now.Add(w.skew) }

// wakes is when the worker does something next.
func (w *virtualWorker) wakes() (time.Time, bool) {
	at := w.at
	if w.next == nil {
		l := w.lane()
		if l == nil {
			return at, false
		}
		at = l.queue[0].next.At.Add(-w.skew)
	}
	if at.Before(w.frozenUntil) {
		at = w.frozenUntil
	}
	return at, true
}

// lane is the lane with the first credential that waits for its time; nil: none waits. The token of a ticket
// waits longer than the ticket.
func (w *virtualWorker) lane() (first *lane) {
	for _, l := range w.scheduler.lanes {
		if len(l.queue) > 0 && (first == nil || l.queue[0].next.At.Before(first.queue[0].next.At)) {
			first = l
		}
	}
	return first
}

// step begins a turn, or continues the current one.
func (w *virtualWorker) step() {
	if w.next == nil {
		j, _ := w.scheduler.pop(w.lane())
		if j.item == nil {
			return
		}
		w.begin(func() {
			w.scheduler.done(j.item, w.refresher.scheduled(context.Background(), j.account, j.kind, j.last))
		})
	}
	took, ok := w.next()
	if !ok {
		w.next = nil
		if w.dead {
			w.restart(w)
		}
		return
	}
	w.at = w.fleet.now.Add(took)
}

// begin begins a turn.
func (w *virtualWorker) begin(turn func()) {
	w.at, w.lost, w.turnCalls = w.fleet.now, false, 0
	w.next, w.stop = iter.Pull(func(yield func(time.Duration) bool) {
		w.yield = yield
		defer func() {
			w.attempt, w.called = nil, nil
			switch p := recover().(type) {
			case nil, died:
			default:
				panic(p)
			}
		}()
		turn()
		w.checkTurn()
	})
}

// checkTurn checks what must be true after a turn that was not disturbed: an attempt that made no call is taken back.
func (w *virtualWorker) checkTurn() {
	if a := w.attempt; a != nil && !w.lost && w.nats.Ledger(w.key()).Revision == a.revision {
		w.violated("%s has counted an attempt, did not call WeChat, and did not take it back", w.name)
	}
}

// die ends the turn of the worker where it is.
func (w *virtualWorker) die() {
	w.dead = true
	if w.next != nil {
		w.stop()
		w.next = nil
	}
}

// pause lets virtual time pass in a turn. A worker that dies meanwhile leaves the turn.
func (w *virtualWorker) pause(d time.Duration) {
	if !w.yield(d) {
		panic(died{})
	}
	if w.may.die && rapid.IntRange(0, 19).Draw(w.T, "dies") == 19 {
		w.dead = true
		panic(died{})
	}
}

// takes lets one of these times pass.
func (w *virtualWorker) takes(times ...time.Duration) {
	if !w.may.brisk {
		w.pause(rapid.SampledFrom(times).Draw(w.T, "step takes"))
	}
}

// reach is called before each operation of the worker's store. An operation after its deadline is lost, unless
// it was in flight: what a frozen worker had sent may arrive late.
func (w *virtualWorker) reach(ctx context.Context, op storetest.Operation) error {
	switch op.Name {
	case "release":
		if w.dead || w.fleet.now.Before(w.cutUntil) {
			return store.ErrUnavailable
		}
		return nil
	case "put_ledger":
		w.decide(*op.Ledger)
	case "publish":
		if w.choosing != nil {
			w.choosing(w, *op.Record)
		}
	case "acquire":
		w.chose = time.Time{}
	}
	if w.may.slow {
		w.takes(10*time.Millisecond, 100*time.Millisecond, 500*time.Millisecond, 4*time.Second)
	} else {
		w.takes(10*time.Millisecond, 100*time.Millisecond, 500*time.Millisecond)
	}
	deadline, hasDeadline := ctx.Deadline()
	late := hasDeadline && !w.fleet.now.Before(deadline)
	if w.fleet.now.Before(w.cutUntil) || late && !rapid.Bool().Draw(w.T, "was in flight") {
		w.mishap(0)
		w.lost = true
		return store.ErrUnavailable
	}
	return nil
}

// decide notes what the turn has decided when it writes the ledger.
func (w *virtualWorker) decide(l store.Ledger) {
	w.chose = w.now()
	if w.called != nil && w.called.class == 0 && l.Attempts == 0 && w.settling != nil {
		w.settling(l.NextAttempt)
	}
}

// wrote is called when the server has accepted a ledger entry of this worker.
func (w *virtualWorker) wrote(before, after store.Ledger) {
	// see policy.Begin
	if after.LastAttempt.Equal(w.chose) && (!after.LastAttempt.Equal(before.LastAttempt) ||
		after.Calls > before.Calls) {
		w.attempt, w.called = &attempt{before: before, revision: after.Revision,
			forced: after.LastForced.After(before.LastForced)}, nil
	}
	if f := after.Failure; f != nil && w.called != nil && w.called.class != 0 && f.Class == w.called.class {
		w.called.noted = true
	}
	// An attempt that could not be made is taken back, and with it one call.
	if known := w.known; known.Day == after.Day {
		for what, n := range map[string][2]int{"generation": {int(known.Generation), int(after.Generation)},
			"calls": {known.Calls - 1, after.Calls}} {
			if n[1] < n[0] {
				w.violated("%s knew a ledger entry with %s %d, and has written %d", w.name, what, n[0], n[1])
			}
		}
	}
	w.known = after
}

// deliver delivers what the buckets have, as the watches do.
func (w *virtualWorker) deliver() {
	if record, revision := w.nats.Record(w.key()); w.delivered[0] != revision {
		w.delivered[0] = revision
		w.memory.handleRecords(store.RecordEvent{Event: recordEvent(w.T, w.key(), record, revision)})
	}
	if l := w.nats.Ledger(w.key()); w.delivered[1] != l.Revision {
		w.delivered[1] = l.Revision
		w.memory.handleLedgers(store.LedgerEvent{Entry: &l})
		if l.Day != w.known.Day || l.Calls >= w.known.Calls && l.Generation >= w.known.Generation {
			w.known = l
		}
	}
}

// report is a report that the current value was refused: of a consumer, or of this worker itself.
func (w *virtualWorker) report() {
	if w.next != nil || w.fleet.now.Before(w.frozenUntil) {
		return
	}
	var report policy.Report
	if rapid.Bool().Draw(w.T, "says when the call was sent") {
		report.SentAt = w.now()
	}
	if held, err := w.memory.get("wx1", w.kind); err == nil {
		report.ValueSHA256 = messages.ValueSHA256(held.Value)
	}
	if _, answered, err := w.refresher.answerFromMemory(context.Background(), w.account, w.kind, report); answered ||
		err != nil {
		return
	}
	w.Logf("%s %s receives a report", w.clock(), w.name)
	w.begin(func() {
		ctx, cancel := w.refresher.clock.WithDeadline(context.Background(), w.fleet.now.Add(w.ttl+publishReserve))
		defer cancel()
		if _, err := w.refresher.answerInTurn(ctx, w.account, w.kind, report); err != nil {
			w.Logf("%s %s answers the report: %v", w.clock(), w.name, err)
		}
	})
}

// virtualClock is the clock of a virtual worker.
type virtualClock struct{ w *virtualWorker }

func (c virtualClock) Now() time.Time { return c.w.now() }

func (c virtualClock) Until(deadline time.Time) time.Duration { return deadline.Sub(c.w.fleet.now) }

func (c virtualClock) WithDeadline(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc) {
	if earlier, ok := ctx.Deadline(); ok && earlier.Before(deadline) {
		deadline = earlier
	}
	return virtualContext{ctx, c.w.fleet, deadline}, func() {}
}

func (c virtualClock) Wait(_ context.Context, d time.Duration, _ <-chan struct{}) {
	c.w.pause(max(d, time.Second)) // not shorter, so that a wait is not most of the events of a test
}

// virtualContext ends at its deadline in virtual time. Nothing waits for its Done.
type virtualContext struct {
	context.Context
	fleet    *fleet
	deadline time.Time
}

func (c virtualContext) Deadline() (time.Time, bool) { return c.deadline, true }

func (c virtualContext) Err() error {
	if !c.fleet.now.Before(c.deadline) {
		return context.DeadlineExceeded
	}
	return c.Context.Err()
}

// virtualUpstream is WeChat for one worker.
type virtualUpstream struct{ w *virtualWorker }

func (u virtualUpstream) Token(ctx context.Context, _, _ string) (wechat.Issued, error) {
	return u.issue(ctx, false)
}

func (u virtualUpstream) StableToken(ctx context.Context, _, _ string, force bool) (wechat.Issued, error) {
	return u.issue(ctx, force)
}

func (u virtualUpstream) Ticket(ctx context.Context, _ string, _ wechat.TicketType) (wechat.Issued, error) {
	return u.issue(ctx, false)
}

// issue makes one call. Its answer is lost if the worker stood still for too long.
func (u virtualUpstream) issue(ctx context.Context, force bool) (wechat.Issued, error) {
	w := u.w
	if ctx.Err() != nil {
		return wechat.Issued{}, &wechat.Error{Class: wechat.ClassTransport} // not sent
	}
	c := &call{at: w.fleet.now, worker: w.name}
	if w.attempt == nil {
		w.violated("%s calls WeChat without having written the attempt down", w.name)
	} else {
		c.forced, c.ledger = w.attempt.forced, w.attempt.before
		w.attempt = nil
	}
	if w.calling != nil {
		w.calling(w, c)
	}
	w.turnCalls++
	sent := w.now()
	issued, failure := w.wechat.ask(force)
	issued.SentAt = sent
	if failure != nil {
		c.class = failure.Class
	}
	w.calls, w.called = append(w.calls, c), c
	if w.callMade != nil {
		w.callMade(c)
	}
	w.takes(50*time.Millisecond, time.Second, 5*time.Second)
	if ctx.Err() != nil {
		w.mishap(0)
		c.class = wechat.ClassTransport
		return issued, &wechat.Error{Class: wechat.ClassTransport, Sent: true}
	}
	if failure != nil {
		return issued, failure
	}
	w.Logf("%s %s: WeChat issues %s for %s", w.clock(), w.name, issued.Value, issued.ExpiresIn)
	return issued, nil
}

func (u virtualUpstream) APIDomainIP(ctx context.Context, value string) ([]string, error) {
	w := u.w
	var failure error
	switch {
	case w.fleet.now.Before(w.wechat.failsUntil):
		failure = &wechat.Error{Class: wechat.ClassBusy, Sent: true}
	case !w.wechat.accepts(value):
		failure = &wechat.Error{Class: wechat.ClassDeadToken, Sent: true}
	}
	w.takes(50*time.Millisecond, time.Second, 5*time.Second)
	if ctx.Err() != nil {
		failure = &wechat.Error{Class: wechat.ClassTransport, Sent: true}
	}
	return nil, failure
}
