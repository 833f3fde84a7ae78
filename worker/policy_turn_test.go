package worker

import (
	"errors"
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// virtualTurn is a turn as refresher.go and report.go take it, in the same order, on virtual NATS and WeChat.
type virtualTurn struct {
	*virtualWorker
	yield    func(time.Duration) bool
	view     view
	lease    uint64
	called   *call
	deadline time.Time // of the lease, by the server's clock: it is counted as a duration
}

var errDead = errors.New("the worker is dead")

// step lets one of these times pass. A worker that dies in it goes no further.
func (t *virtualTurn) step(takes ...time.Duration) error {
	if t.may.brisk {
		return nil
	}
	if !t.yield(rapid.SampledFrom(takes).Draw(t.T, "step takes")) {
		return errDead
	}
	if t.may.die && rapid.IntRange(0, 19).Draw(t.T, "dies") == 19 {
		t.dead = true
		return errDead
	}
	return nil
}

// reach is a step that needs NATS, while the lease may still be used. What a frozen worker had sent may come late.
func (t *virtualTurn) reach() error {
	if err := t.step(10*time.Millisecond, 100*time.Millisecond, 500*time.Millisecond); err != nil {
		return err
	}
	late := !t.deadline.IsZero() && !t.fleet.now.Before(t.deadline)
	if t.fleet.now.Before(t.cutUntil) || late && !rapid.Bool().Draw(t.T, "was on its way") {
		t.mishap(0)
		return store.ErrUnavailable
	}
	return nil
}

func (t *virtualTurn) take(work func(*virtualTurn) error) error {
	err := t.takeOnce(work)
	if !errors.Is(err, errUnplaced) || t.account.rule(t.kind) != classicRule {
		return err
	}
	for end := t.fleet.now.Add(2 * t.ttl); ; {
		err = t.takeOnce(func(t *virtualTurn) error {
			_, err := t.fetch(reasonUnpublished, false)
			return err
		})
		if !errors.Is(err, store.ErrLeaseHeld) || !t.fleet.now.Before(end) {
			return err
		}
		if !t.yield(retryMin / 4) {
			return errDead
		}
	}
}

func (t *virtualTurn) takeOnce(work func(*virtualTurn) error) error {
	asked := t.fleet.now
	t.deadline = time.Time{}
	if err := t.reach(); err != nil {
		return err
	}
	n := &t.nats
	if n.lease != 0 {
		return store.ErrLeaseHeld
	}
	n.revision++
	n.lease, n.leaseEnds = n.revision, t.fleet.now.Add(t.ttl)
	t.lease, t.deadline = n.lease, asked.Add(t.ttl-t.ttl/5)
	err := t.look()
	if err == nil {
		err = work(t)
	}
	if !errors.Is(err, errDead) && n.lease == t.lease && !t.fleet.now.Before(t.cutUntil) {
		n.lease = 0
	}
	return err
}

func (t *virtualTurn) look() error {
	if err := t.reach(); err != nil {
		return err
	}
	t.view = view{rule: t.account.rule(t.kind), settings: t.account.fingerprint(), hasToken: true}
	if c := t.nats.record; c != nil {
		c := *c
		t.view.record = &c
		t.hold(c)
	}
	if err := t.reach(); err != nil {
		return err
	}
	t.view.ledger = t.nats.ledger
	t.scheduler.seenLedger(t.view.ledger)
	t.view.held = t.reader.Held("wx1", t.kind)
	return nil
}

func (t *virtualTurn) hold(c messages.Credential) {
	t.reader.Apply(c)
	t.scheduler.seenRecord(&c)
}

func (t *virtualTurn) scheduled() error {
	d := t.policy.next(t.now(), t.view)
	switch {
	case d.action == publish:
		return t.republish()
	case d.action == tell:
		l := t.view.ledger
		l.Expired = l.Generation
		return t.write(l)
	case d.action == fetch && d.reason == reasonReported:
		return t.settle(dead{})
	case d.action == fetch:
		_, err := t.fetch(d.reason, false)
		return err
	}
	return nil
}

func (t *virtualTurn) republish() error {
	c := restore(t.now(), t.view)
	t.chosen(c)
	if err := t.publish(c); err != nil {
		return err
	}
	l := t.view.ledger
	if c.Generation > l.Generation {
		l.Generation, l.ValueSHA256, l.FirstSeen, l.ExpiresAt = c.Generation, messages.ValueSHA256(c.Value), c.ObtainedAt, c.ExpiresAt
	}
	if l.NextAttempt.IsZero() {
		l.NextAttempt = c.RefreshAt
	}
	return t.write(l)
}

func (t *virtualTurn) fetch(why reason, hard bool) (messages.Credential, error) {
	before := t.view.ledger
	ledger := t.policy.begin(t.now(), t.view, why)
	if hard {
		ledger.HardForced++
	}
	if err := t.write(ledger); err != nil {
		return messages.Credential{}, err
	}
	issued, err := t.ask(before, why, hard)
	if errors.Is(err, errDead) {
		return messages.Credential{}, err
	}
	if err != nil {
		return messages.Credential{}, t.failed(err)
	}
	c, changed, ledger := t.policy.settle(t.view, t.view.ledger, "wx1", t.kind, issued)
	if t.settling != nil {
		t.settling(ledger.NextAttempt)
	}
	t.Logf("%s %s: WeChat issues %s for %s (%s): generation %d until %s, changed %t, next %s", t.clock(), t.name, issued.Value, issued.ExpiresIn,
		why, c.Generation, t.since(c.ExpiresAt), changed, t.since(ledger.NextAttempt))
	if !changed {
		return c, t.write(ledger)
	}
	c.Source, c.Worker = t.account.TokenAPI, t.name
	if c.Validate() != nil || c.ExpiresAt.Sub(t.now()) < time.Second {
		return messages.Credential{}, t.failed(errors.New("too short"))
	}
	t.chosen(c)
	written := t.write(ledger)
	if errors.Is(written, errDead) {
		return messages.Credential{}, written
	}
	if err = t.publish(c); written != nil && err == nil {
		t.unwritten = true
	}
	switch {
	case errors.Is(err, store.ErrUnavailable):
		t.reader.Apply(c)
	case errors.Is(err, store.ErrLeaseLost):
		err = fmt.Errorf("%w: %w", errUnplaced, err)
	}
	return c, err
}

// ask makes the upstream call. Its answer is lost where the worker stood still for too long.
func (t *virtualTurn) ask(before store.Ledger, why reason, hard bool) (wechat.Issued, error) {
	sent := t.now()
	if !t.fleet.now.Before(t.deadline.Add(-publishReserve)) {
		t.called = new(call)
		return wechat.Issued{}, &wechat.Error{Class: wechat.ClassTransport}
	}
	issued, failure := t.wechat.ask(hard)
	issued.SentAt = sent
	c := &call{at: t.fleet.now, worker: t.name, reason: why, ledger: before}
	if failure != nil {
		c.class = failure.Class
	}
	t.calls, t.called = append(t.calls, c), c
	if t.calling != nil {
		t.calling(c)
	}
	if err := t.step(50*time.Millisecond, time.Second, 5*time.Second); err != nil {
		return issued, err
	}
	if !t.fleet.now.Before(t.deadline.Add(-publishReserve)) {
		t.mishap(0)
		return issued, &wechat.Error{Class: wechat.ClassTransport}
	}
	if failure != nil {
		return issued, failure
	}
	return issued, nil
}

func (t *virtualTurn) failed(cause error) error {
	class, atLeast := wechat.ClassBroken, time.Duration(0)
	var we *wechat.Error
	if errors.As(cause, &we) {
		class, atLeast = we.Class, we.Wait
	}
	f := store.Failure{At: t.now().UTC(), Class: class.String()}
	switch err := t.write(t.policy.fail(t.now(), t.view.ledger, f, class, atLeast, t.view.settings)); {
	case errors.Is(err, errDead):
		return err
	case err == nil && we != nil:
		t.called.noted = true
	}
	t.Logf("%s %s: fails (%s), attempt %d, next %s", t.clock(), t.name, class, t.view.ledger.Attempts, t.since(t.view.ledger.NextAttempt))
	return cause
}

func (t *virtualTurn) chosen(c messages.Credential) {
	if t.choosing != nil {
		t.choosing(t.virtualWorker, c)
	}
}

// write is kv.Store.PutLedger.
func (t *virtualTurn) write(l store.Ledger) error {
	if err := t.reach(); err != nil {
		return err
	}
	if l.Revision != t.nats.ledger.Revision {
		return store.ErrConflict
	}
	t.nats.revision++
	l.Revision = t.nats.revision
	t.nats.ledger, t.view.ledger = l, l
	t.scheduler.seenLedger(l)
	return nil
}

// publish is kv.Lease.Publish.
func (t *virtualTurn) publish(c messages.Credential) error {
	if err := t.reach(); err != nil {
		return err
	}
	if t.nats.lease != t.lease {
		return store.ErrLeaseLost
	}
	if c.ExpiresAt.Sub(t.now()) < time.Second {
		return messages.ErrInvalidCredential
	}
	if t.publishing != nil {
		t.publishing(t.virtualWorker, c)
	}
	t.Logf("%s %s publishes %s, generation %d, until %s", t.clock(), t.name, c.Value, c.Generation, t.since(c.ExpiresAt))
	t.nats.revision++
	c.Revision = t.nats.revision
	t.nats.record, t.nats.recordRev = &c, c.Revision
	t.nats.recordEnds = t.fleet.now.Add(c.ExpiresAt.Sub(t.now()).Truncate(time.Second))
	t.published = append(t.published, c)
	t.hold(c)
	return nil
}

// settle is turn.settle, in report.go.
func (t *virtualTurn) settle(d dead) error {
	now := t.now()
	if t.policy.next(now, t.view).action == publish {
		if err := t.republish(); err != nil {
			return err
		}
		t.view.held = t.reader.Held("wx1", t.kind)
		t.view.record = t.view.held
	}
	rec := t.view.record
	if rec != nil && !rec.Valid(now) {
		rec = nil
	}
	if rec != nil && !d.is(*rec) {
		return nil
	}
	if rec != nil && t.kind == messages.AccessToken && remembered(now, t.view.ledger, rec, d.firsthand) == "" {
		if err := t.probe(rec); err != nil {
			return err
		}
	}
	if _, ok, err := decided(now, t.account, t.kind, t.view.ledger, rec, d); ok {
		return err
	}
	answer := remembered(now, t.view.ledger, rec, d.firsthand)
	c, err := t.fetch(reasonReported, false)
	if err != nil || rec == nil || c.Value != rec.Value {
		return err
	}
	if t.view.rule != stableRule || answer != verdictDead || t.view.ledger.HardForced >= hardForcedPerDay {
		return nil
	}
	t.view.record = &c
	_, err = t.fetch(reasonReported, true)
	return err
}

func (t *virtualTurn) probe(c *messages.Credential) error {
	answer := verdictDead
	switch {
	case t.fleet.now.Before(t.wechat.failsUntil):
		answer = verdictInconclusive
	case t.wechat.accepts(c.Value):
		answer = verdictAlive
	}
	if err := t.step(50*time.Millisecond, time.Second, 5*time.Second); err != nil {
		return err
	}
	t.Logf("%s %s asks whether %s lives: %s", t.clock(), t.name, c.Value, answer)
	l := t.view.ledger
	l.Probe = &store.Probe{At: t.now(), Generation: c.Generation, Verdict: answer}
	return t.write(l)
}

// report is refresher.report of a consumer's word that the current value is dead.
func (w *virtualWorker) report() {
	if w.next != nil || w.fleet.now.Before(w.frozenUntil) {
		return
	}
	d := dead{firsthand: rapid.Bool().Draw(w.T, "firsthand")}
	var current *messages.Credential
	if c, err := w.reader.Get("wx1", w.kind); err == nil {
		current = &c
	}
	now := w.now()
	ledger, _ := w.scheduler.known(w.account, w.kind)
	if !isUnderWay(now, ledger, current, w.ttl) {
		if _, ok, _ := decided(now, w.account, w.kind, ledger, current, d); ok {
			return
		}
	}
	w.Logf("%s %s is told that its value is dead", w.clock(), w.name)
	w.begin(func(t *virtualTurn) error { return t.settle(d) }, func(time.Duration) {})
}
