package worker

import (
	"errors"
	"iter"
	"time"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// virtualWorker is one worker: what it knows, and the turn that it is in.
type virtualWorker struct {
	*fleet
	name        string
	scheduler   *scheduler
	reader      *kv.Reader
	skew        time.Duration
	frozenUntil time.Time
	cutUntil    time.Time // NATS is away
	knows       [2]uint64 // revisions of record and ledger that were told

	next func() (time.Duration, bool) // the next step of its turn; nil: it has none
	stop func()
	at   time.Time // when the step under way ends
	dead bool      // it died in it
}

func (w *virtualWorker) now() time.Time { return w.fleet.now.Add(w.skew) }

// wakes is when the worker does something next.
func (w *virtualWorker) wakes() (time.Time, bool) {
	at := w.at
	if w.next == nil {
		l := w.lane()
		if l == nil {
			return at, false
		}
		at = l.queue[0].next.at.Add(-w.skew)
	}
	if at.Before(w.frozenUntil) {
		at = w.frozenUntil
	}
	return at, true
}

// lane is the one in which something waits for its time; nil: none. The token of a ticket waits longer.
func (w *virtualWorker) lane() (first *lane) {
	for _, l := range w.scheduler.lanes {
		if len(l.queue) > 0 && (first == nil || l.queue[0].next.at.Before(first.queue[0].next.at)) {
			first = l
		}
	}
	return first
}

// step begins a turn, or goes on with the one under way.
func (w *virtualWorker) step() {
	if w.next == nil {
		it, _, _ := w.scheduler.pop(w.lane())
		if it == nil {
			return
		}
		w.begin(func(t *virtualTurn) error { return t.scheduled() }, func(retry time.Duration) { w.scheduler.done(it, retry, false) })
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

// begin lets the worker begin a turn; each step says how long it takes.
func (w *virtualWorker) begin(work func(*virtualTurn) error, done func(retry time.Duration)) {
	w.at = w.fleet.now
	w.next, w.stop = iter.Pull(func(yield func(time.Duration) bool) {
		t := &virtualTurn{virtualWorker: w, yield: yield}
		err := t.take(work)
		if errors.Is(err, errDead) {
			return
		}
		if err != nil {
			w.Logf("%s %s gives up: %v", w.clock(), w.name, err)
		}
		retry := time.Duration(0) // as Worker.work
		switch {
		case errors.Is(err, store.ErrLeaseHeld):
			retry = w.ttl + time.Duration(w.policy.random()*float64(time.Second/2))
		case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrLeaseLost):
			retry = time.Second + time.Duration(w.policy.random()*float64(2*time.Second))
		}
		done(retry)
	})
}

// die ends the turn of the worker where it is.
func (w *virtualWorker) die() {
	if w.next != nil {
		w.stop()
		w.next = nil
	}
}
