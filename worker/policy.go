package worker

import (
	"slices"
	"time"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// rule is how one kind of credential is renewed (design §5.8).
type rule uint8

const (
	// classicRule: GET /cgi-bin/token mints a new token at each call, and old and new are both good for 5 minutes.
	// Renewed refreshBefore its end.
	classicRule rule = iota
	// stableRule: POST /cgi-bin/stable_token repeats the token until its last 5 minutes, then gives a new one beside
	// it. Asked in those 5 minutes.
	stableRule
	// ticketRule: GET /cgi-bin/ticket/getticket repeats the ticket with a constant expires_in, so it is looked at
	// regularly, and a value that WeChat still gives out is still good.
	ticketRule
)

const (
	stableWindow   = 5 * time.Minute  // in which stable_token gives a new token (getStableAccessToken)
	ticketInterval = 15 * time.Minute // between two looks at a ticket
	lifeTolerance  = 2 * time.Second  // by which two answers about one end may differ: expires_in is in whole seconds

	// minGap is the least time between two scheduled calls for one credential. Above it a leaky bucket lets paceBurst
	// calls pass at once and one per paceEvery after that, 1,560 in the worst day: less than the 2,000 that WeChat
	// allows a new account, whatever expires_in it answers.
	minGap    = time.Second
	paceEvery = time.Minute
	paceBurst = 120

	retryMin     = time.Second      // backoff after trouble that passes by itself: 1 s, doubled …
	retryMax     = time.Minute      // … up to a minute
	unknownMin   = time.Minute      // after an errcode that nobody knows
	unknownMax   = 30 * time.Minute //
	permanentMin = 10 * time.Minute // after what an operator must put right
	permanentMax = time.Hour        //
	quotaWait    = time.Hour        // the day's quota: no page says when the day rolls over, so ask rarely
	// saneFuture bounds what the ledger may ask to wait: 24 h is the longest wait in WeChat's table. More than that
	// was written by a worker whose clock was wrong.
	saneFuture = 26 * time.Hour
	// clockTolerance is by how much the clocks of two workers may differ before the ledger of the one that is ahead is
	// no longer believed.
	clockTolerance = time.Minute

	// othersPublish is how long a worker without a value waits for another to publish the one that the ledger knows: they
	// look at the bucket every 5 s.
	othersPublish = 8 * time.Second

	// forcedGap is the least time between two refreshes that reports cause for one credential.
	forcedGap = time.Minute
	// probeEvery is the least time between two questions to WeChat whether one token lives.
	probeEvery = 10 * time.Second
	// probeFirsthand is the same when a worker itself was refused: a token that another system kills just after WeChat
	// was asked must not be taken for alive much longer.
	probeFirsthand = time.Second
	// hardForcedPerDay is how many of the 20 calls a day with force_refresh are used.
	hardForcedPerDay = 10
)

// dailyQuota is the smallest quota of a day known for the interface of a rule (wechat-api §1.1, §1.2, §1.3).
func (r rule) dailyQuota() int {
	switch r {
	case classicRule:
		return 2000
	case stableRule:
		return 500_000
	default:
		return 10_000
	}
}

// shanghai is where WeChat's days begin. China has had no other offset since 1991.
var shanghai = time.FixedZone("Asia/Shanghai", 8*60*60)

func day(now time.Time) string { return now.In(shanghai).Format(time.DateOnly) }

// policy decides what is due. It has no clock and no state; random gives numbers of [0,1).
type policy struct {
	refreshBefore time.Duration
	random        func() float64
}

// action is what a credential needs.
type action uint8

const (
	wait     action = iota // until decision.at; a zero at: until something changes
	publish                // put the value that this worker holds back into the bucket
	fetch                  // ask WeChat
	tell                   // that it has expired
	remember               // write down again what the ledger has lost
)

// reason is why: a label of logs, metrics and status.
type reason = messages.Reason

const (
	reasonFresh       reason = messages.ReasonFresh       // wait: the next refresh is planned
	reasonBackoff     reason = messages.ReasonBackoff     // wait: the last attempt failed
	reasonNoToken     reason = messages.ReasonNoToken     // wait: a ticket needs a living access_token
	reasonPaced       reason = messages.ReasonPaced       // wait: too many calls in a short time
	reasonOthers      reason = messages.ReasonOthers      // wait: the bucket lost the record, and another worker may publish it again
	reasonLost        reason = messages.ReasonLost        // publish: the bucket lost the record
	reasonMissing     reason = messages.ReasonMissing     // fetch: there is no record
	reasonExpired     reason = messages.ReasonExpired     // fetch: the record's life is over
	reasonDue         reason = messages.ReasonDue         // fetch: the planned time has come
	reasonRetry       reason = messages.ReasonRetry       // fetch: the wait after a failure is over
	reasonNewSettings reason = messages.ReasonNewSettings // fetch: the settings that WeChat refused have been changed
	reasonUnpublished reason = messages.ReasonUnpublished // fetch: a value, or its longer life, was obtained, but its worker died before publishing it
	reasonReported    reason = messages.ReasonReported    // fetch: WeChat refuses the value, as a consumer reported
	reasonForgotten   reason = messages.ReasonForgotten   // remember: the bucket lost the ledger
	reasonRefused     reason = messages.ReasonRefused     // wait: the same, but the throttle of reports holds
)

// view is what a decision is made of.
type view struct {
	rule     rule
	record   *messages.Credential // in the bucket; nil: none
	held     *messages.Credential // the last one this worker saw, maybe newer than record; nil: none
	ledger   kv.Ledger
	settings string // fingerprint of the account
	hasToken bool   // for a ticket: there is a living access_token
	// lostAt is since when this worker knows that there is no record; zero: it does not wait for others who may hold one.
	lostAt time.Time
	// forgotten: the ledger is what this worker remembers, and the bucket has lost it.
	forgotten bool
}

// decision is what to do, when, and why.
type decision struct {
	action action
	at     time.Time
	reason reason
}

// next decides about one credential.
func (p *policy) next(now time.Time, v view) decision {
	if v.forgotten {
		return decision{remember, now, reasonForgotten}
	}
	valid := v.record != nil && v.record.Valid(now)
	v.ledger = sane(now, v.ledger)
	lost := v.held != nil && v.held.Valid(now.Add(lifeTolerance)) && (!valid || v.record.Generation < v.held.Generation)
	if lost && isLatest(v.ledger, v.held) {
		return decision{publish, now, reasonLost}
	}
	d := p.call(now, v, valid)
	// Another value was obtained since, so what is held may be dead soon: it is better than nothing while WeChat gives none.
	if lost && d.reason == reasonBackoff {
		return decision{publish, now, reasonLost}
	}
	// However long the next call has to wait: that the value has died is told when it does.
	if l := v.ledger; d.action == wait && l.Expired < l.Generation {
		end := l.ExpiresAt
		if valid {
			end = v.record.ExpiresAt
		}
		switch {
		case !end.After(now):
			return decision{tell, now, d.reason}
		case d.at.IsZero(), d.at.After(end):
			d.at = end
		}
	}
	return d
}

// call says when WeChat is asked next.
func (p *policy) call(now time.Time, v view, valid bool) decision {
	if v.rule == ticketRule && !v.hasToken {
		return decision{wait, time.Time{}, reasonNoToken}
	}
	d := p.due(now, v, valid)
	if d.at.After(now) {
		d.action = wait
		switch d.reason {
		case reasonRetry:
			d.reason = reasonBackoff
		case reasonReported:
			d.reason = reasonRefused
		case reasonMissing:
			d.reason = reasonOthers
		default:
			d.reason = reasonFresh
		}
		return d
	}
	if earliest := earliestCall(v.ledger); earliest.After(now) {
		return decision{wait, earliest, reasonPaced}
	}
	d.at = now // it may be zero, which means never in a decision to wait
	return d
}

// sane leaves out the times that a worker wrote whose clock was ahead: nobody waits for a time that never was.
func sane(now time.Time, l kv.Ledger) kv.Ledger {
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

// due says when and why WeChat is asked next, pacing left aside.
func (p *policy) due(now time.Time, v view, valid bool) decision {
	l := v.ledger
	planned := l.NextAttempt
	if planned.After(now.Add(saneFuture)) && (!valid || planned.After(v.record.ExpiresAt)) {
		planned = now
	}
	// The last attempt succeeded, but that could not be written down.
	unwritten := valid && v.record.Generation > l.Generation && !v.record.ObtainedAt.Before(l.LastAttempt.Truncate(time.Millisecond))
	switch {
	case valid && isRefused(l, v.record) && (l.Attempts == 0 || unwritten):
		return decision{fetch, forcedAt(now, l, v.rule), reasonReported}
	case unwritten:
		return decision{fetch, v.record.RefreshAt, reasonDue}
	case l.Attempts > 0 && l.Failure != nil && l.Failure.Class == wechat.ClassAccount.String() && !slices.Contains(l.Refused, v.settings):
		return decision{fetch, now, reasonNewSettings}
	case l.Attempts > 0:
		return decision{fetch, planned, reasonRetry}
	case !valid && (v.record != nil || hasExpired(now, l)):
		return decision{fetch, now, reasonExpired}
	case !valid:
		// Where a value lives that the bucket has lost, whoever holds it publishes it again: a worker that has just started
		// leaves them the time to notice, and to do so.
		at := now
		if l.Generation > 0 && !v.lostAt.IsZero() {
			at = v.lostAt.Add(othersPublish)
			if planned.Before(at) {
				at = planned
			}
		}
		return decision{fetch, at, reasonMissing}
	case l.Generation > v.record.Generation, l.Generation == v.record.Generation && l.ExpiresAt.Sub(v.record.ExpiresAt).Abs() > lifeTolerance:
		return decision{fetch, now, reasonUnpublished}
	case l.Generation < v.record.Generation || planned.IsZero(): // the ledger was lost, or not written any more
		return decision{fetch, v.record.RefreshAt, reasonDue}
	default:
		return decision{fetch, planned, reasonDue}
	}
}

// earliestCall is before when no scheduled call may be made.
func earliestCall(l kv.Ledger) time.Time {
	earliest := l.LastAttempt.Add(minGap)
	if paced := l.Pace.Add(-paceBurst * paceEvery); paced.After(earliest) {
		return paced
	}
	return earliest
}

// forcedAt is before when no report may cause a refresh: forcedGap after the last one, and once half of the quota of
// the day is gone, evenly over what is left of the day, so that scheduled refreshes always find some.
func forcedAt(now time.Time, l kv.Ledger, r rule) time.Time {
	if l.LastForced.IsZero() || l.LastForced.After(now.Add(clockTolerance)) {
		return time.Time{}
	}
	gap := forcedGap
	quota := r.dailyQuota()
	if l.Day == day(now) && l.Calls > quota/2 {
		midnight := now.In(shanghai).Truncate(time.Second)
		midnight = time.Date(midnight.Year(), midnight.Month(), midnight.Day()+1, 0, 0, 0, 0, shanghai)
		const reserve = 10 // of the quota: a tenth is never spent on reports
		left := quota - quota/reserve - l.Calls
		if left <= 0 {
			return midnight
		}
		gap = max(gap, midnight.Sub(now)/time.Duration(left))
	}
	return l.LastForced.Add(gap)
}

// begin writes an attempt down before it is made: it counts as failed until it has succeeded, so that a worker that
// dies in the middle, again and again, is spaced like any other failure.
func (p *policy) begin(now time.Time, v view, why reason) kv.Ledger {
	l := rollDay(now, sane(now, v.ledger))
	if l.Pace.Before(now) {
		l.Pace = now
	}
	l.Pace = l.Pace.Add(paceEvery)
	l.Calls++
	l.Attempts++
	l.LastAttempt = now
	l.NextAttempt = p.retryAt(now, wechat.ClassTransport, 0, l.Attempts)
	for _, c := range []*messages.Credential{v.record, v.held} {
		if c != nil && c.Generation > l.Generation { // the ledger was lost, or its last write was
			l.Generation, l.ValueSHA256, l.FirstSeen, l.ExpiresAt = c.Generation, messages.ValueSHA256(c.Value), c.ObtainedAt, c.ExpiresAt
		}
	}
	if hasExpired(now, l) {
		l.Expired = l.Generation
	}
	if why == reasonReported {
		l.LastForced = now
		l.Forced++
	}
	return l
}

// undo takes an attempt back that was begun and could not be made; before is the ledger as it was.
func undo(now time.Time, l, before kv.Ledger) kv.Ledger {
	before = rollDay(l.LastAttempt, before)
	l.Pace, l.Calls, l.Attempts, l.NextAttempt = before.Pace, before.Calls, before.Attempts, now.Add(retryMin)
	l.LastForced, l.Forced, l.HardForced = before.LastForced, before.Forced, before.HardForced
	return l
}

// isUnderWay says whether an attempt has begun whose outcome is not written down, and whose worker may still be at it;
// or has succeeded, and its value has not arrived here. current is the living value that this worker has, or nil.
func isUnderWay(now time.Time, l kv.Ledger, current *messages.Credential, leaseTTL time.Duration) bool {
	if current != nil && l.Generation > current.Generation || current == nil && l.Generation > 0 && !hasExpired(now, l) {
		return true
	}
	return l.Attempts > 0 && now.Sub(l.LastAttempt) < leaseTTL && (l.Failure == nil || l.Failure.At.Before(l.LastAttempt))
}

// isLatest says whether the ledger knows of no value that was obtained after c. One generation is that of two values where
// their workers could not write down, or not publish, what they had obtained.
func isLatest(l kv.Ledger, c *messages.Credential) bool {
	return c.Generation > l.Generation || c.Generation == l.Generation && l.ValueSHA256 == messages.ValueSHA256(c.Value)
}

// isRefused says whether WeChat was asked about a value and refuses it.
func isRefused(l kv.Ledger, c *messages.Credential) bool {
	return c != nil && l.Probe != nil && l.Probe.Verdict == verdictDead && l.Probe.Generation == c.Generation
}

// hasExpired says whether the last value that the ledger knows is dead.
func hasExpired(now time.Time, l kv.Ledger) bool { return l.Generation > 0 && !now.Before(l.ExpiresAt) }

// restore is the record to publish when the bucket has none, or one of a lower generation than this worker holds: the
// value that was obtained last, under a generation that every consumer takes.
func restore(now time.Time, v view) messages.Credential {
	c := *v.held
	if v.record != nil && v.record.Valid(now) && v.record.Value != c.Value && v.record.ObtainedAt.After(c.ObtainedAt) {
		generation := max(c.Generation, v.ledger.Generation) + 1
		c = *v.record
		c.Generation = generation
	}
	return c
}

func rollDay(now time.Time, l kv.Ledger) kv.Ledger {
	if d := day(now); l.Day != d {
		l.Day, l.Calls, l.Forced, l.HardForced = d, 0, 0, 0
	}
	return l
}

// fail writes a failed attempt down; settings are those it was made with.
func (p *policy) fail(now time.Time, l kv.Ledger, f kv.Failure, class wechat.Class, atLeast time.Duration, settings string) kv.Ledger {
	l.Failure = &f
	if class == wechat.ClassAccount && !slices.Contains(l.Refused, settings) {
		const most = 4 // of the settings that workers of one fleet may have in the course of a change
		l.Refused = append(slices.Clone(l.Refused[max(0, len(l.Refused)-most+1):]), settings)
	}
	l.NextAttempt = p.retryAt(now, class, atLeast, l.Attempts)
	return l
}

// retryAt is when to try again after the attempts-th failure in a row: grown, capped, with full jitter above a floor.
func (p *policy) retryAt(now time.Time, class wechat.Class, atLeast time.Duration, attempts int) time.Time {
	grown := func(lo, hi time.Duration) time.Duration {
		d := lo
		for i := 1; i < attempts && d < hi; i++ {
			d *= 2
		}
		return min(d, hi)
	}
	jitter := func(d time.Duration) time.Duration { return time.Duration(p.random() * float64(d)) }
	var d time.Duration
	switch class {
	case wechat.ClassAccount, wechat.ClassPermission, wechat.ClassBug:
		d = max(atLeast, grown(permanentMin, permanentMax))
		d += jitter(d / 4)
	case wechat.ClassDailyQuota:
		d = max(atLeast, quotaWait)
		d += jitter(d / 4)
	case wechat.ClassMinuteQuota:
		d = now.Truncate(time.Minute).Add(time.Minute).Sub(now) + jitter(grown(10*time.Second, retryMax))
	case wechat.ClassUnknown, wechat.ClassRequest:
		d = grown(unknownMin, unknownMax)
		d += jitter(d / 4)
	default: // busy, transport, server, broken, dead_token: it passes by itself
		d = retryMin + jitter(grown(retryMin, retryMax))
	}
	return now.Add(max(d, atLeast))
}
