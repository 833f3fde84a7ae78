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

// A Reader has a clock that handles read instead of the time of the system, which would cost many times as much as the rest
// of a read. It is ahead of the time by up to clockAhead: a credential that is valid by the clock is valid for at least half
// of clockAhead. In the last second of a credential's life, and while the clock does not run, a handle asks for the exact time.
const (
	clockAhead = time.Second
	clockTick  = clockAhead / 2
	never      = math.MaxInt64 // the clock does not run
)

// Handle is the current credential of one account and kind. Its methods never block, take no lock, allocate nothing while
// there is a valid credential, and are safe for concurrent use. A Handle stays as current as its [Reader], and costs about as
// much as loading an atomic pointer.
//
// A value is not returned after its end, with one exception: if the whole process was stopped (SIGSTOP, a paused virtual
// machine), a handle may return an ended value until the clock of its Reader has advanced, some milliseconds later.
// [Reader.Get] has no such exception.
type Handle struct {
	slot   *bucket.Slot
	clock  *atomic.Int64
	reader *Reader
	appid  string
	kind   messages.Kind
	err    error // why there can be no credential
}

// Handle returns the handle of a credential, whether there is a credential yet or not. The Reader keeps a slot for each account
// of which a handle was made: make a handle once, and not for AppIDs that strangers choose. The methods of a handle of an
// unknown kind, or of an invalid AppID, return an error that says so.
func (r *Reader) Handle(appid string, kind messages.Kind) *Handle {
	h := &Handle{slot: new(bucket.Slot), clock: &r.clock, reader: r, appid: appid, kind: kind}
	if h.err = checkName(appid, kind); h.err == nil {
		h.slot = r.latest.Slot(appid, kind)
	}
	return h
}

// checkName checks that there can be a credential of this account and kind.
func checkName(appid string, kind messages.Kind) error {
	if err := messages.CheckAppID(appid); err != nil {
		return fmt.Errorf("kv: %w", err)
	}
	if !kind.Valid() {
		return fmt.Errorf("kv: unknown kind %.64q: use one of %v", kind, messages.Kinds)
	}
	return nil
}

// Value returns the value of the current credential; errors as of [Reader.Get].
func (h *Handle) Value() (string, error) {
	if q := h.slot.Quick(); q != nil && h.clock.Load() < q.Ends {
		return q.Value, nil
	}
	return h.exactValue()
}

// exactValue is Value by the exact time. It is a function of its own so that Value stays small enough to be inlined.
func (h *Handle) exactValue() (string, error) {
	c, err := h.Get()
	return c.Value, err
}

// Get returns the current credential; errors as of [Reader.Get].
func (h *Handle) Get() (messages.Credential, error) {
	if h.err != nil {
		return messages.Credential{}, h.err
	}
	c, err := h.slot.Get(h.reader.cfg.Now(), h.appid, h.kind)
	if err != nil {
		return messages.Credential{}, fmt.Errorf("kv: %w", err)
	}
	return *c, nil
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
