package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// examined is the result of the checks of one account.
type examined struct {
	asked    bool // WeChat was asked; false if ctx ended before
	upstream Finding
	tickets  []Finding // kinds of ticket that WeChat does not issue
	others   []Finding // signs of another system
}

// pause is the time between two calls of WeChat.
const pause = time.Second / 20

// checkAccounts asks WeChat about each account, and compares the answers with what the workers have stored.
func (r *run) checkAccounts(ctx context.Context) {
	clocks := &clocks{now: r.Now}
	cfg := r.WeChat
	cfg.OnCall = clocks.observe
	client, err := wechat.New(cfg)
	if err != nil {
		r.add(Fail, Account, err.Error(), "")
		return
	}
	defer client.Close()
	pace := time.NewTicker(pause)
	defer pace.Stop()
	e := &examiner{run: r, client: client, pace: pace.C}
	results := make([]examined, len(r.Accounts))
	var examining errgroup.Group
	examining.SetLimit(r.Concurrency)
	for i, a := range r.Accounts {
		examining.Go(func() error {
			results[i] = e.examine(ctx, a)
			return nil
		})
	}
	_ = examining.Wait()
	r.addAccounts(results, clocks)
}

func (r *run) addAccounts(results []examined, clocks *clocks) {
	unasked := 0
	var others []Finding
	for _, x := range results {
		if !x.asked {
			unasked++
			continue
		}
		r.findings = append(append(r.findings, x.upstream), x.tickets...)
		others = append(others, x.others...)
	}
	if unasked > 0 {
		r.add(Warn, Account, "the time was over before WeChat had answered for "+count(unasked, "account"),
			"give the check more time with --timeout, or choose accounts with --appid")
	}
	r.findings = append(r.findings, clocks.finding())
	switch {
	case len(others) > 0:
		r.findings = append(r.findings, others...)
	case !r.readable:
		r.add(OK, OtherSystem, "whether another system refreshes the same accounts cannot be checked: "+
			"there is no record of a worker to compare with", "")
	case unasked < len(results):
		r.add(OK, OtherSystem, "no sign of another system that refreshes the same accounts", "")
	}
}

// examiner makes the calls of WeChat.
type examiner struct {
	*run
	client *wechat.Client
	pace   <-chan time.Time // allows one call at a time
}

// wait blocks until the next call of WeChat is allowed. It returns false if ctx ends before.
func (e *examiner) wait(ctx context.Context) bool {
	select {
	case <-e.pace:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

func (e *examiner) examine(ctx context.Context, a worker.Account) examined {
	x := examined{upstream: Finding{Check: Account, AppID: a.AppID, Level: OK}}
	if !e.wait(ctx) {
		return x
	}
	var before *messages.Credential
	var unsealed error
	if e.readable {
		before, unsealed = e.record(ctx, a)
	}
	// The normal mode invalidates no token. The returned token is not published: only the holder of the lease
	// may do that.
	issued, err := e.client.StableToken(ctx, a.AppID, a.Secret.Reveal(), false)
	if err != nil && ctx.Err() != nil {
		return x
	}
	x.asked = true
	if err != nil {
		x.upstream.Level, x.upstream.What, x.upstream.Advice = e.refusal(a, err)
	} else {
		x.upstream.What = label(a) + ": WeChat accepts the AppSecret, and calls from this machine"
		x.tickets = e.checkTickets(ctx, a, issued.Value)
	}
	if !e.readable {
		return x
	}
	switch {
	case errors.Is(unsealed, store.ErrForged):
		x.others = append(x.others, Finding{
			Check: OtherSystem, Level: Fail, AppID: a.AppID,
			What:   label(a) + ": the record in the bucket was not stored by a worker",
			Advice: "find out which NATS user writes to the bucket, and remove its permission (docs/security.md)",
		})
	case errors.Is(unsealed, store.ErrForeign):
		x.others = append(x.others, Finding{
			Check: OtherSystem, Level: Warn, AppID: a.AppID,
			What:   label(a) + ": the record in the bucket was stored by a worker with another AppSecret",
			Advice: "give all workers the same AppSecret",
		})
	}
	what := ""
	switch {
	case before == nil || classOf(err) == wechat.ClassTransport:
	case before.Source == messages.SourceToken && a.TokenAPI == messages.SourceToken:
		what = e.signOfDeadToken(ctx, a, *before)
	case before.Source == messages.SourceStableToken && a.TokenAPI != messages.SourceToken && err == nil:
		what = e.signOfReplacedToken(ctx, a, *before, issued)
	}
	if what != "" {
		x.others = append(x.others, otherSystem(Fail, a, what))
	}
	if what := e.signOfLedger(ctx, a); what != "" {
		x.others = append(x.others, otherSystem(Warn, a, what))
	}
	return x
}

// checkTickets asks for each kind of ticket that is kept for the account, and returns what WeChat refuses. WeChat
// repeats a ticket until its end, so that none becomes invalid.
func (e *examiner) checkTickets(ctx context.Context, a worker.Account, token string) (found []Finding) {
	for _, k := range a.Tickets {
		if !e.wait(ctx) {
			return append(found, Finding{
				Check: Account, Level: Warn, AppID: a.AppID,
				What:   fmt.Sprintf("%s: the time was over before WeChat was asked for the %s", label(a), k),
				Advice: "give the check more time with --timeout, or choose accounts with --appid",
			})
		}
		_, err := e.client.Ticket(ctx, token, worker.TicketType(k))
		if err == nil {
			continue
		}
		f := Finding{Check: Account, AppID: a.AppID}
		f.Level, f.What, f.Advice = e.refusal(a, err)
		f.What = fmt.Sprintf("%s: WeChat issues no %s: %s", label(a), k, err)
		if classOf(err) == wechat.ClassPermission {
			f.Level = Warn // the other credentials are served
		}
		found = append(found, f)
	}
	return found
}

func otherSystem(level Level, a worker.Account, what string) Finding {
	return Finding{
		Check: OtherSystem, Level: level, AppID: a.AppID,
		What: label(a) + ": " + what, Advice: worker.ConflictAdvice(a.TokenAPI),
	}
}

func label(a worker.Account) string {
	if a.Name == "" {
		return a.AppID
	}
	return a.AppID + " (" + a.Name + ")"
}

// record is the valid access_token in the bucket, or nil; with the error of the bucket.
func (e *examiner) record(ctx context.Context, a worker.Account) (*messages.Credential, error) {
	c, err := e.store.Get(ctx, a.AppID, messages.AccessToken)
	if err != nil || !c.Valid(e.Now()) {
		return nil, err
	}
	return &c, nil
}

// isUnchanged reports whether the bucket still has the value that it had before WeChat was asked. If not, a
// worker has just refreshed the token, and the comparison means nothing.
func (e *examiner) isUnchanged(ctx context.Context, a worker.Account, before messages.Credential) bool {
	now, _ := e.record(ctx, a)
	return now != nil && now.Value == before.Value
}

// signOfDeadToken asks whether WeChat accepts the classic token of the bucket. A refusal long before the
// token's end is the sign of another system. It returns the sign in words, or "".
func (e *examiner) signOfDeadToken(ctx context.Context, a worker.Account, c messages.Credential) string {
	if !e.wait(ctx) {
		return ""
	}
	_, err := e.client.APIDomainIP(ctx, c.Value)
	// Close to the end, a difference of the clocks explains the refusal.
	if classOf(err) != wechat.ClassDeadToken || c.ExpiresAt.Sub(e.Now()) < c.Life()/10 || !e.isUnchanged(ctx, a, c) {
		return ""
	}
	return "WeChat refuses the token of the bucket long before its end, and no worker has replaced it; " +
		"wxkeeper refresh --appid " + a.AppID + " refreshes it"
}

// signOfReplacedToken compares the stable token of the bucket with the token that WeChat gives out. Before the
// last five minutes of its life they are equal (docs/wechat-api.md), unless another system forced a new token.
// It returns the sign in words, or "".
func (e *examiner) signOfReplacedToken(
	ctx context.Context, a worker.Account, c messages.Credential, issued wechat.Issued,
) string {
	last := min(5*time.Minute, c.Life()/3) + clockWarn
	if issued.Value == c.Value || c.ExpiresAt.Sub(e.Now()) <= last || !e.isUnchanged(ctx, a, c) {
		return ""
	}
	return "WeChat gives out another stable token than the bucket has, and the bucket's token is not near its end: " +
		"a new token was forced"
}

// signOfLedger returns what the workers met in the last day, in words, or "".
func (e *examiner) signOfLedger(ctx context.Context, a worker.Account) string {
	l, err := e.store.Ledger(ctx, a.AppID, messages.AccessToken)
	const day = 24 * time.Hour
	switch now := e.Now(); {
	case err != nil:
		return ""
	case l.Conflicts > 0 && now.Sub(l.LastConflict) < day:
		return fmt.Sprintf("WeChat refused tokens of the workers long before their end, %s so far, the last at %s",
			times(l.Conflicts), l.LastConflict.UTC().Format(time.RFC3339))
	case l.HardForced > 0 && now.Sub(l.LastForced) < day:
		return fmt.Sprintf("workers had to force a new stable token %s, the last at %s: "+
			"WeChat refused the token that it gave out",
			times(l.HardForced), l.LastForced.UTC().Format(time.RFC3339))
	}
	return ""
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// classOf returns what an error of the client of WeChat means; 0 for nil.
func classOf(err error) (class wechat.Class) {
	if we, ok := errors.AsType[*wechat.Error](err); ok {
		class = we.Class
	}
	return class
}

// refusal describes why WeChat issued no token, how bad that is, and what to do.
func (e *examiner) refusal(a worker.Account, err error) (level Level, what, advice string) {
	level, what = Fail, label(a)+": "+err.Error()
	if we, ok := errors.AsType[*wechat.Error](err); ok {
		advice = we.Advice
	}
	switch classOf(err) {
	case wechat.ClassBusy, wechat.ClassMinuteQuota:
		level = Warn // it ends by itself
		advice = cmp.Or(advice, "check again in a minute")
	}
	return level, what, advice
}
