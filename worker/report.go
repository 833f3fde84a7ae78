package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
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
func (d dead) is(c messages.Credential) bool {
	switch {
	case d.revision != 0:
		return d.revision == c.Revision
	case d.sha256 != "":
		return d.sha256 == messages.ValueSHA256(c.Value)
	default:
		return true
	}
}

// verdict is the outcome of a report.
type verdict struct {
	current messages.Credential
	reason  messages.Reason
}

const (
	verdictAlive        = "alive"
	verdictDead         = "dead"
	verdictInconclusive = "inconclusive"
)

// report settles that a value is said to be dead (design §5.5). What this worker knows already is answered at once, from
// memory: that the value is not the current one, that WeChat has just said that it lives, that it was refreshed a moment
// ago. Otherwise all reports of one credential share one settlement, here by one flight, across the fleet by the lease.
// It blocks until ctx ends at the latest. Its error is a *messages.Error.
func (r *refresher) report(ctx context.Context, a *Account, kind messages.Kind, d dead) (verdict, error) {
	v, err := r.reportOnce(ctx, a, kind, d)
	label := string(v.reason)
	var refusal *messages.Error
	if errors.As(err, &refusal) {
		label = string(refusal.Symbol)
	}
	r.metrics.reports.WithLabelValues(label).Inc()
	return v, err
}

func (r *refresher) reportOnce(ctx context.Context, a *Account, kind messages.Kind, d dead) (verdict, error) {
	if err := ctx.Err(); err != nil {
		return verdict{}, asRefusal(err)
	}
	c, err := r.reader.Get(a.AppID, kind)
	if err == nil && d.revision > c.Revision {
		// Newer than what this worker knows, or made up: the leader knows.
		if c, err = r.store.Get(ctx, a.AppID, kind); err == nil {
			r.reader.Apply(c)
		} else if !errors.Is(err, kv.ErrNotFound) {
			return verdict{}, asRefusal(err)
		}
	}
	var current *messages.Credential
	if err == nil {
		if current = &c; !d.is(c) {
			return verdict{c, messages.ReasonNotCurrent}, nil
		}
	}
	now := r.now()
	if ledger, _ := r.known(a, kind); !isUnderWay(now, ledger, current, r.leaseTTL) {
		if v, ok, err := decided(now, a, kind, ledger, current, d); ok {
			return v, err
		}
	}
	key := messages.Key(a.AppID, kind)
	f, leads, _ := r.settlements.join(key, nil)
	if leads {
		f.err = messages.Errorf(messages.Upstream, "internal error") // if it panics
		// Not the caller's context: others share the outcome, and a stop waits for it.
		settling := context.WithoutCancel(ctx)
		r.settling.Go(func() {
			defer r.settlements.end(key, f)
			defer func() {
				if p := recover(); p != nil {
					r.log.Error("panic in a settlement", "appid", a.AppID, "kind", kind, "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
				}
			}()
			ctx, cancel := context.WithTimeout(settling, r.leaseTTL+publishReserve)
			defer cancel()
			v, err := r.settleReport(ctx, a, kind, d)
			f.value, f.err = v, nil
			if err != nil {
				f.err = asRefusal(err)
			}
		})
	}
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return verdict{}, asRefusal(ctx.Err())
		}
		return verdict{}, messages.Errorf(messages.UpstreamTimeout, "the refresh is still under way").After(retryMin)
	}
}

// decided answers a report of the current value from what is remembered, where that is enough. current is nil where
// there is no living value. now is when the report came: a verdict that was obtained for it holds, however long writing
// it down took.
func decided(now time.Time, a *Account, kind messages.Kind, l kv.Ledger, current *messages.Credential, d dead) (v verdict, known bool, err error) {
	probed := remembered(now, l, current, d.firsthand)
	switch {
	case probed == verdictAlive:
		return verdict{*current, messages.ReasonAlive}, true, nil
	case probed == "" && current != nil && kind == messages.AccessToken:
		return verdict{}, false, nil // WeChat is to be asked
	}
	if f := l.Failure; f != nil && l.NextAttempt.After(now) && !l.NextAttempt.After(now.Add(saneFuture)) {
		symbol := messages.Symbol("")
		switch f.Class {
		case wechat.ClassDailyQuota.String():
			symbol = messages.QuotaExhausted
		case wechat.ClassMinuteQuota.String():
			symbol = messages.Throttled
		case wechat.ClassAccount.String(), wechat.ClassPermission.String():
			// An operator must act, and may say that he has by naming no value. What consumers report changes nothing.
			if d != (dead{}) && slices.Contains(l.Refused, a.fingerprint()) {
				symbol = messages.NoCredential
			}
		}
		if symbol != "" {
			e := messages.Errorf(symbol, "%s", f.Message).After(l.NextAttempt.Sub(now))
			e.Errcode, e.RID = f.Errcode, f.RID
			return verdict{}, true, e
		}
	}
	if at := forcedAt(now, l, a.rule(kind)); at.After(now) {
		if l.Attempts > 0 && l.NextAttempt.Before(at) {
			at = l.NextAttempt // the last one failed, and is tried again by the schedule
			if soon := now.Add(retryMin); at.Before(soon) {
				at = soon
			}
		}
		return verdict{}, true, messages.Errorf(messages.Throttled, "%s was refreshed for a report at %s; it may be refreshed again at %s",
			messages.Key(a.AppID, kind), l.LastForced.UTC().Format(time.TimeOnly), at.UTC().Format(time.TimeOnly)).After(at.Sub(now))
	}
	return verdict{}, false, nil
}

// remembered is WeChat's last verdict of a token, or "" where it must be asked. A verdict stands for probeEvery, for the
// whole fleet, and shorter for a worker that was itself refused.
func remembered(now time.Time, l kv.Ledger, c *messages.Credential, firsthand bool) string {
	stands := probeEvery
	if firsthand {
		stands = probeFirsthand
	}
	if p := l.Probe; p != nil && c != nil && p.Generation == c.Generation && now.Sub(p.At) < stands && !p.At.After(now.Add(clockTolerance)) {
		return p.Verdict
	}
	return ""
}

// settleReport takes a turn for the report, however long another worker's turn lasts.
func (r *refresher) settleReport(ctx context.Context, a *Account, kind messages.Kind, d dead) (verdict, error) {
	for {
		var v verdict
		err := r.take(ctx, a, kind, func(ctx context.Context, t *turn) (err error) {
			v, err = t.settle(ctx, d)
			return err
		})
		switch {
		case err == nil && v.reason == "": // take itself refreshed once more
			c, err := r.reader.Get(a.AppID, kind)
			return verdict{c, messages.ReasonRefreshed}, err
		case !errors.Is(err, kv.ErrLeaseHeld):
			return v, err
		}
		// Its turn may bring a newer value; if not, ours is next.
		held := uint64(0)
		if c := r.reader.Held(a.AppID, kind); c != nil {
			held = c.Generation
		}
		waiting, cancel := context.WithTimeout(ctx, retryMin/4)
		c, newer := r.reader.WaitNewer(waiting, a.AppID, kind, held)
		cancel()
		switch {
		case newer == nil && !d.is(c):
			return verdict{c, messages.ReasonNotCurrent}, nil
		case ctx.Err() != nil:
			return v, err
		}
	}
}

// settle compares again, now that nobody else can change the record, asks WeChat whether the value lives, and
// refreshes it where it does not and the throttle allows.
func (t *turn) settle(ctx context.Context, d dead) (verdict, error) {
	now := t.now()
	t.view.forgotten = false // what is written below brings it back
	if t.policy.next(now, t.view).action == publish {
		// This worker holds a newer value than the bucket, and maybe that is the reported one.
		if err := t.republish(ctx); err != nil {
			return verdict{}, err
		}
		t.view.held = t.reader.Held(t.account.AppID, t.kind)
		t.view.record = t.view.held
	}
	rec := t.view.record
	if rec != nil && !rec.Valid(now) {
		rec = nil
	}
	if rec != nil && !d.is(*rec) {
		return verdict{*rec, messages.ReasonNotCurrent}, nil
	}
	if v := t.view; v.record == nil && v.ledger.Generation > 0 && !hasExpired(now, v.ledger) && now.Before(v.lostAt.Add(othersPublish)) {
		return verdict{}, messages.Errorf(messages.NoCredential, "the bucket has lost %s, and another worker may publish it again", messages.Key(t.account.AppID, t.kind)).
			After(v.lostAt.Add(othersPublish).Sub(now))
	}
	if t.kind != messages.AccessToken && !t.view.hasToken {
		return verdict{}, messages.Errorf(messages.NoCredential, "a ticket needs an access_token, and there is none now").After(retryMin)
	}
	if rec != nil && t.kind == messages.AccessToken && remembered(now, t.view.ledger, rec, d.firsthand) == "" {
		if err := t.probe(ctx, rec); err != nil {
			return verdict{}, err
		}
	}
	if v, ok, err := decided(now, t.account, t.kind, t.view.ledger, rec, d); ok {
		return v, err
	}
	answer := remembered(now, t.view.ledger, rec, d.firsthand)
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
	forced, err := t.fetch(ctx, reasonReported, true)
	switch {
	case errors.Is(err, errLate): // the next report comes to it
		return verdict{c, messages.ReasonUnchanged}, nil
	case err != nil:
		return verdict{}, err
	}
	c = forced
	if c.Value == rec.Value {
		return verdict{c, messages.ReasonUnchanged}, nil
	}
	return verdict{c, messages.ReasonRefreshed}, nil
}

// probe asks WeChat whether it accepts a token: GET /cgi-bin/get_api_domain_ip, the cheapest interface that needs one. It
// writes the verdict down, for the whole fleet. An inconclusive one counts as dead when it comes to refreshing, but is
// no proof.
func (t *turn) probe(ctx context.Context, c *messages.Credential) error {
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
	if answer == verdictInconclusive && isRefused(l, c) {
		answer = verdictDead // WeChat has said so before, and nothing else since; it would be told as news the next time
	}
	news := answer == verdictDead && !isRefused(l, c) && t.isConflict(c)
	if news {
		l.Conflicts++
		l.LastConflict = t.now()
	}
	l.Probe = &kv.Probe{At: t.now(), Generation: c.Generation, Verdict: answer}
	if _, err := t.write(ctx, l); err != nil {
		return fmt.Errorf("writing the answer of WeChat down: %w", err)
	}
	if news {
		t.tellConflict(c)
	}
	return nil
}

// isConflict says whether the death of a token means that another system refreshes the same account (design §5.6): its
// life is not nearly over, and the fleet did not replace it. About to expire, a difference of clocks explains it.
func (t *turn) isConflict(c *messages.Credential) bool {
	return c.ExpiresAt.Sub(t.now()) >= c.Life()/10
}

// tellConflict tells it, once for each value.
func (t *turn) tellConflict(c *messages.Credential) {
	t.metrics.conflicts.Inc()
	advice := AdviceConflict(t.account.TokenAPI)
	t.log.Error("conflict: WeChat refuses a token that was not replaced here", "appid", c.AppID, "generation", c.Generation,
		"obtained_at", c.ObtainedAt, "conflicts", t.view.ledger.Conflicts, "advice", advice)
	t.tell(messages.EventConflict, messages.Event{
		Generation: c.Generation, ExpiresAt: c.ExpiresAt, Advice: advice,
		Message: "WeChat refuses the token long before its end, and wxkeeper did not replace it",
	})
}

// AdviceConflict tells an operator what to do where another system kills the tokens of an account with this TokenAPI.
func AdviceConflict(tokenAPI string) string {
	if tokenAPI == messages.SourceToken {
		return "another system fetches tokens of this account and so kills wxkeeper's: stop it, let it read the credential " +
			"from NATS, or set WECHAT_TOKEN_API=stable_token, which is isolated from the other interface"
	}
	return "another system called stable_token with force_refresh for this account, or its AppSecret was reset or frozen in the " +
		"console: find out which, and let the other system read the credential from NATS"
}
