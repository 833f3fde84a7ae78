package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// dead names the value that a consumer found dead: by revision, by hash, or (zero) the current one.
type dead struct {
	revision uint64
	sha256   string
	// firsthand: this worker itself was refused. Its word is checked again sooner than that of a consumer, who might
	// say the same for ever.
	firsthand bool
}

// is reports whether c is the value that d names.
func (d dead) is(c kv.Credential) bool {
	switch {
	case d.revision != 0:
		return d.revision == c.Revision
	case d.sha256 != "":
		return d.sha256 == valueSHA256(c.Value)
	default:
		return true
	}
}

// verdict is the outcome of a report.
type verdict struct {
	current kv.Credential
	reason  string // one of messages.Reason…
}

const (
	verdictAlive        = "alive"
	verdictDead         = "dead"
	verdictInconclusive = "inconclusive"
)

// report settles that a value is said to be dead (design §5.5). A value that is not the current one is answered at
// once, from memory. Otherwise all reports of one credential share one settlement, here by singleflight, across the
// fleet by the lease. It blocks until ctx ends at the latest. Its error is a *messages.Error.
func (r *refresher) report(ctx context.Context, a *Account, kind kv.Kind, d dead) (verdict, error) {
	if c, err := r.reader.Get(a.AppID, kind); err == nil && !d.is(c) && d.revision <= c.Revision {
		r.metrics.reports.WithLabelValues(messages.ReasonNotCurrent).Inc()
		return verdict{c, messages.ReasonNotCurrent}, nil
	}
	ch := r.reports.DoChan(kv.Key(a.AppID, kind), func() (any, error) {
		// Not the caller's context: others share the outcome.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.leaseTTL+publishReserve)
		defer cancel()
		v, err := r.settleReport(ctx, a, kind, d)
		if err != nil {
			return verdict{}, asRefusal(err)
		}
		return v, nil
	})
	select {
	case res := <-ch:
		label := res.Val.(verdict).reason
		var refusal *messages.Error
		if errors.As(res.Err, &refusal) {
			label = string(refusal.Symbol)
		}
		r.metrics.reports.WithLabelValues(label).Inc()
		return res.Val.(verdict), res.Err
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return verdict{}, asRefusal(ctx.Err())
		}
		return verdict{}, messages.Errorf(messages.UpstreamTimeout, "the refresh is still under way").After(retryMin)
	}
}

// settleReport takes a turn for the report, however long another worker's turn lasts.
func (r *refresher) settleReport(ctx context.Context, a *Account, kind kv.Kind, d dead) (verdict, error) {
	for {
		var v verdict
		err := r.take(ctx, a, kind, func(ctx context.Context, t *turn) (err error) {
			v, err = t.settle(ctx, d)
			return err
		})
		if errors.Is(err, kv.ErrLeaseHeld) {
			// Its turn may bring a newer value; if not, ours is next.
			held := uint64(0)
			if c := r.reader.Held(a.AppID, kind); c != nil {
				held = c.Generation
			}
			waiting, cancel := context.WithTimeout(ctx, retryMin/4)
			c, newer := r.reader.WaitNewer(waiting, a.AppID, kind, held)
			cancel()
			if newer == nil && !d.is(c) {
				return verdict{c, messages.ReasonNotCurrent}, nil
			}
			if ctx.Err() == nil {
				continue
			}
		}
		return v, err
	}
}

// settle compares again, now that nobody else can change the record, asks WeChat whether the value lives, and
// refreshes it where it does not and the throttle allows.
func (t *turn) settle(ctx context.Context, d dead) (verdict, error) {
	now := t.now()
	rec := t.view.record
	if rec != nil && !rec.Valid(now) {
		rec = nil
	}
	if rec != nil && !d.is(*rec) {
		return verdict{*rec, messages.ReasonNotCurrent}, nil
	}
	if t.kind != kv.AccessToken && !t.view.hasToken {
		return verdict{}, messages.Errorf(messages.NoCredential, "a ticket needs an access_token, and there is none now").After(retryMin)
	}
	answer := verdictInconclusive
	if rec != nil && t.kind == kv.AccessToken {
		var err error
		if answer, err = t.probe(ctx, rec, d.firsthand); err != nil {
			return verdict{}, err
		}
		if answer == verdictAlive {
			return verdict{*rec, messages.ReasonAlive}, nil
		}
	}
	if at := forcedAt(now, t.view.ledger, t.view.rule); at.After(now) {
		if l := t.view.ledger; l.Attempts > 0 && l.NextAttempt.Before(at) {
			at = l.NextAttempt // the last one failed, and is tried again by the schedule
		}
		return verdict{}, messages.Errorf(messages.Throttled, "%s was refreshed for a report at %s; it may be refreshed again at %s",
			kv.Key(t.account.AppID, t.kind), t.view.ledger.LastForced.UTC().Format(time.TimeOnly), at.UTC().Format(time.TimeOnly)).After(at.Sub(now))
	}
	if err := t.standing(now); err != nil {
		return verdict{}, err
	}
	if answer == verdictDead {
		t.conflict(rec)
	}
	c, err := t.fetch(ctx, reasonReported, false)
	if err != nil {
		return verdict{}, err
	}
	if rec == nil || c.Value != rec.Value {
		return verdict{c, messages.ReasonRefreshed}, nil
	}
	// The normal mode returned the very token. Only if WeChat itself refuses it is the forced mode worth one of its
	// 20 calls a day.
	l := t.view.ledger
	if t.view.rule != stableRule || answer != verdictDead || l.HardForced >= hardForcedPerDay {
		return verdict{c, messages.ReasonUnchanged}, nil
	}
	t.log.Warn("stable_token repeats a token that WeChat refuses: force_refresh", "appid", c.AppID, "forced_today", l.HardForced+1)
	t.view.record = &c
	c, err = t.fetch(ctx, reasonReported, true)
	if err != nil {
		return verdict{}, err
	}
	if c.Value == rec.Value {
		return verdict{c, messages.ReasonUnchanged}, nil
	}
	return verdict{c, messages.ReasonRefreshed}, nil
}

// standing refuses a refresh that WeChat has just refused for a reason that only an operator, or time, can remove.
func (t *turn) standing(now time.Time) error {
	l := t.view.ledger
	if f := l.Failure; f != nil && l.Config == t.view.settings && l.NextAttempt.After(now) {
		switch f.Class {
		case wechat.ClassDailyQuota.String(), wechat.ClassMinuteQuota.String():
			e := messages.Errorf(messages.QuotaExhausted, "%s", f.Message).After(l.NextAttempt.Sub(now))
			e.Errcode, e.RID = f.Errcode, f.RID
			return e
		}
	}
	return nil
}

// probe asks WeChat whether it accepts a token: GET /cgi-bin/get_api_domain_ip, the cheapest interface that needs one.
// An answer stands for some seconds, for the whole fleet. An inconclusive one counts as dead when it comes to refreshing,
// but is no proof.
func (t *turn) probe(ctx context.Context, c *kv.Credential, firsthand bool) (string, error) {
	now := t.now()
	stands := probeEvery
	if firsthand {
		stands = probeFirsthand
	}
	if p := t.view.ledger.Probe; p != nil && p.Generation == c.Generation && now.Sub(p.At) < stands && !p.At.After(now) {
		return p.Verdict, nil
	}
	asking, cancel := context.WithDeadline(ctx, t.lease.Deadline().Add(-t.leaseTTL/2))
	_, err := t.upstream.APIDomainIP(asking, c.Value)
	cancel()
	answer := verdictInconclusive
	var we *wechat.Error
	switch {
	case err == nil:
		answer = verdictAlive
	case errors.As(err, &we) && we.Class == wechat.ClassDeadToken:
		answer = verdictDead
	}
	t.log.Info("a token was reported as dead: asked WeChat", "appid", c.AppID, "generation", c.Generation, "verdict", answer)
	l := t.view.ledger
	l.Probe = &kv.Probe{At: now, Generation: c.Generation, Verdict: answer}
	if _, err := t.write(ctx, l); err != nil {
		return "", fmt.Errorf("writing the answer of WeChat down: %w", err)
	}
	return answer, nil
}

// conflict notes that WeChat refuses a token whose life is not nearly over and that the fleet did not replace: another
// system refreshes the same account (design §5.6). The note is written with the refresh that follows.
func (t *turn) conflict(c *kv.Credential) {
	now := t.now()
	if left := c.ExpiresAt.Sub(now); left < c.Life()/10 {
		return // about to expire: a difference of clocks explains it
	}
	t.view.ledger.Conflicts++
	t.view.ledger.LastConflict = now
	t.metrics.conflicts.Inc()
	t.log.Error("conflict: another system refreshes this account", "appid", c.AppID, "generation", c.Generation,
		"obtained_at", c.ObtainedAt, "conflicts", t.view.ledger.Conflicts, "advice", adviceConflict)
	t.tell(messages.EventConflict, messages.Event{
		Generation: c.Generation, ExpiresAt: c.ExpiresAt, Advice: adviceConflict,
		Message: "WeChat refuses the token long before its end, and wxkeeper did not replace it",
	})
}

// adviceConflict is for an operator.
const adviceConflict = "another system fetches tokens of this account and so kills wxkeeper's: stop it, let it read the " +
	"credential from NATS, or set WECHAT_TOKEN_API=stable_token, which is isolated from the other interface"
