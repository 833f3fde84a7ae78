package policy

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

func TestEntryThatWasSetBackDoesNotSetTheLimitsBack(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	known := store.Ledger{
		AppID: "wx1", Kind: messages.AccessToken, Generation: 7, ValueSHA256: "seven", FirstSeen: at, ExpiresAt: at,
		LastAttempt: at, LastSuccess: at, Day: "2026-01-02", Calls: 9, Forced: 2, HardForced: 1, Pace: at, LastForced: at,
		Probe: &store.Probe{At: at, Generation: 7, Verdict: store.Dead}, Revision: 20,
	}
	with := func(change func(*store.Ledger)) store.Ledger {
		l := known
		l.Revision = 21
		change(&l)
		return l
	}
	for name, tc := range map[string]struct {
		read, want store.Ledger
		lost       bool
	}{
		"the entry itself": {with(func(*store.Ledger) {}), with(func(*store.Ledger) {}), false},
		"a later call": {
			with(func(l *store.Ledger) { l.Calls, l.LastAttempt = 10, at.Add(time.Hour) }),
			with(func(l *store.Ledger) { l.Calls, l.LastAttempt = 10, at.Add(time.Hour) }), false,
		},
		"a later day": {
			with(func(l *store.Ledger) { l.Day, l.Calls = "2026-01-03", 1 }),
			with(func(l *store.Ledger) { l.Day, l.Calls = "2026-01-03", 1 }), false,
		},
		"an attempt that was taken back": {
			with(func(l *store.Ledger) { l.Calls, l.Forced, l.LastForced = 8, 1, at.Add(-time.Hour) }),
			with(func(l *store.Ledger) { l.Calls, l.Forced, l.LastForced = 8, 1, at.Add(-time.Hour) }), false,
		},
		"nothing": {
			store.Ledger{AppID: "wx1", Kind: messages.AccessToken, Revision: 21}, with(func(*store.Ledger) {}), true,
		},
		"the entry before the last call": {
			with(func(l *store.Ledger) {
				l.Calls, l.Forced, l.HardForced, l.LastAttempt, l.LastForced, l.Pace = 8, 1, 0, at.Add(-1), at.Add(-1), at.Add(-1)
			}),
			with(func(*store.Ledger) {}), true,
		},
		"an entry of a lower generation": {
			with(func(l *store.Ledger) { l.Generation, l.ValueSHA256, l.ExpiresAt, l.Probe = 6, "six", at.Add(-1), nil }),
			with(func(*store.Ledger) {}), true,
		},
		"the entry of the day before": {
			with(func(l *store.Ledger) { l.Day, l.Calls, l.Forced = "2026-01-01", 400, 30 }),
			with(func(*store.Ledger) {}), true,
		},
		"the entry before WeChat was asked about the token": {
			with(func(l *store.Ledger) { l.Probe = nil }), with(func(*store.Ledger) {}), false,
		},
	} {
		got, lost := Remember(known, tc.read)
		if diff := cmp.Diff(tc.want, got); diff != "" || lost != tc.lost {
			t.Errorf("%s: lost %t, want %t; %s", name, lost, tc.lost, diff)
		}
	}
	if got, lost := Remember(store.Ledger{}, known); lost || got.Calls != known.Calls {
		t.Errorf("a worker without memory goes by %+v, lost %t", got, lost)
	}
}
