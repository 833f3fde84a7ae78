package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// resolver answers code.resolve (docs/architecture.md#resolve-1). Equal requests (appid, openid, code_ticket)
// at the same time share one call of WeChat.
type resolver struct {
	lookup    *lookup
	upstream  *wechat.Client
	refresher *refresher
	log       *slog.Logger
	timeout   time.Duration

	flights flights[flightKey, messages.RawCode]
	flying  *admission // the flights
	joined  *admission // the callers that wait for the flights of others
}

// joinersPerFlight limits the callers that wait for the flights of others, as a multiple of the flights.
const joinersPerFlight = 16

type flightKey struct{ appid, openid, codeTicket string }

// resolve blocks until WeChat's answer, at most for the resolver's timeout. A caller that has joined another's
// flight leaves it when its ctx ends. Its error is a *messages.Error.
func (r *resolver) resolve(ctx context.Context, a *Account, openid, codeTicket string) (messages.RawCode, error) {
	if err := ctx.Err(); err != nil {
		return nil, asRefusal(err)
	}
	key := flightKey{a.AppID, openid, codeTicket}
	f, leads, err := r.flights.join(key, func(leads bool) error {
		if leads {
			return r.flying.enter(a.AppID)
		}
		return r.joined.enter(a.AppID)
	})
	switch {
	case err != nil:
		return nil, err
	case !leads:
		defer r.joined.leave(a.AppID)
		select {
		case <-f.done:
			return f.value, f.err
		case <-ctx.Done():
			return nil, asRefusal(ctx.Err())
		}
	}
	f.err = messages.Errorf(messages.Upstream, "internal error") // if it panics
	defer r.flights.end(key, f)
	defer r.flying.leave(a.AppID) // before the flight ends: who has joined it may then ask again
	// Not the caller's cancellation: others may have joined.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
	defer cancel()
	f.value, f.err = r.fly(ctx, a, openid, codeTicket)
	return f.value, f.err
}

const (
	// The pause before a call that certainly had no effect is repeated, doubled up to resolvePauseMax.
	resolvePauseMin = 50 * time.Millisecond
	resolvePauseMax = time.Second
	// maxTokens is how many tokens are tried, each after WeChat has refused the one before: another system may kill a
	// new token at once. A token that WeChat refuses and says to be alive is tried twice.
	maxTokens = 5
)

// fly calls WeChat until there is a final answer, or ctx ends.
func (r *resolver) fly(ctx context.Context, a *Account, openid, codeTicket string) (messages.RawCode, error) {
	token, err := r.lookup.current(ctx, a, messages.AccessToken)
	if err != nil {
		return nil, err
	}
	ambiguous, alive, refusals := false, false, 0
	for pause := resolvePauseMin; ; {
		sent := r.refresher.clock.Now()
		reply, err := r.upstream.TicketToCode(ctx, token.Value, openid, codeTicket)
		if err == nil {
			return reply, nil
		}
		var we *wechat.Error
		if !errors.As(err, &we) {
			return nil, asRefusal(fmt.Errorf("ask WeChat: %w", err))
		}
		r.log.Debug("resolution refused", "appid", a.AppID, "class", we.Class, "errcode", we.Errcode, "rid", we.RID)
		switch {
		case we.Class == wechat.ClassDeadToken:
			if refusals++; alive || refusals == maxTokens {
				return nil, asRefusal(err)
			}
			o, err := r.refresher.report(ctx, a, messages.AccessToken,
				policy.Report{ValueSHA256: messages.ValueSHA256(token.Value), SentAt: sent, Own: true})
			if err != nil {
				return nil, err
			}
			// also if it is alive: WeChat sometimes refuses a new token and accepts it a moment later
			token, alive = o.current, o.reason != messages.ReasonRefreshed && o.reason != messages.ReasonNotCurrent
			continue
		case we.Class == wechat.ClassBusy, we.Class == wechat.ClassTransport && !we.Sent:
			// It had no effect: repeat it while there is time.
		case (we.Class == wechat.ClassTransport || we.Class == wechat.ClassServer && we.HTTPStatus >= 500) &&
			!ambiguous:
			// it may have had an effect, and WeChat does not document whether a ticket is single-use: repeat it
			// once
			ambiguous = true
		default:
			return nil, asRefusal(err)
		}
		select {
		case <-ctx.Done():
			return nil, asRefusal(err)
		case <-time.After(pause):
		}
		pause = min(2*pause, resolvePauseMax)
	}
}
