package kv

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
)

// The clock of a Reader is what handles compare with instead of asking for the time, which costs many times as much as all
// the rest of a read. It shows a time that is ahead of the true one by up to clockAhead: what a handle takes for valid by
// it has at least half of that left to live. In the last second of a credential's life, and where nobody turns the
// clock, a handle asks for the time.
const (
	clockAhead = time.Second
	clockTick  = clockAhead / 2
	never      = math.MaxInt64 // nobody turns the clock
)

// Handle is always the current credential of one account and kind. Its methods never block, take no lock, allocate nothing
// where there is a valid credential, and are safe for concurrent use. It stays current as its [Reader] does, and costs
// about as much as a load of an atomic pointer.
//
// A value is never handed out after its end, unless the whole process was stopped (SIGSTOP, a paused machine): then a
// handle may do so once more until the clock of its Reader is turned, within a moment. [Reader.Get] has no such moment.
type Handle struct {
	slot   *slot
	clock  *atomic.Int64
	reader *Reader
	appid  string
	kind   messages.Kind
}

// quick is what a handle needs of a credential.
type quick struct {
	value string
	ends  int64
}

// Handle returns the handle of a credential, whether there is one yet or not. The Reader keeps a place for each account of
// which it was asked for a handle: make it once, and not for names that strangers choose.
func (r *Reader) Handle(appid string, kind messages.Kind) *Handle {
	h := &Handle{slot: new(slot), clock: &r.clock, reader: r, appid: appid, kind: kind}
	if kind.Valid() && messages.CheckAppID(appid) == nil {
		r.mu.Lock()
		h.slot = r.slot(appid, kind)
		r.mu.Unlock()
	}
	return h
}

// Value returns the value of the current credential; errors as of [Reader.Get].
func (h *Handle) Value() (string, error) {
	if q := h.slot.quick.Load(); q != nil && h.clock.Load() < q.ends {
		return q.value, nil
	}
	return h.exactly()
}

// exactly is Value by the exact time. Not a part of Value, which it would slow down.
func (h *Handle) exactly() (string, error) {
	c, err := h.Get()
	return c.Value, err
}

// Get returns the current credential; errors as of [Reader.Get].
func (h *Handle) Get() (messages.Credential, error) {
	c, err := h.slot.current(h.reader.cfg.Now(), h.appid, h.kind)
	if err != nil {
		return messages.Credential{}, err
	}
	return *c, nil
}

// turnClock turns the clock until ctx ends.
func (r *Reader) turnClock(ctx context.Context) {
	defer r.clock.Store(never)
	tick := time.NewTicker(clockTick)
	defer tick.Stop()
	for {
		r.mu.Lock()
		r.setClock()
		r.promote()
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *Reader) setClock() { r.clock.Store(r.cfg.Now().Add(clockAhead).UnixNano()) }

// promote lets other take the place of what has ended. [Reader.Get] shows it by itself; this is for handles, for those who
// listen, and for the file. r.mu is held.
func (r *Reader) promote() {
	now := r.cfg.Now()
	for s, n := range r.fallbacks {
		if held := s.held.Load(); held != nil && held.Valid(now) {
			continue
		}
		delete(r.fallbacks, s)
		if o := s.other.Load(); o != nil && o.Valid(now) {
			r.show(s, o, n)
		}
		s.other.Store(nil) // only now: who reads meanwhile finds one of both
	}
}
