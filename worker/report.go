package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// outcome is the outcome of a report.
type outcome struct {
	current messages.Credential
	reason  messages.Reason // one of the outcomes of messages.Refreshed
	asked   time.Time       // if it is alive: the time before WeChat was asked
}

// answers reports whether o is an answer to a report that did not begin the flight. It is none if WeChat was asked
// before the reported call was sent, or if the current value is the reported one.
func (o outcome) answers(r policy.Report) bool {
	switch o.reason {
	case messages.ReasonAlive:
		return !o.asked.Before(r.SentAt)
	case messages.ReasonRefreshed, messages.ReasonNotCurrent:
		return r.FromOperator() || !r.Names(&o.current)
	default:
		return true
	}
}

// reportKey is what the reports of one flight have in common. Reports of operators have flights of their own:
// they are answered by other rules.
type reportKey struct {
	credential string
	operator   bool
}

// report answers a report that WeChat refused a value (docs/architecture.md#refresh-5). What this worker knows
// already is answered at once, from memory: that the value is not the current one, that WeChat has just
// accepted it, that it was refreshed a moment ago. The other reports of one credential join a flight of this worker
// (see reportKey), and the lease orders the flights of the fleet. report blocks until ctx ends at the latest. Its
// error is a *messages.Error.
func (r *refresher) report(ctx context.Context, a *Account, kind messages.Kind, report policy.Report) (outcome, error) {
	o, err := r.doReport(ctx, a, kind, report)
	label := string(o.reason)
	var refusal *messages.Error
	if errors.As(err, &refusal) {
		label = string(refusal.Symbol)
	}
	r.metrics.reports.WithLabelValues(label).Inc()
	return o, err
}

func (r *refresher) doReport(
	ctx context.Context, a *Account, kind messages.Kind, report policy.Report,
) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, r.leaseTTL+publishReserve)
	defer cancel()
	patience := r.clock.Now().Add(questionPatience)
	for {
		if err := ctx.Err(); err != nil {
			return outcome{}, asRefusal(err)
		}
		if o, answered, err := r.answerFromMemory(ctx, a, kind, report); answered || err != nil {
			return o, err
		}
		if waited, err := r.awaitQuestion(ctx, a, kind, report, patience); err != nil {
			return outcome{}, err
		} else if waited {
			continue
		}
		o, err := r.fly(ctx, a, kind, report)
		if errors.Is(err, errNoQuestion) || err == nil && !o.answers(report) {
			continue
		}
		return o, err
	}
}

// fly joins the flight of the reports of a credential, or leads one.
func (r *refresher) fly(ctx context.Context, a *Account, kind messages.Kind, report policy.Report) (outcome, error) {
	key := reportKey{messages.Key(a.AppID, kind), report.FromOperator()}
	f, leads, _ := r.reports.join(key, nil)
	if leads {
		f.err = messages.Errorf(messages.Upstream, "internal error") // if it panics
		// Not the caller's context: others have joined, and a stop waits for the flight.
		flying := context.WithoutCancel(ctx)
		r.reporting.Go(func() {
			defer r.reports.end(key, f)
			defer func() {
				if p := recover(); p != nil {
					r.log.Error("panic while answering a report", "appid", a.AppID, "kind", kind,
						"panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
				}
			}()
			ctx, cancel := context.WithTimeout(flying, r.leaseTTL+publishReserve)
			defer cancel()
			o, err := r.answerInTurn(ctx, a, kind, report)
			f.value, f.err = o, nil
			switch {
			case errors.Is(err, errNoQuestion):
				f.err = err
			case err != nil:
				f.err = r.asRefusal(err)
			}
		})
	}
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return outcome{}, asRefusal(ctx.Err())
		}
		return outcome{}, messages.Errorf(messages.UpstreamTimeout, "the refresh is still under way").
			After(policy.RetryMin)
	}
}

// answerFromMemory answers a report without a turn, if that is possible. It reads the record from the leader if
// the report names a value that this worker does not know: a consumer may have received it earlier.
func (r *refresher) answerFromMemory(
	ctx context.Context, a *Account, kind messages.Kind, report policy.Report,
) (o outcome, answered bool, err error) {
	current, err := r.memory.get(a.AppID, kind)
	if err == nil && r.mayBeNewer(current, report) {
		switch c, err := r.store.Get(ctx, a.AppID, kind); {
		case err == nil:
			r.memory.hold(c)
			if current, err = r.memory.get(a.AppID, kind); err != nil {
				current = nil
			}
		case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrForged), errors.Is(err, store.ErrForeign):
			// the revision is made up, or the record was lost
			current = nil
		default:
			return outcome{}, false, r.asRefusal(err)
		}
	} else if err != nil {
		current = nil
	}
	if current != nil && !report.Names(current) {
		return outcome{current: *current, reason: messages.ReasonNotCurrent}, true, nil
	}
	now, view := r.clock.Now(), r.memory.view(a, kind)
	if policy.IsUnderWay(now, view.Ledger, current, r.leaseTTL) {
		return outcome{}, false, nil
	}
	switch reason, refusal := policy.Answer(now, view, messages.Key(a.AppID, kind), kind, current, report); {
	case refusal != nil:
		return outcome{}, true, refusal
	case reason != "":
		return outcome{current: *current, reason: reason, asked: askedAt(view.Ledger)}, true, nil
	}
	return outcome{}, false, nil
}

// mayBeNewer reports whether a report may name a newer value than the current one: a revision that is higher, or the
// hash of a value that this worker has not held just before.
func (r *refresher) mayBeNewer(current *messages.Credential, report policy.Report) bool {
	if report.Revision != 0 || report.ValueSHA256 == "" {
		return report.Revision > current.Revision
	}
	return !report.Names(current) && report.ValueSHA256 != r.memory.before(messages.Key(current.AppID, current.Kind))
}

// answerInTurn takes a turn to answer a report, and waits while another worker holds the lease.
func (r *refresher) answerInTurn(
	ctx context.Context, a *Account, kind messages.Kind, report policy.Report,
) (outcome, error) {
	generation := uint64(0)
	if held := r.memory.held(a.AppID, kind); held != nil {
		generation = held.Generation
	}
	for {
		replaced := r.memory.whenReplaced(messages.Key(a.AppID, kind)) // before the turn, so that no change is missed
		var o outcome
		err := r.take(ctx, a, kind, func(ctx context.Context, t *turn) (err error) {
			o, err = t.answer(ctx, report)
			return err
		})
		switch {
		case err == nil && o.reason == "": // take itself has refreshed once more
			c, err := r.memory.get(a.AppID, kind)
			if err != nil {
				return outcome{}, err
			}
			return outcome{current: *c, reason: messages.ReasonRefreshed}, nil
		case !errors.Is(err, store.ErrLeaseHeld):
			return o, err
		}
		// The other worker's turn may bring a newer value. If it does not, this worker's turn is next.
		r.clock.Wait(ctx, policy.RetryMin/4, replaced)
		if c, invalid := r.memory.get(a.AppID, kind); invalid == nil && c.Generation > generation && !report.Names(c) {
			return outcome{current: *c, reason: messages.ReasonNotCurrent}, nil
		}
		if ctx.Err() != nil {
			return o, err
		}
	}
}

// answer compares the reported value again, now that no other worker can change the record, asks WeChat whether
// it is alive, and refreshes it if it is not and the limits allow.
func (t *turn) answer(ctx context.Context, report policy.Report) (outcome, error) {
	now, key := t.r.clock.Now(), messages.Key(t.account.AppID, t.kind)
	t.view.EntryLost = false // what is written below restores the entry
	if t.r.policy.Next(now, t.view).Action == policy.Republish {
		// This worker holds a newer value than the bucket. That may be the reported one.
		if err := t.republish(ctx); err != nil {
			return outcome{}, err
		}
		t.view.Held = t.r.memory.held(t.account.AppID, t.kind)
		t.view.Record = t.view.Held
	}
	record := t.view.Record
	if record != nil && !record.Valid(now) {
		record = nil
	}
	if record != nil && !report.Names(record) {
		return outcome{current: *record, reason: messages.ReasonNotCurrent}, nil
	}
	if until := policy.WaitsForOthers(now, t.view); !until.IsZero() {
		return outcome{}, messages.Errorf(messages.NoCredential,
			"the bucket has lost %s, and another worker may publish it again", key).After(until.Sub(now))
	}
	if t.kind != messages.AccessToken && !t.view.HasToken {
		return outcome{}, messages.Errorf(messages.NoCredential,
			"a ticket needs an access_token, and there is none now").After(policy.RetryMin)
	}
	if needsQuestion(now, t.view.Ledger, t.kind, record, report) {
		if policy.QuestionAt(now, t.view.Ledger, report.Own).After(now) {
			return outcome{}, errNoQuestion
		}
		if err := t.probe(ctx, record); err != nil {
			return outcome{}, err
		}
		if p := t.view.Ledger.Probe; p.Verdict == store.Alive {
			o := outcome{current: *record, reason: messages.ReasonAlive, asked: p.At}
			if o.asked.Before(report.SentAt) { // the clock was set back since the call was sent
				o.asked = report.SentAt
			}
			return o, nil
		}
	}
	switch reason, refusal := policy.Answer(now, t.view, key, t.kind, record, report); {
	case refusal != nil:
		t.tellThrottled(ctx, record)
		return outcome{}, refusal
	case reason != "":
		return outcome{current: *record, reason: reason, asked: askedAt(t.view.Ledger)}, nil
	}
	dead := policy.VerdictOf(now, t.view.Ledger, record, report) == store.Dead
	return t.replace(ctx, record, messages.ReasonReported, dead)
}

// replace refreshes a reported credential. record is the current one, or nil; dead: WeChat refuses it.
func (t *turn) replace(
	ctx context.Context, record *messages.Credential, why messages.Reason, dead bool,
) (outcome, error) {
	c, err := t.fetch(ctx, why, false)
	if err != nil {
		return outcome{}, err
	}
	if record == nil || c.Value != record.Value {
		return outcome{current: c, reason: messages.ReasonRefreshed}, nil
	}
	// The normal mode of stable_token returned the reported token. Only if WeChat itself refuses it is it worth
	// one of the 20 calls a day with force_refresh (docs/architecture.md#refresh-5).
	l := t.view.Ledger
	if t.view.Rule != policy.Stable || !dead || !policy.MayForce(t.r.clock.Now(), l) {
		return outcome{current: c, reason: messages.ReasonUnchanged}, nil
	}
	t.r.log.Warn("stable_token repeats a token that WeChat refuses: calling it with force_refresh", "appid", c.AppID,
		"forced_today", l.HardForced+1)
	t.view.Record = &c
	forced, err := t.fetch(ctx, messages.ReasonReported, true)
	switch {
	case errors.Is(err, errLate): // the next report tries again
		return outcome{current: c, reason: messages.ReasonUnchanged}, nil
	case err != nil:
		return outcome{}, err
	case forced.Value == record.Value:
		return outcome{current: forced, reason: messages.ReasonUnchanged}, nil
	}
	return outcome{current: forced, reason: messages.ReasonRefreshed}, nil
}

// probe asks WeChat whether it accepts a token: GET /cgi-bin/get_api_domain_ip, the cheapest interface that
// needs one. It writes the verdict down, for the whole fleet. An inconclusive verdict does not prevent a
// refresh, and does not prove a conflict.
func (t *turn) probe(ctx context.Context, c *messages.Credential) error {
	asked := t.r.clock.Now()
	asking, cancel := t.r.clock.WithDeadline(ctx, t.lease.Deadline().Add(-t.r.leaseTTL/2))
	_, err := t.r.upstream.APIDomainIP(asking, c.Value)
	cancel()
	verdict := store.Inconclusive
	var we *wechat.Error
	switch {
	case err == nil:
		verdict = store.Alive
	case errors.As(err, &we) && we.Class == wechat.ClassDeadToken:
		verdict = store.Dead
	}
	t.r.log.Info("reported token probed", "appid", c.AppID, "generation", c.Generation, "verdict", verdict)
	l := t.view.Ledger
	if verdict == store.Inconclusive && policy.IsRefused(l, c) {
		// WeChat has refused it before and has not accepted it since. With an inconclusive verdict, the next
		// refusal would count as a new conflict.
		verdict = store.Dead
	}
	conflict := verdict == store.Dead && !policy.IsRefused(l, c) && t.isConflict(c)
	if conflict {
		l.Conflicts++
		l.LastConflict = t.r.clock.Now()
	}
	l = policy.Asked(l, store.Probe{At: asked, Generation: c.Generation, Verdict: verdict})
	if _, err := t.write(ctx, l); err != nil {
		return fmt.Errorf("write the verdict of WeChat to the ledger: %w", err)
	}
	if conflict {
		t.publishConflict(c)
	}
	return nil
}

// isConflict reports whether the death of a token means that another system refreshes the same account
// (docs/architecture.md#refresh-6): its life is not nearly over, and the fleet did not replace it. Near its
// end, a difference of clocks explains it.
func (t *turn) isConflict(c *messages.Credential) bool {
	return c.ExpiresAt.Sub(t.r.clock.Now()) >= c.Life()/10
}

// publishConflict logs and publishes a conflict, once for each value.
func (t *turn) publishConflict(c *messages.Credential) {
	t.r.metrics.conflicts.Inc()
	advice := ConflictAdvice(t.account.TokenAPI)
	t.r.log.Error("conflict: WeChat refuses a token that wxkeeper did not replace", "appid", c.AppID,
		"generation", c.Generation,
		"obtained_at", c.ObtainedAt, "conflicts", t.view.Ledger.Conflicts, "advice", advice)
	t.publishEvent(messages.EventConflict, messages.Event{
		Generation: c.Generation, ExpiresAt: c.ExpiresAt, Advice: advice,
		Message: "WeChat refuses the token long before its end, and wxkeeper did not replace it",
	})
}

// tellThrottled logs and publishes, once an hour, that WeChat refuses a token that may not be refreshed now: the budget
// of refreshes for reports is used up.
func (t *turn) tellThrottled(ctx context.Context, c *messages.Credential) {
	now, l := t.r.clock.Now(), t.view.Ledger
	until := policy.ThrottledUntil(now, l, t.view.Rule, c)
	if until.IsZero() || !policy.MustTell(now, l) {
		return
	}
	l.ThrottledAt = now
	if _, err := t.write(ctx, l); err != nil {
		return // the next turn tells
	}
	advice := ConflictAdvice(t.account.TokenAPI)
	t.r.log.Error("throttled: WeChat refuses a token, and the budget of refreshes for reports is used up",
		"appid", c.AppID, "generation", c.Generation, "until", until, "forced_today", l.Forced,
		"calls_today", l.Calls, "advice", advice)
	t.publishEvent(messages.EventThrottled, messages.Event{
		Generation: c.Generation, ExpiresAt: c.ExpiresAt, RetryAt: until.UTC(), Advice: advice,
		Message: "WeChat refuses the token, and the budget of refreshes for reports is used up",
	})
}

// ConflictAdvice is the advice for an operator if another system kills the tokens of an account with this
// TokenAPI.
func ConflictAdvice(tokenAPI string) string {
	if tokenAPI == messages.SourceToken {
		return "Another system fetches tokens of this account and so kills wxkeeper's: stop it, let it read " +
			"the credential from NATS, or set WECHAT_TOKEN_API=stable_token, which is isolated from the other interface."
	}
	return "Another system called stable_token with force_refresh for this account, or its AppSecret was reset " +
		"or frozen in the console: find out which, and let the other system read the credential from NATS."
}
