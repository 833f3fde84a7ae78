package kv

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// A Reader has a clock for its handles, because asking the system for the time costs much more. The
// clock is ahead of the time by up to clockAhead: a credential that is valid by the clock stays valid for at
// least half of clockAhead. In the last second of a credential's life, and while the clock does not run, a
// handle asks the system for the time.
const (
	clockAhead = time.Second
	clockTick  = clockAhead / 2
	never      = math.MaxInt64 // the clock does not run
)

// Handle always has the current credential of one account and kind: it is as current as its [Reader]. Its
// methods never block, take no lock, allocate nothing while there is a valid credential, and are safe for
// concurrent use.
//
// A Handle returns no expired value, with one exception: if the whole process was stopped (SIGSTOP, a paused
// virtual machine), it may return an expired value until the clock of its Reader has advanced, some
// milliseconds after the process continues. [Reader.Get] has no such exception.
type Handle struct {
	slot   *bucket.Slot
	clock  *atomic.Int64
	reader *Reader
	appid  string
	kind   messages.Kind
}

// Handle returns the handle of a credential, whether or not there is a credential yet. The Reader keeps a
// slot for each account of which a handle was made: make a handle once, and not for AppIDs that strangers
// choose.
//
// A handle for which there can be no credential (an unknown kind, an invalid AppID, an account that the
// Reader does not follow) returns an [ErrNotFound] that says why.
func (r *Reader) Handle(appid string, kind messages.Kind) *Handle {
	h := &Handle{slot: new(bucket.Slot), clock: &r.clock, reader: r, appid: appid, kind: kind}
	if r.check(appid, kind) == nil {
		h.slot = r.latest.Slot(appid, kind)
	}
	return h
}

// Value returns the value of the current credential; errors as of [Reader.Get].
func (h *Handle) Value() (string, error) {
	if q := h.slot.Quick(); q != nil && h.clock.Load() < q.Ends {
		return q.Value, nil
	}
	return h.exactValue()
}

// exactValue is Value by the time of the system. Inlined, it would give Value a large stack frame, which costs more
// than all that Value does (TestHandleValueHasASmallFrame).
//
//go:noinline
func (h *Handle) exactValue() (string, error) {
	c, err := h.current()
	if err != nil {
		return "", fmt.Errorf("kv: %w", err)
	}
	return c.Value, nil
}

// Get returns the current credential; errors as of [Reader.Get].
func (h *Handle) Get() (messages.Credential, error) {
	c, err := h.current()
	if err != nil {
		return messages.Credential{}, fmt.Errorf("kv: %w", err)
	}
	return *c, nil
}

// current returns the current credential, which must not be changed; errors as of [Reader.Get].
func (h *Handle) current() (*messages.Credential, error) {
	c, err := h.slot.Get(h.reader.cfg.Now(), h.appid, h.kind)
	if err != nil {
		return nil, h.reader.explain(err, h.appid, h.kind)
	}
	return c, nil
}

// advanceClock advances the clock until ctx ends.
func (r *Reader) advanceClock(ctx context.Context) {
	defer r.clock.Store(never)
	tick := time.NewTicker(clockTick)
	defer tick.Stop()
	for {
		r.setClock()
		r.notify(r.latest.Promote())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *Reader) setClock() { r.clock.Store(r.cfg.Now().Add(clockAhead).UnixNano()) }
