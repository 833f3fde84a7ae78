package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// resolver answers code.resolve (design §6). What is in flight for one (appid, openid, code_ticket) is asked upstream
// once, and every caller gets the answer.
type resolver struct {
	lookup   *lookup
	upstream *wechat.Client
	report   func(context.Context, *Account, messages.Kind, dead) (verdict, error)
	log      *slog.Logger
	timeout  time.Duration
	limit    int // flights at once; callers that join one are bounded by joinersPerFlight times it

	flights flights[flightKey, messages.RawCode]
	joined  atomic.Int64
}

// joinersPerFlight bounds the callers that wait for the flights of others, as a multiple of limit.
const joinersPerFlight = 16

type flightKey struct{ appid, openid, codeTicket string }

// resolve blocks until WeChat's answer, at most for the resolver's timeout; a caller that joins another's flight leaves
// it when its ctx ends. Its error is a *messages.Error.
func (r *resolver) resolve(ctx context.Context, a *Account, openid, codeTicket string) (messages.RawCode, error) {
	if err := ctx.Err(); err != nil {
		return nil, asRefusal(err)
	}
	key := flightKey{a.AppID, openid, codeTicket}
	f, leads, err := r.flights.join(key, func(flights int, leads bool) error {
		if leads && flights >= r.limit || !leads && r.joined.Load() >= int64(r.limit*joinersPerFlight) {
			return messages.Errorf(messages.Overloaded, "this worker has %d resolutions in flight (WXKEEPER_RESOLVE_CONCURRENCY)", r.limit).
				After(100 * time.Millisecond)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case !leads:
		r.joined.Add(1)
		defer r.joined.Add(-1)
		select {
		case <-f.done:
			return f.value, f.err
		case <-ctx.Done():
			return nil, asRefusal(ctx.Err())
		}
	}
	f.err = messages.Errorf(messages.Upstream, "internal error") // if it panics
	defer r.flights.end(key, f)
	// The caller's own cancellation must not harm those that join it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
	defer cancel()
	f.value, f.err = r.fly(ctx, a, openid, codeTicket)
	return f.value, f.err
}

const (
	resolvePauseMin = 50 * time.Millisecond // before a resolution that surely had no effect is sent again, doubled …
	resolvePauseMax = time.Second           // … up to this
)

// fly asks WeChat until there is an answer that stands, or ctx ends.
func (r *resolver) fly(ctx context.Context, a *Account, openid, codeTicket string) (messages.RawCode, error) {
	token, err := r.lookup.current(ctx, a, messages.AccessToken)
	if err != nil {
		return nil, err
	}
	ambiguous, refused := false, false
	for pause := resolvePauseMin; ; {
		reply, err := r.upstream.TicketToCode(ctx, token.Value, openid, codeTicket)
		if err == nil {
			return reply, nil
		}
		var we *wechat.Error
		if !errors.As(err, &we) {
			return nil, asRefusal(fmt.Errorf("asking WeChat: %w", err))
		}
		r.log.Debug("resolution refused", "appid", a.AppID, "class", we.Class, "errcode", we.Errcode, "rid", we.RID)
		switch {
		case we.Class == wechat.ClassDeadToken:
			if refused {
				return nil, asRefusal(err)
			}
			refused = true
			v, err := r.report(ctx, a, messages.AccessToken, dead{sha256: messages.ValueSHA256(token.Value), firsthand: true})
			if err != nil {
				return nil, err
			}
			token = v.current // alive too: WeChat refuses young tokens now and then, and takes them a moment later
			continue
		case we.Class == wechat.ClassBusy, we.Class == wechat.ClassTransport && !we.Sent:
			// It had no effect: again, for as long as there is time.
		case (we.Class == wechat.ClassTransport || we.Class == wechat.ClassServer && we.HTTPStatus >= 500) && !ambiguous:
			ambiguous = true // it may have had an effect, and whether a ticket is single-use is not documented: once more
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
