package policy

import (
	"slices"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// Begin is the ledger entry that is written before an attempt. The attempt counts as failed until it has
// succeeded, so a worker that dies during it is followed by the same wait as any other failure
// (docs/architecture.md#refresh-4). force: it is a call of stable_token with force_refresh.
func (p *Policy) Begin(now time.Time, v View, why messages.Reason, force bool) store.Ledger {
	l := AtDay(now, withoutFuture(now, v.Ledger))
	l.Pace = scheduledCalls.spend(now, l.Pace)
	l.Calls++
	l.Attempts++
	l.LastAttempt = now
	l.NextAttempt = p.retryAt(now, wechat.ClassTransport, 0, l.Attempts)
	for _, c := range []*messages.Credential{v.Record, v.Held} {
		if c != nil { // newer than the entry if the entry was lost, or its last write was
			l = Know(l, *c)
		}
	}
	if HasExpired(now, l) {
		l.Expired = l.Generation
	}
	switch {
	case force: // the second call of a refresh that is counted already
		l.LastForced, l.LastHardForced, l.HardPace = now, now, forceRefreshes.spend(now, l.HardPace)
		l.HardForced++
	case why == messages.ReasonReported:
		l.LastForced, l.ForcedPace = now, reportedRefreshes.spend(now, l.ForcedPace)
		l.Forced++
	}
	return l
}

// Know notes the value of c in a ledger entry that knows only values of lower generations.
func Know(l store.Ledger, c messages.Credential) store.Ledger {
	if c.Generation > l.Generation {
		l.Generation, l.ValueSHA256, l.FirstSeen, l.ExpiresAt = c.Generation, messages.ValueSHA256(c.Value),
			c.ObtainedAt, c.ExpiresAt
	}
	return l
}

// Undo takes back an attempt that was begun and could not be made. before is the entry before [Policy.Begin].
func Undo(now time.Time, l, before store.Ledger) store.Ledger {
	before = AtDay(l.LastAttempt, before)
	l.Pace, l.Calls, l.Attempts, l.NextAttempt = before.Pace, before.Calls, before.Attempts, now.Add(RetryMin)
	l.LastForced, l.ForcedPace, l.Forced = before.LastForced, before.ForcedPace, before.Forced
	l.LastHardForced, l.HardPace, l.HardForced = before.LastHardForced, before.HardPace, before.HardForced
	return l
}

// Succeed makes the record of WeChat's answer, and the ledger entry after the success. isNew reports whether the
// record must be published, because its value or its known life is new. The caller then sets the record's Source
// and Worker.
func (p *Policy) Succeed(
	v View, l store.Ledger, appid string, kind messages.Kind, issued wechat.Issued,
) (c messages.Credential, isNew bool, after store.Ledger) {
	sent := issued.SentAt.UTC().Truncate(time.Millisecond)
	hash := messages.ValueSHA256(issued.Value)
	c = messages.Credential{AppID: appid, Kind: kind, Value: issued.Value, ObtainedAt: sent, Generation: l.Generation}
	same := l.ValueSHA256 == hash
	// A record older than the last generation does not count as stored: WeChat went back to its value, and
	// holders of the newer value must be notified.
	stored := v.Record != nil && v.Record.Value == issued.Value && v.Record.Generation >= l.Generation
	switch {
	case stored:
		c.ObtainedAt, c.Generation, same = v.Record.ObtainedAt, v.Record.Generation, true
	case same:
		c.ObtainedAt = l.FirstSeen // its age counts from then, though the record is gone
	case !same:
		c.Generation++
	}
	c.ExpiresAt, c.RefreshAt = p.plan(v.Rule, c.ObtainedAt, sent, issued.ExpiresIn, same)
	// the precision of a record
	c.ExpiresAt, c.RefreshAt = c.ExpiresAt.Truncate(time.Millisecond), c.RefreshAt.Truncate(time.Millisecond)
	drift := time.Duration(0)
	if stored {
		drift = c.ExpiresAt.Sub(v.Record.ExpiresAt).Abs()
	}
	unchanged := stored && drift <= lifeTolerance
	if unchanged {
		c.ExpiresAt, c.Source, c.Worker, c.Revision = v.Record.ExpiresAt, v.Record.Source, v.Record.Worker,
			v.Record.Revision
	}
	// WeChat may repeat a ticket for months; a record's life is limited to messages.MaxLife.
	if oldest := c.ExpiresAt.Add(-messages.MaxLife); c.ObtainedAt.Before(oldest) {
		c.ObtainedAt = oldest
	}
	l.Generation, l.ValueSHA256, l.FirstSeen, l.ExpiresAt = c.Generation, hash, c.ObtainedAt, c.ExpiresAt
	l.Attempts, l.Failure, l.Refused, l.LastSuccess, l.NextAttempt = 0, nil, nil, l.LastAttempt, c.RefreshAt
	return c, !unchanged, l
}

// plan is when a value ends, and when WeChat is asked next. first is when the value was first seen, sent when
// the request was sent. The jitter is drawn here, once, and stored in the record and the ledger entry
// (docs/architecture.md#refresh-9).
func (p *Policy) plan(r Rule, first, sent time.Time, expiresIn time.Duration, same bool) (expires, refresh time.Time) {
	switch r {
	case Ticket:
		interval := min(ticketInterval, expiresIn/3)
		end := first.Add(expiresIn)
		expires, refresh = end, sent.Add(interval-p.jitter(interval/10))
		if valid := sent.Add(min(2*interval, expiresIn)); valid.After(expires) {
			expires = valid // WeChat still issues it
		}
		// WeChat rotates to a new ticket when the life of the old one ends: ask just after that, not up to an
		// interval later.
		if rotated := end.Add(interval/90 + p.jitter(interval/30)); end.After(sent) &&
			rotated.Sub(sent) < interval+interval/10 {
			refresh = rotated
		}
		return expires, refresh
	case Stable:
		expires = sent.Add(expiresIn)
		window := min(stableWindow, expires.Sub(first)/3)
		// WeChat's window begins later than window says: expires_in is in whole seconds, and the answer took a moment.
		late := max(window/20, min(lifeTolerance, window/3))
		refresh = expires.Add(-window + late + p.jitter(window/5))
		if same && !refresh.After(sent) { // in the last minutes, and WeChat still repeats the old token
			refresh = sent.Add(expiresIn / 2)
		}
		return expires, refresh
	default:
		expires = sent.Add(expiresIn)
		before := min(p.RefreshBefore, expiresIn/3)
		return expires, expires.Add(-before - p.jitter(before/4))
	}
}

// jitter is a random part of d.
func (p *Policy) jitter(d time.Duration) time.Duration { return time.Duration(p.Random() * float64(d)) }

// Fail is the ledger entry after a failed attempt. v is what the attempt was based on, with the ledger entry of
// [Policy.Begin]. atLeast is the wait that WeChat asks for.
func (p *Policy) Fail(now time.Time, v View, f store.Failure, atLeast time.Duration) store.Ledger {
	l := v.Ledger
	l.Failure = &f
	notPermitted := f.Class == wechat.ClassPermission && l.Generation == 0 && l.Kind != messages.AccessToken
	l.NotPermitted = l.NotPermitted || notPermitted
	if (f.Class == wechat.ClassAccount || notPermitted) && !slices.Contains(l.Refused, v.Settings) {
		const most = 4 // different settings that the workers of one fleet may have while a change is rolled out
		l.Refused = append(slices.Clone(l.Refused[max(0, len(l.Refused)-most+1):]), v.Settings)
	}
	l.NextAttempt = p.retryAt(now, f.Class, atLeast, l.Attempts)
	if notPermitted {
		l.NextAttempt = now.Add(max(atLeast, notPermittedWait) + p.jitter(notPermittedWait/24))
	}
	if f.Class == wechat.ClassBroken && v.Rule == Classic { // by the other rules WeChat repeats the same value
		l.NextAttempt = now.Add(max(p.spentWait(now, v, l), atLeast))
	}
	return l
}

// spentWait is the wait after a call that has probably minted a classic token which nobody can read. WeChat accepts
// the token before for five minutes more, and no older one. So the next call, if its answer cannot be read either,
// ends the token that consumers have.
//
//   - While consumers have a valid token, the first retry comes shortly before those five minutes are over, or the
//     token's own end: until then waiting costs nothing, and a call may cost the token.
//   - Later retries, and those without a valid token, come after a minute, doubled up to ten: no token is left to lose,
//     but what could not be read is seldom readable a second later, and 10 min are 144 calls a day, less than the 200
//     that WeChat allows a test account. Tokens with short lives have shorter waits.
func (p *Policy) spentWait(now time.Time, v View, l store.Ledger) time.Duration {
	lo, hi := spentMin, spentMax
	if life := l.ExpiresAt.Sub(l.FirstSeen); life > 0 {
		lo, hi = max(RetryMin, min(lo, life/15)), max(RetryMin, min(hi, life/3))
	}
	d := grown(lo, hi, l.Attempts)
	d += p.jitter(d / 4)
	left := l.ExpiresAt.Sub(now)
	if left <= 0 || IsRefused(l, v.Record) {
		return d
	}
	first := min(overlapUsed, left*3/4) - p.jitter(min(overlapUsed, left)/8)
	if l.Attempts > 1 { // some of them may have been other failures
		return min(d, max(first, lo))
	}
	return max(first, RetryMin)
}

// grown is lo, doubled with each failure in a row after the first, up to hi.
func grown(lo, hi time.Duration, attempts int) time.Duration {
	d := lo
	for i := 1; i < attempts && d < hi; i++ {
		d *= 2
	}
	return min(d, hi)
}

// retryAt is when to try again after a number of failures in a row: exponential, capped, with jitter above a floor.
func (p *Policy) retryAt(now time.Time, class wechat.Class, atLeast time.Duration, attempts int) time.Time {
	var d time.Duration
	switch class {
	case wechat.ClassAccount, wechat.ClassPermission, wechat.ClassBug:
		d = max(atLeast, grown(PermanentMin, permanentMax, attempts))
		d += p.jitter(d / 4)
	case wechat.ClassDailyQuota:
		d = max(atLeast, QuotaWait)
		d += p.jitter(d / 4)
	case wechat.ClassMinuteQuota:
		d = now.Truncate(time.Minute).Add(time.Minute).Sub(now) + p.jitter(grown(10*time.Second, retryMax, attempts))
	case wechat.ClassUnknown, wechat.ClassRequest:
		d = grown(unknownMin, unknownMax, attempts)
		d += p.jitter(d / 4)
	default: // busy, transport, server, broken, dead_token: it passes by itself
		d = RetryMin + p.jitter(grown(RetryMin, retryMax, attempts))
	}
	return now.Add(max(d, atLeast))
}

// AtDay resets the counters of a ledger entry if now is on another day.
func AtDay(now time.Time, l store.Ledger) store.Ledger {
	if d := day(now); l.Day != d {
		l.Day, l.Calls, l.Forced, l.HardForced = d, 0, 0, 0
	}
	return l
}

// IsUnderWay reports whether an attempt has begun whose outcome is not written down, so that its worker may
// still be making it; or has succeeded, and its value has not arrived here. current is the valid value that
// this worker has, or nil.
func IsUnderWay(now time.Time, l store.Ledger, current *messages.Credential, leaseTTL time.Duration) bool {
	if current != nil && l.Generation > current.Generation || current == nil && l.Generation > 0 &&
		!HasExpired(now, l) {
		return true
	}
	return l.Attempts > 0 && now.Sub(l.LastAttempt) < leaseTTL &&
		(l.Failure == nil || l.Failure.At.Before(l.LastAttempt))
}
