package policy

import (
	"time"

	"github.com/wxkeeper/wxkeeper/worker/store"
)

// Remember is what a worker goes by when it has read an entry of the ledger: the entry, but with the limits of what
// the worker remembers if the entry was lost or set back. lost reports that: the entry should be written again. An
// entry is set back if it is empty, has fewer calls of the day (by more than the one call that [Undo] takes back), or
// a lower generation. Without this floor, a lost or replayed entry would allow the calls of the day once more.
func Remember(known, read store.Ledger) (l store.Ledger, lost bool) {
	switch {
	case known.IsEmpty():
		return read, false
	case read.IsEmpty():
		known.Revision = read.Revision
		return known, true
	case read.Day == known.Day && read.Calls >= known.Calls-1 && read.Generation >= known.Generation,
		read.Day > known.Day && read.Generation >= known.Generation:
		return read, false
	}
	if read.Generation < known.Generation {
		read.Generation, read.ValueSHA256, read.FirstSeen, read.ExpiresAt = known.Generation, known.ValueSHA256,
			known.FirstSeen, known.ExpiresAt
	}
	if read.Day < known.Day {
		read.Day, read.Calls, read.Forced, read.HardForced = known.Day, 0, 0, 0
	}
	if read.Day == known.Day {
		read.Calls = max(read.Calls, known.Calls)
		read.Forced = max(read.Forced, known.Forced)
		read.HardForced = max(read.HardForced, known.HardForced)
	}
	read.LastAttempt = later(read.LastAttempt, known.LastAttempt)
	read.LastForced = later(read.LastForced, known.LastForced)
	read.Pace = later(read.Pace, known.Pace)
	return read, true
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
