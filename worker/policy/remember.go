package policy

import (
	"time"

	"github.com/wxkeeper/wxkeeper/worker/store"
)

// Remember is what a worker goes by when it has read an entry of the ledger: the entry, but with the limits of what
// the worker remembers if the entry was lost or set back. lost reports that: the entry should be written again.
// Without this floor, a lost entry, or an earlier one that is stored again, would allow the calls of the day once more.
func Remember(known, read store.Ledger) (l store.Ledger, lost bool) {
	switch {
	case known.IsEmpty():
		return read, false
	case read.IsEmpty():
		known.Revision = read.Revision
		return known, true
	}
	if read.Probe == nil && known.Generation == read.Generation {
		read.Probe = known.Probe
	}
	if !isSetBack(known, read) {
		return read, false
	}
	if read.Generation < known.Generation {
		read.Generation, read.ValueSHA256, read.FirstSeen, read.ExpiresAt = known.Generation, known.ValueSHA256,
			known.FirstSeen, known.ExpiresAt
		read.Probe = known.Probe
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
	read.LastHardForced = later(read.LastHardForced, known.LastHardForced)
	read.Pace = later(read.Pace, known.Pace)
	read.ForcedPace = later(read.ForcedPace, known.ForcedPace)
	read.ProbePace = later(read.ProbePace, known.ProbePace)
	read.HardPace = later(read.HardPace, known.HardPace)
	return read, true
}

// isSetBack reports whether an entry is one from before the known one: it has a lower generation, an earlier day, or
// fewer calls of the day. Only an attempt that was taken back ([Undo]) leaves one call less, and it keeps the time of
// the attempt.
func isSetBack(known, read store.Ledger) bool {
	undone := read.Calls == known.Calls-1 && read.LastAttempt.Equal(known.LastAttempt)
	return read.Generation < known.Generation || read.Day < known.Day ||
		read.Day == known.Day && read.Calls < known.Calls && !undone
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
