package wechat

import (
	"slices"
	"sync/atomic"
	"time"
)

// coolDown is how long all calls avoid the first host after it failed.
const coolDown = time.Minute

// hosts chooses the host of the next attempt among n hosts. It is safe for concurrent use, never blocks, and
// has no clock.
//
// All calls go to one host, preferably the first. A failure moves all calls to the next host. After coolDown
// one call tries the first host again while the others stay: a long outage costs one call a minute instead of
// all calls.
type hosts struct {
	n   int
	pos atomic.Pointer[position]
}

// A position is immutable; a move replaces it. Two positions with the same index are different pointers. So
// when several attempts fail together, only the first failure moves the position, and a late failure moves
// nothing.
type position struct {
	index int
	since time.Time // the last move away from the first host, or the last attempt to return to it
}

// A choice is a host for one attempt.
type choice struct {
	index    int
	from     *position // the current position when the host was chosen
	isReturn bool      // the attempt finds out whether the first host serves again
}

func newHosts(n int) *hosts {
	h := &hosts{n: n}
	h.pos.Store(&position{})
	return h
}

// pick chooses the host for the first attempt of a call.
func (h *hosts) pick(now time.Time) choice {
	p := h.pos.Load()
	if p.index == 0 || now.Sub(p.since) < coolDown {
		return choice{index: p.index, from: p}
	}
	waiting := &position{index: p.index, since: now}
	if h.pos.CompareAndSwap(p, waiting) {
		return choice{index: 0, from: waiting, isReturn: true}
	}
	p = h.pos.Load() // another call returns to the first host, or has moved the position
	return choice{index: p.index, from: p}
}

// another chooses a host for a further attempt of the same call, beginning at the current position. It
// returns false if all hosts were tried.
func (h *hosts) another(tried []int) (choice, bool) {
	p := h.pos.Load()
	for i := range h.n {
		if index := (p.index + i) % h.n; !slices.Contains(tried, index) {
			return choice{index: index, from: p}, true
		}
	}
	return choice{}, false
}

// failed records that the host of c failed.
func (h *hosts) failed(c choice, now time.Time) {
	if c.index == c.from.index && !c.isReturn { // otherwise the other calls use another host already
		h.pos.CompareAndSwap(c.from, &position{index: (c.index + 1) % h.n, since: now})
	}
}

// served records that the host of c answered.
func (h *hosts) served(c choice) {
	if c.isReturn {
		h.pos.CompareAndSwap(c.from, &position{})
	}
}
