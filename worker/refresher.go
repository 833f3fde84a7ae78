package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// turnStore is what a turn needs of the buckets: a *store.Store, or a *storetest.Store in tests.
type turnStore interface {
	// Connected reports whether there is a connection at all.
	Connected() bool
	Acquire(ctx context.Context, appid string, kind messages.Kind, ttl time.Duration) (store.Lease, error)
	Get(ctx context.Context, appid string, kind messages.Kind) (messages.Credential, error)
	Ledger(ctx context.Context, appid string, kind messages.Kind) (store.Ledger, error)
	PutLedger(ctx context.Context, l store.Ledger) (store.Ledger, error)
}

// turnUpstream is what a turn needs of WeChat: a *wechat.Client.
type turnUpstream interface {
	Token(ctx context.Context, appid, secret string) (wechat.Issued, error)
	StableToken(ctx context.Context, appid, secret string, force bool) (wechat.Issued, error)
	Ticket(ctx context.Context, accessToken string, typ wechat.TicketType) (wechat.Issued, error)
	APIDomainIP(ctx context.Context, accessToken string) ([]string, error)
}

// refresher renews credentials, one turn at a time: take the lease, read record and ledger entry from the
// leader, act, release the lease. It is safe for concurrent use.
type refresher struct {
	memory         *memory
	store          turnStore
	upstream       turnUpstream
	policy         *policy.Policy
	clock          clock
	events         *events
	metrics        *metrics
	log            *slog.Logger
	worker         string
	leaseTTL       time.Duration
	accountRefused func(appid string)
	accounts       *accounts
	lastError      func() error      // of the connection to NATS; nil: there is none
	explain        func(error) error // adds what is known of an error of JetStream; nil: nothing is

	reports   flights[reportKey, outcome]
	reporting sync.WaitGroup // the reports under way: a stop waits for them
}

// publishReserve is the part of a lease that is kept for publishing: the call of WeChat is given up before it begins.
const publishReserve = time.Second

// leaseFor is the TTL of a lease that covers one call of WeChat of at most timeout, and the steps before and
// after it. Whole seconds; at most 15 s, because WeChat accepts the old token for 5 minutes, and a frozen
// worker must block its refresh for far less than that (docs/architecture.md#refresh-1).
func leaseFor(timeout time.Duration) time.Duration {
	ttl := (2*timeout + 2*time.Second).Truncate(time.Second)
	return min(max(ttl, 3*time.Second), 15*time.Second)
}

// take runs act in a turn. Its errors are those of store.Store (ErrLeaseHeld, ErrUnavailable) and of act.
//
// If a classic token was minted and could not be published, because the lease was lost, another worker has
// minted one too, and nobody knows which is newer. One more refresh under a new lease makes the published token
// the newest (docs/architecture.md#refresh-2). take does that, and waits until the other worker's turn has
// ended.
func (r *refresher) take(
	ctx context.Context, a *Account, kind messages.Kind, act func(context.Context, *turn) error,
) error {
	err := r.takeOnce(ctx, a, kind, act)
	if !errors.Is(err, errUnpublished) || a.rule(kind) != policy.Classic {
		return err
	}
	r.log.Warn("lease lost during refresh: refreshing once more", "appid", a.AppID, "kind", kind)
	deadline := r.clock.Now().Add(2 * r.leaseTTL)
	for ctx := context.WithoutCancel(ctx); ; {
		minted := false
		err = r.takeOnce(ctx, a, kind, func(ctx context.Context, t *turn) error {
			c, err := t.fetch(ctx, messages.ReasonUnpublished, false)
			minted = c.Value != ""
			return err
		})
		waits := errors.Is(err, store.ErrLeaseHeld) || errors.Is(err, store.ErrUnavailable)
		if minted || !waits || !r.clock.Now().Before(deadline) {
			return err
		}
		r.clock.Wait(ctx, policy.RetryMin/4, nil)
	}
}

// takeOnce is take without the second refresh. A turn that has begun ends within the lease even if ctx ends: a
// token that was minted must be published.
func (r *refresher) takeOnce(
	ctx context.Context, a *Account, kind messages.Kind, act func(context.Context, *turn) error,
) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	lease, err := r.store.Acquire(ctx, a.AppID, kind, r.leaseTTL)
	if err != nil {
		return err
	}
	defer lease.Release(ctx)
	ctx, cancel := r.clock.WithDeadline(ctx, lease.Deadline())
	defer cancel()
	t := &turn{r: r, account: a, kind: kind, lease: lease}
	if err := t.look(ctx); err != nil {
		return err
	}
	return act(ctx, t)
}

// leaseMargin is how long after its TTL a lease is tried again: the server ends it up to half a second late.
const leaseMargin = time.Second / 4

// scheduled takes a turn for a credential that is due. last is how its last turn ended.
func (r *refresher) scheduled(ctx context.Context, a *Account, kind messages.Kind, last ending) ending {
	jitter := func(d time.Duration) time.Duration { return time.Duration(r.policy.Random() * float64(d)) }
	givenUp := func(o obstacle) ending {
		return ending{retry: time.Second + jitter(2*time.Second), obstacle: r.giveUp(ctx, a, kind, last.obstacle, o)}
	}
	if !r.store.Connected() {
		return givenUp(disconnected)
	}
	err := r.doScheduled(ctx, a, kind, last.obstacle)
	var unwritten *unwrittenFailure
	switch {
	case ctx.Err() != nil: // a stop
		return ending{}
	case errors.Is(err, store.ErrLeaseHeld):
		return r.leaseHeld(ctx, a, kind, last, jitter(leaseMargin))
	case errors.As(err, &unwritten):
		end := givenUp(r.obstacleOf(err))
		end.retry = 0 // the ledger entry has the time of the next turn
		return end
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrLeaseLost):
		return givenUp(r.obstacleOf(err))
	}
	r.overcome(a, kind, last.obstacle, true)
	return ending{} // the ledger entry has the time of the next turn
}

// leaseHeld ends a turn that found the lease held. The watch delivers the outcome of the other worker's turn. If that
// worker has died, its lease ends. A lease that is still, or again, held after that, with nothing done, is an obstacle.
func (r *refresher) leaseHeld(
	ctx context.Context, a *Account, kind messages.Kind, last ending, jitter time.Duration,
) ending {
	now := r.clock.Now()
	end := ending{
		retry: r.leaseLeft(a, kind, last.leaseHeld) + leaseMargin + jitter, leaseHeld: true, heldSince: now,
		progress: r.progress(a, kind), obstacle: last.obstacle,
	}
	if last.leaseHeld && last.progress == end.progress {
		end.heldSince = last.heldSince
	}
	if held := now.Sub(end.heldSince); held >= r.leaseTTL {
		end.obstacle = r.giveUp(ctx, a, kind, last.obstacle, obstacle{reason: messages.ReasonLeaseHeld, cause: cause{
			message: "another worker, or a NATS user that writes leases, holds the lease of " +
				messages.Key(a.AppID, kind) + " again and again, and refreshes nothing",
			advice: adviceLease,
		}})
	} else if last.obstacle != nil { // a lease that this worker could not release is no progress
		o := *last.obstacle
		r.tellExpired(a, kind, &o)
		end.obstacle = &o
	}
	return end
}

// doScheduled does in a turn what the policy decides then.
func (r *refresher) doScheduled(ctx context.Context, a *Account, kind messages.Kind, last *obstacle) error {
	refusedToken := ""   // SHA-256 of the access_token that WeChat refused for a ticket
	var sentAt time.Time // before the refused call
	err := r.take(ctx, a, kind, func(ctx context.Context, t *turn) error {
		if last != nil {
			t.expiryTold = last.expiryTold
		}
		d := r.policy.Next(r.clock.Now(), t.view)
		switch {
		case d.Action == policy.Republish:
			return t.republish(ctx)
		case d.Action == policy.NoteExpiry:
			return t.noteExpiry(ctx)
		case d.Action == policy.RewriteEntry:
			_, err := t.write(ctx, t.view.Ledger)
			return err
		case d.Action == policy.Fetch && d.Reason == messages.ReasonReported:
			_, err := t.answer(ctx, policy.Report{Own: true}) // it was refused before
			return err
		case d.Action == policy.Fetch:
			sentAt = r.clock.Now()
			// A retry continues what a report has begun: WeChat may repeat the token that it refuses.
			_, err := t.replace(ctx, t.view.Record, d.Reason, policy.IsRefused(t.view.Ledger, t.view.Record))
			var we *wechat.Error
			if kind != messages.AccessToken && errors.As(err, &we) && we.Class == wechat.ClassDeadToken {
				refusedToken = t.token
			}
			return err
		}
		return nil
	})
	if refusedToken != "" {
		// The ticket is retried after its backoff, with the token that this report brings.
		_, reportErr := r.report(ctx, a, messages.AccessToken, policy.Report{
			ValueSHA256: refusedToken, SentAt: sentAt, Own: true})
		if reportErr != nil {
			r.log.Debug("refused token not renewed", "appid", a.AppID, "error", reportErr)
		}
	}
	return err
}

// leaseLeft is for how long the lease that another worker holds lasts at most: not its whole TTL if the ledger
// entry says when its holder began, or if this worker has waited for it already. Otherwise a dead worker would
// block a refresh for its lease and for the time until another worker tried.
func (r *refresher) leaseLeft(a *Account, kind messages.Kind, waited bool) time.Duration {
	l := r.memory.ledger(messages.Key(a.AppID, kind))
	if since := r.clock.Now().Sub(l.LastAttempt); l.Attempts > 0 && since >= 0 {
		return max(r.leaseTTL-since, 0)
	}
	if waited {
		return 0
	}
	return r.leaseTTL
}
