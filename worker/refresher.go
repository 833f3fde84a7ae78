package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// refresher renews credentials, one turn at a time: take the lease, look at the leader again, act, give the lease back.
type refresher struct {
	store    *kv.Store
	reader   *kv.Reader
	upstream *wechat.Client
	policy   *policy
	log      *slog.Logger
	metrics  *metrics
	emit     func(*Account, messages.Event)
	known    func(*Account, messages.Kind) (kv.Ledger, time.Time)
	lostAt   func(*Account, messages.Kind) time.Time // since when there is known to be no record
	// seenLedger and seenRecord are told what a turn wrote or read at the leader, before the watch brings it.
	seenLedger     func(kv.Ledger)
	seenRecord     func(*messages.Credential)
	worker         string
	accountRefused func(appid string)
	leaseTTL       time.Duration

	settlements flights[string, verdict]
	settling    sync.WaitGroup // the settlements under way: a stop waits for them
	now         func() time.Time
}

// publishReserve is the part of a lease that is kept for publishing: the upstream call is given up before it begins.
const publishReserve = time.Second

// leaseFor is the TTL of a lease that covers one upstream call of at most timeout, and what comes before and after it.
// Whole seconds; at most 15 s, because WeChat accepts the old token for 5 minutes only, and a frozen holder must cost
// far less.
func leaseFor(timeout time.Duration) time.Duration {
	ttl := (2*timeout + 2*time.Second).Truncate(time.Second)
	return min(max(ttl, 3*time.Second), 15*time.Second)
}

// errLate is returned when NATS took so long that too little of the lease is left for a call.
var errLate = fmt.Errorf("%w: too little of the lease was left for a call of WeChat", kv.ErrUnavailable)

// isLate says whether less than half of the time of a call is left.
func (t *turn) isLate() bool {
	return time.Until(t.lease.Deadline().Add(-publishReserve)) < (t.leaseTTL-2*time.Second)/4
}

// turn is the work on one credential while its lease is held.
type turn struct {
	*refresher
	account *Account
	kind    messages.Kind
	lease   *kv.Lease
	view    view   // as the leader has it
	token   string // SHA-256 of the access_token that a ticket was asked for with
}

// errUnplaced is returned when a value was minted and the server refused its publication, because the lease was lost.
var errUnplaced = errors.New("a new value was minted and could not be published")

// take gives f a turn. Its errors are those of kv.Store (ErrLeaseHeld, ErrUnavailable) and of f.
//
// A classic token that was minted and could not be published, because the lease was lost, means that another worker has
// minted one too, and nobody knows which is the newer: one more refresh, under a new lease, makes the published one the
// newest (design §5.2). take sees to that, and waits for the other's turn to end.
func (r *refresher) take(ctx context.Context, a *Account, kind messages.Kind, f func(context.Context, *turn) error) error {
	err := r.takeOnce(ctx, a, kind, f)
	if !errors.Is(err, errUnplaced) || a.rule(kind) != classicRule {
		return err
	}
	r.log.Warn("lease lost in mid-refresh: refreshing once more", "appid", a.AppID, "kind", kind)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*r.leaseTTL)
	defer cancel()
	for minted := false; ; {
		err = r.takeOnce(ctx, a, kind, func(ctx context.Context, t *turn) error {
			c, err := t.fetch(ctx, reasonUnpublished, false)
			minted = c.Value != ""
			return err
		})
		if minted || !errors.Is(err, kv.ErrLeaseHeld) && !errors.Is(err, kv.ErrUnavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryMin / 4):
		}
	}
}

// takeOnce is take without the second refresh. What a turn has begun it ends, within the lease, even when ctx ends: a
// token that was minted must be published.
func (r *refresher) takeOnce(ctx context.Context, a *Account, kind messages.Kind, f func(context.Context, *turn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	lease, err := r.store.Acquire(ctx, a.AppID, kind, r.leaseTTL)
	if err != nil {
		return err
	}
	defer lease.Release(ctx)
	ctx, cancel := context.WithDeadline(ctx, lease.Deadline())
	defer cancel()
	t := &turn{refresher: r, account: a, kind: kind, lease: lease}
	if err := t.look(ctx); err != nil {
		return err
	}
	return f(ctx, t)
}

// look reads the record and the ledger from the leader: done already means nothing to do.
func (t *turn) look(ctx context.Context) error {
	t.view = view{rule: t.account.rule(t.kind), settings: t.account.fingerprint()}
	switch c, err := t.store.Get(ctx, t.account.AppID, t.kind); {
	case err == nil:
		t.view.record = &c
		t.hold(c)
	case !errors.Is(err, kv.ErrNotFound) && !errors.Is(err, messages.ErrInvalidCredential):
		return err
	default:
		t.view.lostAt = t.refresher.lostAt(t.account, t.kind)
	}
	ledger, err := t.store.Ledger(ctx, t.account.AppID, t.kind)
	if err != nil {
		return err
	}
	if known, _ := t.known(t.account, t.kind); ledger.IsEmpty() && !known.IsEmpty() {
		known.Revision = ledger.Revision // the bucket has lost it: whatever this turn writes brings it back
		ledger, t.view.forgotten = known, true
	} else {
		t.seenLedger(ledger)
	}
	t.view.ledger = ledger
	t.view.held = t.reader.Held(t.account.AppID, t.kind)
	_, err = t.reader.Get(t.account.AppID, messages.AccessToken)
	t.view.hasToken = err == nil
	return nil
}

// hold takes what stands in the bucket before the watch brings it.
func (t *turn) hold(c messages.Credential) {
	t.reader.Apply(c)
	t.seenRecord(&c)
}

// scheduled gives one credential what it needs now.
func (r *refresher) scheduled(ctx context.Context, a *Account, kind messages.Kind) error {
	var refused dead // the access_token that WeChat refused for a ticket
	err := r.take(ctx, a, kind, func(ctx context.Context, t *turn) error {
		d := r.policy.next(r.now(), t.view)
		switch {
		case d.action == publish:
			return t.republish(ctx)
		case d.action == tell:
			return t.expired(ctx)
		case d.action == remember:
			_, err := t.write(ctx, t.view.ledger)
			return err
		case d.action == fetch && d.reason == reasonReported:
			_, err := t.settle(ctx, dead{})
			return err
		case d.action == fetch:
			_, err := t.fetch(ctx, d.reason, false)
			var we *wechat.Error
			if kind != messages.AccessToken && errors.As(err, &we) && we.Class == wechat.ClassDeadToken {
				refused = dead{sha256: t.token, firsthand: true}
			}
			return err
		}
		return nil
	})
	if refused.sha256 != "" {
		// The ticket's own retry follows by its backoff, with the token that this brings.
		if _, reportErr := r.report(ctx, a, messages.AccessToken, refused); reportErr != nil {
			r.log.Debug("the refused token was not renewed", "appid", a.AppID, "error", reportErr)
		}
	}
	return err
}

// expired notes and tells that the last value has died, though nothing replaces it yet.
func (t *turn) expired(ctx context.Context) error {
	l := t.view.ledger
	l.Expired = l.Generation
	l, err := t.write(ctx, l)
	if err == nil {
		t.tellExpired(l)
	}
	return err
}

func (t *turn) tellExpired(l kv.Ledger) {
	t.log.Error("credential expired before it could be renewed", "appid", t.account.AppID, "kind", t.kind,
		"generation", l.Generation, "expired_at", l.ExpiresAt)
	t.tell(messages.EventExpired, messages.Event{Generation: l.Generation, ExpiresAt: l.ExpiresAt})
}

// republish puts back what the bucket lost.
func (t *turn) republish(ctx context.Context) error {
	c := restore(t.now(), t.view)
	rev, err := t.lease.Publish(ctx, c)
	if err != nil {
		return err
	}
	c.Revision = rev
	t.hold(c)
	if t.view.held.Revision == 0 { // obtained when it could not be published
		t.tell(messages.EventRefreshed, messages.Event{Generation: c.Generation, ExpiresAt: c.ExpiresAt})
	}
	l := t.view.ledger
	if c.Generation > l.Generation { // else it may know of a newer value or a longer life that was lost: that must stay known
		l.Generation, l.ValueSHA256, l.FirstSeen, l.ExpiresAt = c.Generation, messages.ValueSHA256(c.Value), c.ObtainedAt, c.ExpiresAt
	}
	if l.NextAttempt.IsZero() {
		l.NextAttempt = c.RefreshAt
	}
	if _, err := t.write(ctx, l); err != nil {
		return err
	}
	t.metrics.refreshes.WithLabelValues(string(t.kind), "republished").Inc()
	t.log.Warn("the bucket had lost a credential: published again", "appid", c.AppID, "kind", c.Kind,
		"generation", c.Generation, "revision", rev)
	return nil
}

// fetch asks WeChat for the credential, once, and publishes the answer where it tells something new. It returns the
// credential that is current after it. Its error is a *wechat.Error where WeChat failed.
func (t *turn) fetch(ctx context.Context, why reason, force bool) (messages.Credential, error) {
	if t.isLate() {
		return messages.Credential{}, errLate
	}
	began := t.now()
	before := t.view.ledger
	ledger := t.policy.begin(began, t.view, why)
	if force {
		ledger.HardForced++
	}
	ledger, err := t.write(ctx, ledger)
	if err != nil {
		return messages.Credential{}, err
	}
	if ledger.Expired != before.Expired {
		t.tellExpired(ledger)
	}
	issued, err := t.ask(ctx, force)
	var we *wechat.Error
	switch {
	case errors.As(err, &we) && !we.Sent && t.isLate():
		// NATS took so long over the writing that no time was left. WeChat has nothing to do with it.
		_, err := t.write(ctx, undo(t.now(), ledger, before))
		return messages.Credential{}, errors.Join(errLate, err)
	case err != nil:
		return messages.Credential{}, t.failed(ctx, err)
	}
	c, changed, ledger := t.policy.settle(t.view, ledger, t.account.AppID, t.kind, issued)
	if !changed {
		_, err := t.write(ctx, ledger)
		t.metrics.refreshes.WithLabelValues(string(t.kind), "unchanged").Inc()
		t.log.Debug("credential unchanged", "credential", c, "next_attempt", ledger.NextAttempt)
		if err == nil {
			t.recovered(before, ledger, c)
		}
		return c, err
	}
	c.Source, c.Worker = t.source(), t.worker
	if invalid := c.Validate(); invalid != nil || c.ExpiresAt.Sub(t.now()) < time.Second {
		return messages.Credential{}, t.failed(ctx, fmt.Errorf("WeChat issued what cannot be published: %w", orTooShort(invalid)))
	}
	// Before the publication, so that no generation is ever given twice. Where it fails the value is published all the
	// same: consumers need it more.
	writing, cancel := context.WithTimeout(ctx, time.Until(t.lease.Deadline())/3)
	written, err := t.write(writing, ledger)
	cancel()
	if err == nil {
		ledger = written
		t.recovered(before, ledger, c) // WeChat has, whatever becomes of the publication
	} else {
		t.log.Warn("a refresh could not be written down", "credential", c, "error", err)
	}
	rev, err := t.lease.Publish(ctx, c)
	if err != nil {
		switch {
		case errors.Is(err, kv.ErrUnavailable):
			t.reader.Apply(c) // minted and not stored: this worker holds it, serves it, and publishes it when it can
		case errors.Is(err, kv.ErrLeaseLost):
			err = fmt.Errorf("%w: %w", errUnplaced, err)
		}
		t.metrics.refreshes.WithLabelValues(string(t.kind), "unpublished").Inc()
		t.log.Warn("a new credential could not be published", "credential", c, "error", err)
		return c, err
	}
	c.Revision = rev
	t.hold(c)
	t.metrics.refreshes.WithLabelValues(string(t.kind), "published").Inc()
	t.log.Info("credential published", "appid", c.AppID, "kind", c.Kind, "reason", why, "generation", c.Generation,
		"revision", rev, "source", c.Source, "expires_at", c.ExpiresAt, "refresh_at", c.RefreshAt, "took_ms", t.now().Sub(began).Milliseconds())
	t.tell(messages.EventRefreshed, messages.Event{Generation: c.Generation, ExpiresAt: c.ExpiresAt})
	return c, nil
}

func orTooShort(err error) error {
	if err == nil {
		return errors.New("it lives for less than a second")
	}
	return err
}

// write writes the ledger and tells this worker's scheduler.
func (t *turn) write(ctx context.Context, l kv.Ledger) (kv.Ledger, error) {
	l, err := t.store.PutLedger(ctx, l)
	if err == nil {
		t.view.ledger, t.view.forgotten = l, false
		t.seenLedger(l)
	}
	return l, err
}

// ask makes the one upstream call of the turn. It gives up before the lease ends.
func (t *turn) ask(ctx context.Context, force bool) (wechat.Issued, error) {
	ctx, cancel := context.WithDeadline(ctx, t.lease.Deadline().Add(-publishReserve))
	defer cancel()
	switch t.view.rule {
	case classicRule:
		return t.upstream.Token(ctx, t.account.AppID, t.account.Secret.Reveal())
	case stableRule:
		return t.upstream.StableToken(ctx, t.account.AppID, t.account.Secret.Reveal(), force)
	}
	token, err := t.reader.AccessToken(t.account.AppID)
	if err != nil {
		return wechat.Issued{}, err
	}
	t.token = messages.ValueSHA256(token)
	typ := wechat.TicketJSAPI
	if t.kind == messages.WXCardTicket {
		typ = wechat.TicketWXCard
	}
	return t.upstream.Ticket(ctx, token, typ)
}

func (t *turn) source() string {
	if t.kind == messages.AccessToken {
		return t.account.TokenAPI
	}
	return messages.SourceGetTicket
}

// failed writes a failed attempt down, tells it, and returns it.
func (t *turn) failed(ctx context.Context, cause error) error {
	f := kv.Failure{At: t.now().UTC(), Class: wechat.ClassBroken.String(), Message: cause.Error()}
	class, atLeast := wechat.ClassBroken, time.Duration(0)
	var we *wechat.Error
	if errors.As(cause, &we) {
		class, atLeast = we.Class, we.Wait
		f.Class, f.Errcode, f.RID, f.Advice = class.String(), we.Errcode, we.RID, we.Advice
	}
	if class == wechat.ClassAccount {
		t.accountRefused(t.account.AppID)
	}
	l := t.policy.fail(t.now(), t.view.ledger, f, class, atLeast, t.view.settings)
	if _, err := t.write(ctx, l); err != nil {
		t.log.Warn("a failed refresh could not be written down", "appid", t.account.AppID, "kind", t.kind, "error", err)
	}
	t.metrics.refreshes.WithLabelValues(string(t.kind), "failed").Inc()
	level := slog.LevelWarn
	if class == wechat.ClassAccount || class == wechat.ClassPermission {
		level = slog.LevelError // an operator must act
	}
	args := []any{"appid", t.account.AppID, "kind", t.kind, "class", f.Class, "error", cause, "attempts", l.Attempts, "next_attempt", l.NextAttempt}
	if f.Errcode != 0 {
		args = append(args, "errcode", f.Errcode, "rid", f.RID)
	}
	if f.Advice != "" {
		args = append(args, "advice", f.Advice)
	}
	t.log.Log(ctx, level, "refresh failed", args...)
	t.tell(messages.EventFailed, messages.Event{
		Generation: l.Generation, ExpiresAt: l.ExpiresAt, Attempts: l.Attempts, Class: f.Class, Message: f.Message,
		Advice: f.Advice, Errcode: f.Errcode, RID: f.RID,
	})
	return cause
}

// recovered tells the first success after a failure.
func (t *turn) recovered(before, after kv.Ledger, c messages.Credential) {
	if before.Attempts == 0 || before.Failure == nil {
		return
	}
	t.log.Info("recovered", "appid", c.AppID, "kind", c.Kind, "attempts", before.Attempts, "next_attempt", after.NextAttempt)
	t.tell(messages.EventRecovered, messages.Event{Generation: c.Generation, ExpiresAt: c.ExpiresAt, Attempts: before.Attempts})
}

func (t *turn) tell(event string, e messages.Event) {
	e.Event, e.Kind = event, t.kind
	t.emit(t.account, e)
}
