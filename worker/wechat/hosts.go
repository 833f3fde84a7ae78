package wechat

import (
	"slices"
	"sync/atomic"
	"time"
)

// coolDown is how long the first host is left alone after the client went to another one.
const coolDown = time.Minute

// hosts says which of n hosts the next attempt goes to. It is safe for concurrent use and never blocks. It has no clock.
//
// All calls go to one host, the first if it can be. A failure moves all of them to the next. After coolDown one call
// tries the first host again, while the others stay: in a long outage that costs one call a minute, not all of them.
type hosts struct {
	n   int
	pos atomic.Pointer[position]
}

// A position is replaced, never changed. Its address tells apart the same index at different times, so that of several
// attempts that failed together the first moves the position, and one that fails late moves nothing.
type position struct {
	index int
	since time.Time // the last move away from the first host, or the last try to return to it
}

// A choice is a host for one attempt.
type choice struct {
	index int
	from  *position // the position at which it was chosen
	probe bool      // it tries whether the first host serves again
}

func newHosts(n int) *hosts {
	h := &hosts{n: n}
	h.pos.Store(&position{})
	return h
}

// pick chooses the host of a new call.
func (h *hosts) pick(now time.Time) choice {
	p := h.pos.Load()
	if p.index == 0 || now.Sub(p.since) < coolDown {
		return choice{index: p.index, from: p}
	}
	waiting := &position{index: p.index, since: now}
	if h.pos.CompareAndSwap(p, waiting) {
		return choice{index: 0, from: waiting, probe: true}
	}
	p = h.pos.Load() // another call is the probe, or has moved
	return choice{index: p.index, from: p}
}

// another chooses a host for a further attempt of the same call, from the current one on; false when all were tried.
func (h *hosts) another(tried []int) (choice, bool) {
	p := h.pos.Load()
	for i := range h.n {
		if index := (p.index + i) % h.n; !slices.Contains(tried, index) {
			return choice{index: index, from: p}, true
		}
	}
	return choice{}, false
}

// failed says that the host of c did not serve.
func (h *hosts) failed(c choice, now time.Time) {
	if c.index == c.from.index && !c.probe { // else the others are at another host already
		h.pos.CompareAndSwap(c.from, &position{index: (c.index + 1) % h.n, since: now})
	}
}

// served says that the host of c served.
func (h *hosts) served(c choice) {
	if c.probe {
		h.pos.CompareAndSwap(c.from, &position{})
	}
}
