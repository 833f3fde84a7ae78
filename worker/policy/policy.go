package policy

import (
	"slices"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// Policy decides. It may be used concurrently if Random may.
type Policy struct {
	// RefreshBefore is how long before its end a classic token is renewed, at most a third of its life.
	RefreshBefore time.Duration
	// Random returns numbers of [0,1), for jitter.
	Random func() float64
}

// Action is what a credential needs.
type Action uint8

// The actions.
const (
	Wait         Action = iota // until Decision.At; zero: until something changes
	Republish                  // publish the value that this worker holds: the bucket has lost it
	Fetch                      // ask WeChat
	NoteExpiry                 // write down and publish as an event that the credential has expired
	RewriteEntry               // write the ledger entry again: the bucket has lost it
)

// View is what a decision is based on.
type View struct {
	Rule     Rule
	Record   *messages.Credential // in the bucket; nil: none
	Held     *messages.Credential // the last one that this worker has seen, may be newer than Record; nil: none
	Ledger   store.Ledger
	Settings string // fingerprint of the account's settings
	HasToken bool   // for a ticket: there is a valid access_token
	// RetryBefore: a ticket that WeChat does not permit is tried at once if its last attempt was before this time.
	RetryBefore time.Time
	// LostAt is since when this worker knows that there is no record; zero: do not wait for others that may hold it.
	LostAt time.Time
	// EntryLost: the bucket has lost the ledger entry, or it was set back or forged, and Ledger is what this
	// worker remembers.
	EntryLost bool
	// Foreign: the bucket has a record that is sealed with another AppSecret. Record is nil then.
	Foreign bool
}

// Decision is what to do, when, and why.
type Decision struct {
	Action Action
	At     time.Time
	Reason messages.Reason
}

// Next decides what a credential needs at now.
func (p *Policy) Next(now time.Time, v View) Decision {
	if v.EntryLost {
		return Decision{RewriteEntry, now, messages.ReasonForgotten}
	}
	valid := v.Record != nil && v.Record.Valid(now)
	v.Ledger = withoutFuture(now, v.Ledger)
	// A record that was stored with another AppSecret is not overwritten with what this worker holds: if it is a
	// worker's, it is newer. WeChat decides which of the two AppSecrets is right.
	lost := !v.Foreign && v.Held != nil && v.Held.Valid(now.Add(lifeTolerance)) &&
		(!valid || v.Record.Generation < v.Held.Generation)
	if lost && isLatest(v.Ledger, v.Held) {
		return Decision{Republish, now, messages.ReasonLost}
	}
	d := p.nextCall(now, v, valid)
	// Another value was obtained since, so the held one may be dead soon. While WeChat issues none, it is
	// better than nothing.
	if lost && d.Reason == messages.ReasonBackoff {
		return Decision{Republish, now, messages.ReasonLost}
	}
	// An expiry is noted when it happens, however late the next call is.
	if l := v.Ledger; d.Action == Wait && l.Expired < l.Generation {
		end := l.ExpiresAt
		if valid {
			end = v.Record.ExpiresAt
		}
		switch {
		case !end.After(now):
			return Decision{NoteExpiry, now, d.Reason}
		case d.At.IsZero(), d.At.After(end):
			d.At = end
		}
	}
	return d
}

// nextCall decides when WeChat is asked next.
func (p *Policy) nextCall(now time.Time, v View, valid bool) Decision {
	if v.Rule == Ticket && !v.HasToken {
		return Decision{Wait, time.Time{}, messages.ReasonNoToken}
	}
	d := p.due(now, v, valid)
	if d.At.After(now) {
		d.Action = Wait
		switch d.Reason {
		case messages.ReasonRetry:
			d.Reason = messages.ReasonBackoff
			if IsNotPermitted(v.Ledger) {
				d.Reason = messages.ReasonNotPermitted
			}
		case messages.ReasonReported:
			d.Reason = messages.ReasonRefused
		case messages.ReasonMissing:
			d.Reason = messages.ReasonOthers
		default:
			d.Reason = messages.ReasonFresh
		}
		return d
	}
	if earliest := earliestCall(now, v.Ledger); earliest.After(now) {
		return Decision{Wait, earliest, messages.ReasonPaced}
	}
	d.At = now // it may be zero, which a decision to wait uses for "never"
	return d
}

// withoutFuture removes the times that a worker wrote whose clock was ahead.
func withoutFuture(now time.Time, l store.Ledger) store.Ledger {
	end := now.Add(clockTolerance)
	if l.LastAttempt.After(end) {
		l.LastAttempt, l.NextAttempt, l.Pace = time.Time{}, time.Time{}, time.Time{}
	}
	if l.LastForced.After(end) {
		l.LastForced = time.Time{}
	}
	if l.Probe != nil && l.Probe.At.After(end) {
		l.Probe = nil
	}
	return l
}

// due is when and why WeChat is asked next, without the limits of earliestCall.
func (p *Policy) due(now time.Time, v View, valid bool) Decision {
	l := v.Ledger
	planned := l.NextAttempt
	if planned.After(now.Add(saneFuture)) && (!valid || planned.After(v.Record.ExpiresAt)) {
		planned = now
	}
	// The last attempt has succeeded, and its worker has published the record but not written the ledger entry.
	unwritten := valid && v.Record.Generation > l.Generation &&
		!v.Record.ObtainedAt.Before(l.LastAttempt.Truncate(time.Millisecond))
	switch {
	case valid && l.Attempts == 0 && l.Generation > v.Record.Generation:
		// Its worker is about to publish the new value, or to refresh once more if it could not.
		return Decision{Fetch, l.LastAttempt.Add(othersFinish), messages.ReasonUnpublished}
	case valid && IsRefused(l, v.Record) && (l.Attempts == 0 || unwritten):
		return Decision{Fetch, replaceAt(now, l, v.Rule), messages.ReasonReported}
	case unwritten:
		return Decision{Fetch, v.Record.RefreshAt, messages.ReasonDue}
	case l.Attempts > 0 && l.Failure != nil && l.Failure.Class == wechat.ClassAccount &&
		!slices.Contains(l.Refused, v.Settings):
		return Decision{Fetch, now, messages.ReasonNewSettings}
	case IsNotPermitted(l) && !slices.Contains(l.Refused, v.Settings):
		return Decision{Fetch, now, messages.ReasonNewSettings}
	case IsNotPermitted(l) && l.LastAttempt.Before(v.RetryBefore):
		return Decision{Fetch, now, messages.ReasonRetry}
	case l.Attempts > 0:
		return Decision{Fetch, planned, messages.ReasonRetry}
	case !valid && (v.Record != nil || HasExpired(now, l)):
		return Decision{Fetch, now, messages.ReasonExpired}
	case !valid:
		// If the bucket has lost a value that is still valid, a worker that holds it publishes it again. This
		// worker waits for that: its own call would be wasted, and a call of the classic interface would kill
		// the value of the others.
		at := now
		if l.Generation > 0 && !v.LostAt.IsZero() {
			at = v.lostSince(now).Add(othersPublish)
			if planned.Before(at) {
				at = planned
			}
		}
		return Decision{Fetch, at, messages.ReasonMissing}
	case l.Generation == v.Record.Generation &&
		l.ExpiresAt.Sub(v.Record.ExpiresAt).Abs() > lifeTolerance:
		return Decision{Fetch, now, messages.ReasonUnpublished}
	case l.Generation < v.Record.Generation || planned.IsZero(): // the entry was lost, or its last write was
		return Decision{Fetch, v.Record.RefreshAt, messages.ReasonDue}
	default:
		return Decision{Fetch, planned, messages.ReasonDue}
	}
}

// earliestCall is the time before which no scheduled call may be made.
func earliestCall(now time.Time, l store.Ledger) time.Time {
	earliest := l.LastAttempt.Add(MinGap)
	return later(earliest, scheduledCalls.next(now, l.Pace))
}

// isLatest reports whether the ledger entry knows of no value that was obtained after c. Two values have one
// generation if their workers could not write down, or not publish, what they had obtained.
func isLatest(l store.Ledger, c *messages.Credential) bool {
	return c.Generation > l.Generation || c.Generation == l.Generation && l.ValueSHA256 == messages.ValueSHA256(c.Value)
}

// IsRefused reports whether WeChat was asked about the value of c, and refuses it. c may be nil.
func IsRefused(l store.Ledger, c *messages.Credential) bool {
	return c != nil && l.Probe != nil && l.Probe.Verdict == store.Dead && l.Probe.Generation == c.Generation
}

// HasExpired reports whether the last value that the ledger entry knows has expired.
func HasExpired(now time.Time, l store.Ledger) bool {
	return l.Generation > 0 && !now.Before(l.ExpiresAt)
}

// Restored is the record to publish if the bucket has none, or has one of a lower generation than this worker
// holds: the value that was obtained last, with a generation that every consumer accepts.
func Restored(now time.Time, v View) messages.Credential {
	c := *v.Held
	if v.Record != nil && v.Record.Valid(now) && v.Record.Value != c.Value && v.Record.ObtainedAt.After(c.ObtainedAt) {
		generation := max(c.Generation, v.Ledger.Generation) + 1
		c = *v.Record
		c.Generation = generation
	}
	return c
}

// WaitsForOthers reports until when a credential that the bucket has lost is left to other workers; zero: it is not.
func WaitsForOthers(now time.Time, v View) time.Time {
	until := v.lostSince(now).Add(othersPublish)
	if v.Record == nil && v.Ledger.Generation > 0 && !HasExpired(now, v.Ledger) && now.Before(until) {
		return until
	}
	return time.Time{}
}

// lostSince is LostAt, but not before the last value was obtained: a worker that was frozen, or whose watch is
// late, knows of an earlier loss, and has not seen the record that was published and lost since.
func (v View) lostSince(now time.Time) time.Time {
	obtained := v.Ledger.LastSuccess
	if v.LostAt.IsZero() || obtained.Before(v.LostAt) || obtained.After(now.Add(clockTolerance)) {
		return v.LostAt
	}
	return obtained
}

// IsNotPermitted reports whether the entry is of a ticket that WeChat has never issued to the account, because the
// account may not have it. A ticket that was issued once and is refused now fails: consumers may use it.
func IsNotPermitted(l store.Ledger) bool { return l.NotPermitted && l.Generation == 0 }

// StateOf is the state of a credential that status shows. held is what this worker holds; nil: nothing.
func StateOf(now time.Time, held *messages.Credential, l store.Ledger) messages.State {
	valid := held != nil && held.Valid(now)
	switch {
	case valid && IsRefused(l, held):
		return messages.StateRefused
	case valid && (l.Failure != nil || l.Attempts > 1):
		return messages.StateFailing
	case valid:
		return messages.StateFresh
	case held != nil || l.Generation > 0:
		return messages.StateExpired
	case IsNotPermitted(l):
		return messages.StateNotPermitted
	default:
		return messages.StateMissing
	}
}
