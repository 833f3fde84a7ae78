package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// turn is the work on one credential while its lease is held. It is used by one goroutine.
type turn struct {
	r       *refresher
	account *Account
	kind    messages.Kind
	lease   store.Lease
	view    policy.View // as the leader has it
	token   string      // SHA-256 of the access_token that a ticket was requested with
	// the generation whose expiry this worker has published already, when it could not be written down; 0: none
	expiryTold uint64
}

// errLate is returned if NATS took so long that too little of the lease is left for a call of WeChat.
var errLate = fmt.Errorf("%w: too little of the lease is left for a call of WeChat", store.ErrUnavailable)

// errUnpublished is returned if WeChat issued a new value, and the server refused its publication because the
// lease was lost.
var errUnpublished = errors.New("a new value could not be published")

// unwrittenFailure is a failure of WeChat that could not be written to the ledger: only this worker knows it.
type unwrittenFailure struct {
	error   // of WeChat
	failure store.Failure
	err     error // of the ledger
}

func (u *unwrittenFailure) Unwrap() error { return u.error }

// isLate reports whether less than half of the time of a call is left.
func (t *turn) isLate() bool {
	return t.r.clock.Until(t.lease.Deadline().Add(-publishReserve)) < (t.r.leaseTTL-2*time.Second)/4
}

// look reads the record and the ledger entry from the leader: another worker may have done already what this
// turn is for.
func (t *turn) look(ctx context.Context) error {
	m, key := t.r.memory, messages.Key(t.account.AppID, t.kind)
	t.view = policy.View{Rule: t.account.rule(t.kind), Settings: t.account.fingerprint(),
		RetryBefore: t.account.retryBefore}
	switch c, err := t.r.store.Get(ctx, t.account.AppID, t.kind); {
	case err == nil:
		t.view.Record = &c
		m.observeRecord(c)
	case errors.Is(err, store.ErrForged), errors.Is(err, store.ErrForeign), errors.Is(err, store.ErrNotFound),
		errors.Is(err, messages.ErrInvalidCredential):
		t.view.LostAt, t.view.Foreign = m.lostAt(key), t.noteSeal(err, entryRecord)
	default:
		return err
	}
	if err := t.lookAtLedger(ctx, key); err != nil {
		return err
	}
	t.view.Held = m.held(t.account.AppID, t.kind)
	_, err := m.get(t.account.AppID, messages.AccessToken)
	t.view.HasToken = err == nil
	return nil
}

// lookAtLedger reads the ledger entry from the leader. What this worker remembers is the least that it goes by, so
// that an entry that was lost, forged or set back does not set the limits back.
func (t *turn) lookAtLedger(ctx context.Context, key string) error {
	ledger, err := t.r.store.Ledger(ctx, t.account.AppID, t.kind)
	if err != nil && !errors.Is(err, store.ErrForged) && !errors.Is(err, store.ErrForeign) {
		return err
	}
	foreign := t.noteSeal(err, entryLedger)
	t.view.Ledger, t.view.EntryLost = policy.Remember(t.r.memory.ledger(key), ledger)
	switch {
	case foreign:
		t.view.EntryLost = false // it may be a worker's: it is replaced only with the next attempt
	case err != nil:
		t.view.EntryLost = true // also if this worker remembers nothing
	case !t.view.EntryLost:
		t.r.memory.observeLedger(ledger)
	}
	return nil
}

// noteSeal notes that an entry does not have the seal of a worker with this AppSecret, and returns whether a worker
// with another AppSecret may have stored it. Other errors, and nil, are not noted.
func (t *turn) noteSeal(err error, entry string) (foreign bool) {
	switch {
	case errors.Is(err, store.ErrForged):
		t.r.forged(t.account.AppID, t.kind, entry)
	case errors.Is(err, store.ErrForeign):
		return t.r.foreign(t.account.AppID, t.kind, entry)
	}
	return false
}

// noteExpiry notes and publishes that the last value has expired, though nothing replaces it yet.
func (t *turn) noteExpiry(ctx context.Context) error {
	l := t.view.Ledger
	l.Expired = l.Generation
	l, err := t.write(ctx, l)
	if err == nil {
		t.publishExpired(l)
	}
	return err
}

func (t *turn) publishExpired(l store.Ledger) {
	if t.expiryTold == l.Generation {
		return
	}
	t.r.log.Error("credential expired before it could be renewed", "appid", t.account.AppID, "kind", t.kind,
		"generation", l.Generation, "expired_at", l.ExpiresAt)
	t.publishEvent(messages.EventExpired, messages.Event{Generation: l.Generation, ExpiresAt: l.ExpiresAt})
}

// republish publishes what the bucket has lost.
func (t *turn) republish(ctx context.Context) error {
	c := policy.Restored(t.r.clock.Now(), t.view)
	revision, err := t.lease.Publish(ctx, c)
	if err != nil {
		return err
	}
	c.Revision = revision
	t.r.memory.observeRecord(c)
	if t.view.Held.Revision == 0 { // it was obtained when it could not be published
		t.publishEvent(messages.EventRefreshed, messages.Event{Generation: c.Generation, ExpiresAt: c.ExpiresAt})
	}
	l := policy.Know(t.view.Ledger, c) // the entry may also know of a newer value, or a longer life, that was lost
	if l.NextAttempt.IsZero() {
		l.NextAttempt = c.RefreshAt
	}
	if _, err := t.write(ctx, l); err != nil {
		return err
	}
	t.r.metrics.refreshes.WithLabelValues(string(t.kind), "republished").Inc()
	t.r.log.Warn("lost credential republished", "appid", c.AppID, "kind", c.Kind, "generation", c.Generation,
		"revision", revision)
	return nil
}

// fetch asks WeChat for the credential, once, and publishes the answer if it is new. It returns the credential
// that is current after that. Its error is a *wechat.Error if WeChat failed, and errLate or errUnpublished.
func (t *turn) fetch(ctx context.Context, why messages.Reason, force bool) (messages.Credential, error) {
	if t.isLate() {
		return messages.Credential{}, errLate
	}
	began := t.r.clock.Now()
	before := t.view.Ledger
	ledger, err := t.write(ctx, t.r.policy.Begin(began, t.view, why, force))
	if err != nil {
		return messages.Credential{}, err
	}
	if ledger.Expired != before.Expired {
		t.publishExpired(ledger)
	}
	issued, err := t.ask(ctx, force)
	var we *wechat.Error
	switch {
	case errors.As(err, &we) && !we.Sent && t.isLate():
		// Writing the attempt down took so long that no time was left for the call: this is not a failure of WeChat.
		_, err := t.write(ctx, policy.Undo(t.r.clock.Now(), ledger, before))
		return messages.Credential{}, errors.Join(errLate, err)
	case err != nil:
		return messages.Credential{}, t.fail(ctx, err)
	}
	if t.view.Foreign { // WeChat has decided which of the two AppSecrets is right
		t.r.memory.refute(messages.Key(t.account.AppID, t.kind))
	}
	c, isNew, ledger := t.r.policy.Succeed(t.view, ledger, t.account.AppID, t.kind, issued)
	if !isNew {
		_, err := t.write(ctx, ledger)
		t.r.metrics.refreshes.WithLabelValues(string(t.kind), "unchanged").Inc()
		t.r.log.Debug("credential unchanged", "credential", c, "next_attempt", ledger.NextAttempt)
		if err == nil {
			t.recovered(before, ledger, c)
		}
		return c, err
	}
	c.Source, c.Worker = t.source(), t.r.worker
	if invalid := c.Validate(); invalid != nil || c.ExpiresAt.Sub(t.r.clock.Now()) < time.Second {
		if invalid == nil {
			invalid = errors.New("it lives for less than a second")
		}
		return messages.Credential{}, t.fail(ctx, fmt.Errorf("WeChat issued what cannot be published: %w", invalid))
	}
	return t.publish(ctx, c, before, ledger, why, began)
}

// publish writes the ledger entry of a new credential and then publishes the credential. This order prevents
// that a generation is given twice. If the entry cannot be written, publish still publishes the credential,
// because consumers need it more.
func (t *turn) publish(
	ctx context.Context, c messages.Credential, before, ledger store.Ledger, why messages.Reason, began time.Time,
) (messages.Credential, error) {
	writing, cancel := t.r.clock.WithDeadline(ctx, t.lease.Deadline().Add(-t.r.clock.Until(t.lease.Deadline())*2/3))
	written, err := t.write(writing, ledger)
	cancel()
	if err == nil {
		ledger = written
		t.recovered(before, ledger, c) // WeChat has recovered, also if the publication fails
	} else {
		t.r.log.Warn("ledger not written after a refresh", "credential", c, "error", err)
	}
	revision, err := t.lease.Publish(ctx, c)
	if err != nil {
		switch {
		case errors.Is(err, store.ErrUnavailable):
			t.r.memory.hold(c) // this worker hands it out, and publishes it when it can
		case errors.Is(err, store.ErrLeaseLost):
			err = fmt.Errorf("%w: %w", errUnpublished, err)
		}
		t.r.metrics.refreshes.WithLabelValues(string(t.kind), "unpublished").Inc()
		t.r.log.Warn("new credential not published", "credential", c, "error", err)
		return c, err
	}
	c.Revision = revision
	t.r.memory.observeRecord(c)
	t.r.metrics.refreshes.WithLabelValues(string(t.kind), "published").Inc()
	t.r.log.Info("credential published", "appid", c.AppID, "kind", c.Kind, "reason", why, "generation", c.Generation,
		"revision", revision, "source", c.Source, "expires_at", c.ExpiresAt, "refresh_at", c.RefreshAt,
		"took_ms", t.r.clock.Now().Sub(began).Milliseconds())
	t.publishEvent(messages.EventRefreshed, messages.Event{Generation: c.Generation, ExpiresAt: c.ExpiresAt})
	return c, nil
}

// write writes the ledger entry, and notes it in this worker's memory.
func (t *turn) write(ctx context.Context, l store.Ledger) (store.Ledger, error) {
	l, err := t.r.store.PutLedger(ctx, l)
	if err == nil {
		t.view.Ledger, t.view.EntryLost = l, false
		t.r.memory.observeLedger(l)
	}
	return l, err
}

// ask makes the one call of WeChat. It gives up before the lease ends.
func (t *turn) ask(ctx context.Context, force bool) (wechat.Issued, error) {
	ctx, cancel := t.r.clock.WithDeadline(ctx, t.lease.Deadline().Add(-publishReserve))
	defer cancel()
	switch t.view.Rule {
	case policy.Classic:
		return t.r.upstream.Token(ctx, t.account.AppID, t.account.Secret.Reveal())
	case policy.Stable:
		return t.r.upstream.StableToken(ctx, t.account.AppID, t.account.Secret.Reveal(), force)
	}
	token, err := t.r.memory.get(t.account.AppID, messages.AccessToken)
	if err != nil {
		return wechat.Issued{}, err
	}
	t.token = messages.ValueSHA256(token.Value)
	return t.r.upstream.Ticket(ctx, token.Value, TicketType(t.kind))
}

// source is the interface that has issued the credential.
func (t *turn) source() string {
	if t.kind == messages.AccessToken {
		return t.account.TokenAPI
	}
	return messages.SourceGetTicket
}

// fail writes down, logs and publishes a failed attempt, and returns its cause.
func (t *turn) fail(ctx context.Context, cause error) error {
	f := store.Failure{At: t.r.clock.Now().UTC(), Class: wechat.ClassBroken, Message: cause.Error()}
	atLeast := time.Duration(0)
	var we *wechat.Error
	if errors.As(cause, &we) {
		f.Class, f.Errcode, f.RID, f.Advice, atLeast = we.Class, we.Errcode, we.RID, we.Advice, we.Wait
		if we.Unread() { // also an answer that was cut off: WeChat has probably issued a value
			f.Class = wechat.ClassBroken
		}
	}
	if f.Class == wechat.ClassAccount {
		t.r.accountRefused(t.account.AppID)
	}
	known := policy.IsNotPermitted(t.view.Ledger) && f.Class == wechat.ClassPermission // and no news
	l := t.r.policy.Fail(t.r.clock.Now(), t.view, f, atLeast)
	result := cause
	if _, err := t.write(ctx, l); err != nil {
		t.r.log.Warn("ledger not written after a failed refresh", "appid", t.account.AppID, "kind", t.kind,
			"error", err)
		result = &unwrittenFailure{cause, f, err}
	}
	t.r.metrics.refreshes.WithLabelValues(string(t.kind), "failed").Inc()
	level := slog.LevelWarn
	switch {
	case known:
		level = slog.LevelDebug
	case policy.IsNotPermitted(l): // the operator decides whether the account should have this ticket
	case f.Class == wechat.ClassAccount, f.Class == wechat.ClassPermission:
		level = slog.LevelError // an operator must act
	}
	args := []any{"appid", t.account.AppID, "kind", t.kind, "class", f.Class.String(), "error", cause,
		"attempts", l.Attempts, "next_attempt", l.NextAttempt}
	if f.Errcode != 0 {
		args = append(args, "errcode", f.Errcode, "rid", f.RID)
	}
	if f.Advice != "" {
		args = append(args, "advice", f.Advice)
	}
	t.r.log.Log(ctx, level, "refresh failed", args...)
	if known {
		return result
	}
	t.publishEvent(messages.EventFailed, messages.Event{
		Generation: l.Generation, ExpiresAt: l.ExpiresAt, Attempts: l.Attempts, Class: f.Class.String(),
		Message: f.Message,
		Advice:  f.Advice, Errcode: f.Errcode, RID: f.RID,
	})
	return result
}

// recovered logs and publishes the first success after a failure.
func (t *turn) recovered(before, after store.Ledger, c messages.Credential) {
	if before.Attempts == 0 || before.Failure == nil {
		return
	}
	t.r.log.Info("refresh recovered", "appid", c.AppID, "kind", c.Kind, "attempts", before.Attempts,
		"next_attempt", after.NextAttempt)
	t.publishEvent(messages.EventRecovered, messages.Event{Generation: c.Generation, ExpiresAt: c.ExpiresAt,
		Attempts: before.Attempts})
}

func (t *turn) publishEvent(name string, e messages.Event) {
	t.r.events.publish(t.account, t.kind, name, e)
}
