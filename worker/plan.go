package worker

import (
	"time"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// settle turns WeChat's answer into the record, says whether it is to be published, and writes the success down.
func (p *policy) settle(v view, l store.Ledger, appid string, kind messages.Kind, issued wechat.Issued) (messages.Credential, bool, store.Ledger) {
	sent := issued.SentAt.UTC().Truncate(time.Millisecond)
	hash := messages.ValueSHA256(issued.Value)
	c := messages.Credential{AppID: appid, Kind: kind, Value: issued.Value, ObtainedAt: sent, Generation: l.Generation}
	same := l.ValueSHA256 == hash
	// A record of before the last value, which WeChat gives out again, is news to who has that one.
	stored := v.record != nil && v.record.Value == issued.Value && v.record.Generation >= l.Generation
	switch {
	case stored:
		c.ObtainedAt, c.Generation, same = v.record.ObtainedAt, v.record.Generation, true
	case same:
		c.ObtainedAt = l.FirstSeen // its age counts from there, though the record has gone
	case !same:
		c.Generation++
	}
	c.ExpiresAt, c.RefreshAt = p.plan(v.rule, c.ObtainedAt, sent, issued.ExpiresIn, same)
	c.ExpiresAt, c.RefreshAt = c.ExpiresAt.Truncate(time.Millisecond), c.RefreshAt.Truncate(time.Millisecond) // as kv.Credential promises
	drift := time.Duration(0)
	if stored {
		drift = c.ExpiresAt.Sub(v.record.ExpiresAt).Abs()
	}
	unchanged := stored && drift <= lifeTolerance
	if unchanged {
		c.ExpiresAt, c.Source, c.Worker, c.Revision = v.record.ExpiresAt, v.record.Source, v.record.Worker, v.record.Revision
	}
	// One that WeChat gives out for months is still good; kv knows no life of months.
	if oldest := c.ExpiresAt.Add(-messages.MaxLife); c.ObtainedAt.Before(oldest) {
		c.ObtainedAt = oldest
	}
	l.Generation, l.ValueSHA256, l.FirstSeen, l.ExpiresAt = c.Generation, hash, c.ObtainedAt, c.ExpiresAt
	l.Attempts, l.Failure, l.Refused, l.LastSuccess, l.NextAttempt = 0, nil, nil, l.LastAttempt, c.RefreshAt
	return c, !unchanged, l
}

// plan says when a value ends, and when WeChat is asked next. first is when the value was first seen, sent when the
// answer at hand was asked for. The jitter is drawn here, once, and stored in the record and the ledger.
func (p *policy) plan(r rule, first, sent time.Time, expiresIn time.Duration, same bool) (expires, refresh time.Time) {
	jitter := func(d time.Duration) time.Duration { return time.Duration(p.random() * float64(d)) }
	switch r {
	case ticketRule:
		interval := min(ticketInterval, expiresIn/3)
		end := first.Add(expiresIn)
		expires, refresh = end, sent.Add(interval-jitter(interval/10))
		if good := sent.Add(min(2*interval, expiresIn)); good.After(expires) {
			expires = good // WeChat still gives it out
		}
		// WeChat turns to a new ticket when the old one's life is over: look just then, not up to an interval later.
		if turn := end.Add(interval/90 + jitter(interval/30)); end.After(sent) && turn.Sub(sent) < interval+interval/10 {
			refresh = turn
		}
		return expires, refresh
	case stableRule:
		expires = sent.Add(expiresIn)
		window := min(stableWindow, expires.Sub(first)/3)
		refresh = expires.Add(-window + window/20 + jitter(window/5))
		if same && !refresh.After(sent) { // in the last minutes, and still the old one
			refresh = sent.Add(expiresIn / 2)
		}
		return expires, refresh
	default:
		expires = sent.Add(expiresIn)
		before := min(p.refreshBefore, expiresIn/3)
		return expires, expires.Add(-before - jitter(before/4))
	}
}
