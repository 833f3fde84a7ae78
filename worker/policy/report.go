package policy

import (
	"slices"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// Report is a report that WeChat refused a value: named by the revision of its record, by its SHA-256
// (lower-case hex), or by neither. A report that names no value means "retry now": only operators send it.
type Report struct {
	Revision    uint64
	ValueSHA256 string
	// SentAt is the time before the call was sent that WeChat refused, as far as it is known: not later. What WeChat
	// said before does not count against the report. Zero if no call was refused.
	SentAt time.Time
	// Own: the call was a worker's. For its sake, WeChat is asked even if consumers report without end.
	Own bool
}

// Names reports whether c is the reported value.
func (r Report) Names(c *messages.Credential) bool {
	switch {
	case r.Revision != 0:
		return r.Revision == c.Revision
	case r.ValueSHA256 != "":
		return r.ValueSHA256 == messages.ValueSHA256(c.Value)
	default:
		return true
	}
}

// FromOperator reports whether r is the report of an operator.
func (r Report) FromOperator() bool { return r.Revision == 0 && r.ValueSHA256 == "" }

// VerdictOf is WeChat's last verdict about the value of c, or "" if WeChat must be asked. It is valid for the whole
// fleet: "alive" for calls that were sent before WeChat was asked, the others for some seconds. c may be nil.
func VerdictOf(now time.Time, l store.Ledger, c *messages.Credential, r Report) store.Verdict {
	p := l.Probe
	if p == nil || c == nil || p.Generation != c.Generation || p.At.After(now.Add(clockTolerance)) {
		return ""
	}
	if p.Verdict == store.Alive && !r.SentAt.IsZero() {
		// If WeChat was asked in the future, it was by a worker whose clock is ahead: nobody knows whether that was
		// before the call.
		if p.At.Before(r.SentAt) || p.At.After(now) {
			return ""
		}
		return p.Verdict
	}
	if now.Sub(p.At) >= probeValid {
		return ""
	}
	return p.Verdict
}

// Answer answers a report of the current value from what is remembered, if that is enough. current is the
// current valid value, or nil. The answer is ReasonAlive, or a refusal. If there is no answer, the value must be
// probed if it is a token without a verdict, and otherwise refreshed. now is the time at which the report
// arrived: a verdict that was obtained for it is valid, however long it took to write it down. Answer implements
// docs/architecture.md#refresh-5.
func Answer(
	now time.Time, v View, key string, kind messages.Kind, current *messages.Credential, r Report,
) (messages.Reason, *messages.Error) {
	l := v.Ledger
	verdict := VerdictOf(now, l, current, r)
	switch {
	case verdict == store.Alive:
		return messages.ReasonAlive, nil
	case verdict == "" && current != nil && kind == messages.AccessToken:
		return "", nil // WeChat must be asked
	}
	if f := l.Failure; f != nil && l.NextAttempt.After(now) && !l.NextAttempt.After(now.Add(saneFuture)) {
		symbol := messages.Symbol("")
		switch f.Class {
		case wechat.ClassDailyQuota:
			symbol = messages.QuotaExhausted
		case wechat.ClassMinuteQuota:
			symbol = messages.Throttled
		case wechat.ClassAccount, wechat.ClassPermission:
			// An operator must act, and the reports of consumers change nothing. A report of the operator may mean
			// that the problem is fixed.
			if !r.FromOperator() && slices.Contains(l.Refused, v.Settings) {
				symbol = messages.NoCredential
			}
		case wechat.ClassBroken:
			// The next call mints another token too, and ends the one that consumers have, unless WeChat itself says
			// that it is dead.
			if v.Rule == Classic && current != nil && verdict != store.Dead && !r.FromOperator() {
				symbol = messages.Upstream
			}
		}
		if symbol != "" {
			e := messages.Errorf(symbol, "%s", f.Message).After(l.NextAttempt.Sub(now))
			e.Errcode, e.RID = f.Errcode, f.RID
			return "", e
		}
	}
	if at := forcedAt(now, l, v.Rule, verdict == store.Dead); at.After(now) {
		if l.Attempts > 0 && l.NextAttempt.Before(at) {
			at = later(l.NextAttempt, now.Add(RetryMin)) // the last refresh failed, and is retried by the schedule
		}
		why := "%s was refreshed for a report at %s; it may be refreshed again at %s"
		if verdict == store.Dead && l.Attempts == 0 {
			why = "WeChat refuses %s, and the budget of refreshes for reports is used up: the last one was at %s, the " +
				"next one is allowed at %s"
		}
		return "", messages.Errorf(messages.Throttled, why,
			key, l.LastForced.UTC().Format(time.TimeOnly), at.UTC().Format(time.TimeOnly)).After(at.Sub(now))
	}
	return "", nil
}
