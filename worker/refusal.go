package worker

import (
	"context"
	"errors"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// errStopping is the error of a request that a stopping worker does not begin.
var errStopping = errors.New("the worker is stopping")

// asRefusal turns any error of a request into an error of the contract (docs/architecture.md#subjects). It
// returns a *messages.Error.
func asRefusal(err error) error {
	var refusal *messages.Error
	var we *wechat.Error
	switch {
	case errors.As(err, &refusal):
		return refusal
	case errors.As(err, &we):
		return refusalOf(we)
	case errors.Is(err, store.ErrLeaseHeld), errors.Is(err, store.ErrLeaseLost), errors.Is(err, store.ErrConflict):
		return messages.Errorf(messages.NoCredential, "another worker is refreshing this credential").
			After(policy.RetryMin)
	case errors.Is(err, bucket.ErrNotFound), errors.Is(err, bucket.ErrExpired):
		return messages.Errorf(messages.NoCredential,
			"there is no valid credential now; see wxkeeper status for the reason").After(policy.RetryMin)
	case errors.Is(err, errStopping), errors.Is(err, context.Canceled): // only a stop cancels requests
		return messages.Errorf(messages.ShuttingDown,
			"this worker is stopping; ask again, and another worker answers").After(100 * time.Millisecond)
	case errors.Is(err, context.DeadlineExceeded):
		return messages.Errorf(messages.UpstreamTimeout, "no answer in time")
	case errors.Is(err, store.ErrUnavailable):
		return messages.Errorf(messages.NoCredential, "JetStream does not answer, so nothing can be refreshed now").
			After(policy.RetryMin)
	default:
		return messages.Errorf(messages.Upstream, "%v", err)
	}
}

// asRefusal is asRefusal for the error of a turn. It says why a bucket cannot be read or written, and what to do.
func (r *refresher) asRefusal(err error) error {
	result := asRefusal(err)
	if errors.Is(err, store.ErrUnavailable) && errors.Is(result, messages.ErrNoCredential) {
		return messages.Errorf(messages.NoCredential, "nothing can be refreshed now: %s", r.obstacleOf(err).cause).
			After(policy.RetryMin)
	}
	return result
}

// refusalOf is the error of the contract for a failure of WeChat.
func refusalOf(we *wechat.Error) *messages.Error {
	e := &messages.Error{Message: we.Error(), Errcode: we.Errcode, Errmsg: we.Errmsg, RID: we.RID}
	if we.Advice != "" {
		e.Message += ": " + we.Advice
	}
	switch we.Endpoint {
	case wechat.EndpointToken, wechat.EndpointStableToken, wechat.EndpointTicket:
		// WeChat refuses the account and not the request: the request may be sent again when the account is
		// fixed.
		switch we.Class {
		case wechat.ClassAccount, wechat.ClassPermission, wechat.ClassRequest, wechat.ClassBug:
			e.Symbol = messages.NoCredential
			return e.After(max(we.Wait, policy.PermanentMin))
		}
	}
	switch we.Class {
	case wechat.ClassRequest, wechat.ClassPermission:
		e.Symbol = messages.Rejected
	case wechat.ClassDailyQuota:
		e.Symbol = messages.QuotaExhausted
		e = e.After(max(we.Wait, policy.QuotaWait))
	case wechat.ClassMinuteQuota:
		e.Symbol = messages.Throttled
		e = e.After(max(we.Wait, time.Minute))
	case wechat.ClassDeadToken:
		e.Symbol = messages.NoCredential
		e = e.After(policy.RetryMin)
	case wechat.ClassTransport:
		e.Symbol = messages.Upstream
		if errors.Is(we, context.DeadlineExceeded) {
			e.Symbol = messages.UpstreamTimeout
		}
	default: // busy, server, broken, unknown, bug; account: an operator can fix it, so the request may be sent again
		e.Symbol = messages.Upstream
	}
	return e
}
