package bucket

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// follower reads one record for a [Poll], one read at a time: at an interval, soon after a hint, and soon after a
// read that failed.
type follower struct {
	*Poll
	name     Name
	hints    chan uint64    // has the revision of the newest hint that was not taken yet; 0: not known
	slots    chan struct{}  // limits the reads of all followers
	outcomes chan<- outcome // of each read
	wanted   uint64         // the revision of a hint that no read has shown yet; 0: none
	tries    int            // reads since the last hint that did not show it
	failures int            // reads in a row that failed
	settled  int            // reads that succeeded since the session began, at most settleReads
	last     uint64         // the revision of the last read
	extra    allowance      // of reads that hints cause
}

const (
	hintPause   = 50 * time.Millisecond // between a hint and the second read for it; doubles with each further one
	hintTries   = 6
	hintEvery   = time.Second // between two reads that hints cause, on average
	hintsAtOnce = 10          // such reads without a pause
	removedHint = 0           // the revision of a hint that is none
	settleFirst = time.Second // the pause after the first read of a session; doubles with each further one
	settleReads = 5
)

// sendHint passes the revision of a published message to a follower. It does not block: hints are coalesced.
func sendHint(hints chan uint64, h nats.Header) {
	revision := uint64(removedHint) // a worker may still hold the record that was removed: there is nothing to wait for
	if !isRemoval(h) {
		revision, _ = strconv.ParseUint(h.Get(jetstream.SequenceHeader), 10, 64)
	}
	for {
		select {
		case hints <- revision:
			return
		default:
		}
		select {
		case earlier := <-hints:
			revision = max(revision, earlier)
		default:
		}
	}
}

// run reads the record until ctx ends.
func (f *follower) run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case f.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		a, err := f.read(ctx, f.name)
		<-f.slots
		select {
		case f.outcomes <- outcome{f.name, a, err}:
		case <-ctx.Done():
			return
		}
		f.wait(ctx, f.plan(a, err))
	}
}

// plan returns how long to wait for the next read if no hint comes.
func (f *follower) plan(a answer, err error) time.Duration {
	every := jitter(cmp.Or(f.ReadEvery, pollReadEvery)) // many Readers start at the same time
	if err != nil {
		f.failures++
		if t, answered := errors.AsType[*trouble](err); answered && t.lasting {
			return every
		}
		return min(every, jitter(min(watchRetryMin<<min(f.failures, 10), watchRetryMax)))
	}
	f.failures = 0
	// A session often begins because a server was lost, and then a worker or a replica may be behind for some seconds.
	// What it receives later causes no hint.
	if f.settled < settleReads {
		every = min(every, jitter(settleFirst<<f.settled))
		f.settled++
	}
	// A worker, or a replica, may not have received yet what the hint is about. A revision that is higher and that
	// was there before the hint may be of the bucket before it was recreated. The hint may also be forged, so there
	// are few reads for it.
	shown := a.revision == f.wanted || a.revision > f.wanted && a.revision != f.last
	f.last = a.revision
	if f.wanted == 0 || shown || f.tries == hintTries {
		f.wanted, f.tries = 0, 0
		return every
	}
	f.tries++
	return min(every, jitter(hintPause<<f.tries/2))
}

// wait waits for d, or for a hint. Hints that come too often have to wait.
func (f *follower) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
		return
	case revision := <-f.hints:
		f.wanted, f.tries = max(f.wanted, revision), 0
	}
	if pause := f.extra.take(time.Now()); pause > 0 {
		timer.Reset(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		select {
		case revision := <-f.hints: // which came during the pause
			f.wanted = max(f.wanted, revision)
		default:
		}
	}
}

// allowance is a leaky bucket: hintsAtOnce reads at once, and one each hintEvery after that.
type allowance struct{ paid time.Time }

// take takes one read, and returns how long to wait before it.
func (a *allowance) take(now time.Time) time.Duration {
	if a.paid.Before(now) {
		a.paid = now
	}
	a.paid = a.paid.Add(hintEvery)
	return a.paid.Sub(now) - hintsAtOnce*hintEvery
}
