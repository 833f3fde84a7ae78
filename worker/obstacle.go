package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// obstacle is what keeps this worker from refreshing a credential that is due. It is in the worker's memory, because
// the ledger may be what cannot be written. It never changes: each turn that is given up makes a new one.
type obstacle struct {
	reason messages.Reason
	cause  cause
	since  time.Time // when the first of the turns was given up
	last   time.Time // when the last one was
	turns  int       // given up in a row
	told   bool      // the event failed was published
	// the generation whose expiry was logged, and published as an event; 0: none was
	expiryLogged, expiryTold uint64
}

// cause is why a credential is not renewed, for people. The zero cause says that nothing is known to be wrong.
type cause struct {
	class, message, advice string
	errcode                int
	rid                    string
}

// causeOf is why a credential is not renewed: what keeps this worker from refreshing it, else its last failed attempt.
func causeOf(o *obstacle, l store.Ledger) cause {
	switch f := l.Failure; {
	case o != nil:
		return o.cause
	case f != nil:
		return cause{f.Class.String(), f.Message, f.Advice, f.Errcode, f.RID}
	}
	return cause{}
}

// String is the message and the advice.
func (c cause) String() string {
	if c.advice == "" {
		return c.message
	}
	return c.message + ": " + c.advice
}

// untoldTurns is how many turns in a row are given up before the event failed is published: the election of a leader
// makes many workers give up one turn, and is no news.
const untoldTurns = 1

// Advice for operators.
const (
	adviceDisconnected = "look at the NATS servers of NATS_URL, and at the network between them and this worker"
	adviceQuorum       = "look whether the NATS servers that store the buckets run and have a quorum: " +
		"nats server report jetstream, wxkeeper check"
	adviceRefused = "look at the storage and the limits of this NATS account and of its servers: nats account info, " +
		"nats server report jetstream, wxkeeper check"
	advicePermissions = "give the NATS user of this worker the permissions of a worker: wxkeeper permissions worker " +
		"lists them, wxkeeper check tries them"
	adviceLease = "look at the logs of the other workers, and for a NATS user or a worker that writes leases and " +
		"refreshes nothing: wxkeeper check"
	adviceInternal = "report this fault of wxkeeper with the log of this worker"
)

var disconnected = obstacle{reason: messages.ReasonDisconnected, cause: cause{
	message: "this worker is not connected to NATS", advice: adviceDisconnected,
}}

// obstacleOf describes why a turn was given up.
func (r *refresher) obstacleOf(err error) obstacle {
	var unwritten *unwrittenFailure
	if errors.As(err, &unwritten) {
		f := unwritten.failure
		return obstacle{reason: messages.ReasonUnwritable, told: true, cause: cause{
			f.Class.String(), fmt.Sprintf("%s (the ledger cannot be written: %v)", f.Message, unwritten.err), f.Advice,
			f.Errcode, f.RID,
		}}
	}
	o := unwritable(err, r.violation())
	if r.explain != nil && o.cause.advice != advicePermissions {
		if refusal, known := errors.AsType[*store.Refusal](r.explain(err)); known {
			o.cause.advice = refusal.Advice
		}
	}
	return o
}

// unwritable is the obstacle of a bucket that cannot be read or written. violation is what the server has said
// about permissions, if anything.
func unwritable(err error, violation string) obstacle {
	o := obstacle{reason: messages.ReasonUnwritable, cause: cause{message: err.Error()}}
	var refused *jetstream.APIError
	const unavailable = 503 // no leader, no quorum
	switch {
	case errors.As(err, &refused) && (refused.Code != unavailable || refused.ErrorCode == insufficientResources):
		o.cause.advice = adviceRefused
	case violation != "":
		o.cause.message += "; NATS has refused: " + violation
		o.cause.advice = advicePermissions
	default:
		o.cause.advice = adviceQuorum
	}
	return o
}

// insufficientResources is the server's code if no server has the storage that is needed.
const insufficientResources = 10023

// violation is the last refusal of a permission for a bucket, which the server reports asynchronously; the request
// only times out. It is empty if there was none.
func (r *refresher) violation() string {
	if r.lastError == nil {
		return ""
	}
	err := r.lastError()
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return ""
	}
	text := err.Error()
	if !strings.Contains(text, `"$KV.`) && !strings.Contains(text, "STREAM.MSG.GET.KV_") {
		return ""
	}
	return strings.TrimPrefix(text, "nats: ")
}

// giveUp notes that a turn was given up, counts and logs it, and publishes what is news. last is the obstacle of the
// turn before, nil: none. It returns the obstacle of this turn.
func (r *refresher) giveUp(
	ctx context.Context, a *Account, kind messages.Kind, last *obstacle, o obstacle,
) *obstacle {
	now := r.clock.Now()
	o.since, o.last, o.turns = now, now, 1
	if o.cause.class == "" {
		o.cause.class = string(o.reason)
	}
	isNew := last == nil || last.reason != o.reason
	if last != nil {
		o.since, o.turns, o.told = last.since, last.turns+1, o.told || last.told
		o.expiryLogged, o.expiryTold = last.expiryLogged, last.expiryTold
	}
	r.metrics.givenUp.WithLabelValues(string(kind), string(o.reason)).Inc()
	level := slog.LevelDebug // the same again: the status shows it
	switch {
	case o.turns == untoldTurns+1:
		level = slog.LevelError
	case isNew:
		level = slog.LevelWarn
	}
	r.log.Log(ctx, level, "refresh given up", "appid", a.AppID, "kind", kind, "reason", o.reason,
		"error", o.cause.message, "since", o.since, "turns", o.turns, "advice", o.cause.advice)
	if !o.told && o.turns > untoldTurns {
		o.told = r.tellFailed(a, kind, &o, o.cause.message)
	}
	r.tellExpired(a, kind, &o)
	return &o
}

// tellFailed publishes the event failed, and returns whether NATS took it.
func (r *refresher) tellFailed(a *Account, kind messages.Kind, o *obstacle, message string) bool {
	l := r.memory.ledger(messages.Key(a.AppID, kind))
	return r.events.publish(a, kind, messages.EventFailed, messages.Event{
		Generation: l.Generation, ExpiresAt: l.ExpiresAt, Attempts: o.turns, Class: o.cause.class, Message: message,
		Advice: o.cause.advice, Errcode: o.cause.errcode, RID: o.cause.rid,
	})
}

// tellExpired logs and publishes that the last value has expired, once, if no turn can write that down. The workers
// cannot agree on one of them that tells, so each does.
func (r *refresher) tellExpired(a *Account, kind messages.Kind, o *obstacle) {
	l, held := r.memory.ledger(messages.Key(a.AppID, kind)), r.memory.held(a.AppID, kind)
	generation, end := l.Generation, l.ExpiresAt
	if held != nil && held.Generation >= generation {
		generation, end = held.Generation, held.ExpiresAt
	}
	if generation <= l.Expired || generation <= o.expiryTold || r.clock.Now().Before(end) {
		return
	}
	if o.expiryLogged < generation {
		o.expiryLogged = generation
		r.log.Error("credential expired before it could be renewed", "appid", a.AppID, "kind", kind,
			"generation", generation, "expired_at", end, "error", o.cause.message, "advice", o.cause.advice)
	}
	if r.events.publish(a, kind, messages.EventExpired, messages.Event{
		Generation: generation, ExpiresAt: end, Message: o.cause.message, Advice: o.cause.advice,
	}) {
		o.expiryTold = generation
	}
}

// overcome logs that what kept this worker from refreshing a credential is over, and publishes what is news. An event
// that could not be published meanwhile is published now. recovered is false if the credential is not refreshed, and
// waits for something else.
func (r *refresher) overcome(a *Account, kind messages.Kind, o *obstacle, recovered bool) {
	if o == nil || o.turns <= untoldTurns {
		return
	}
	r.log.Info("refresh possible again", "appid", a.AppID, "kind", kind, "reason", o.reason, "since", o.since,
		"turns", o.turns)
	if !o.told {
		r.tellFailed(a, kind, o, fmt.Sprintf("%s (from %s to %s)", o.cause.message,
			o.since.UTC().Format(time.RFC3339), o.last.UTC().Format(time.RFC3339)))
	}
	if l := r.memory.ledger(messages.Key(a.AppID, kind)); recovered && l.Attempts == 0 { // else WeChat fails now
		r.events.publish(a, kind, messages.EventRecovered, messages.Event{
			Generation: l.Generation, ExpiresAt: l.ExpiresAt, Attempts: o.turns,
		})
	}
}

// matters reports whether an obstacle still keeps this worker from a refresh: a turn is due, or an attempt was begun
// whose outcome could not be written down. Otherwise another worker has done the work.
func (o *obstacle) matters(next policy.Decision, l store.Ledger) bool {
	return next.Action != policy.Wait ||
		l.Attempts > 0 && (l.Failure == nil || l.Failure.At.Before(l.LastAttempt)) && !l.LastAttempt.After(o.last)
}

// ending is how a turn ended.
type ending struct {
	retry     time.Duration // the least time before the next turn; 0: the policy decides
	leaseHeld bool          // another worker holds the lease
	heldSince time.Time     // since when the lease was found held without any progress; zero: it was not
	progress  progress      // what was known then
	obstacle  *obstacle     // nil: none
}

// progress is what changes when another worker gets ahead with a credential.
type progress struct {
	attempt    time.Time
	generation uint64
}

func (r *refresher) progress(a *Account, kind messages.Kind) progress {
	p := progress{attempt: r.memory.ledger(messages.Key(a.AppID, kind)).LastAttempt}
	if held := r.memory.held(a.AppID, kind); held != nil {
		p.generation = held.Generation
	}
	return p
}

// panicRetry is the wait after a turn that has panicked before it wrote an attempt down. After an attempt that was
// written down, the next turn follows its backoff.
const panicRetry = time.Minute

// panicked ends a turn that has panicked. The panic itself was logged.
func (r *refresher) panicked(ctx context.Context, a *Account, kind messages.Kind, last *obstacle) ending {
	return ending{retry: panicRetry, obstacle: r.giveUp(ctx, a, kind, last, obstacle{
		reason: messages.ReasonInternalError,
		cause:  cause{message: "a refresh ended with an internal error of wxkeeper", advice: adviceInternal},
	})}
}
