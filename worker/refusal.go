package worker

import (
	"context"
	"errors"
	"time"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// errStopping is the answer to what a stopping worker does not begin any more.
var errStopping = errors.New("the worker is stopping")

// asRefusal turns any error of a request into the error of the contract (design §4). It returns a *messages.Error.
func asRefusal(err error) error {
	var refusal *messages.Error
	var we *wechat.Error
	switch {
	case errors.As(err, &refusal):
		return refusal
	case errors.As(err, &we):
		return refusalOf(we)
	case errors.Is(err, store.ErrLeaseHeld), errors.Is(err, store.ErrLeaseLost), errors.Is(err, store.ErrConflict):
		return messages.Errorf(messages.NoCredential, "another worker is refreshing this credential").After(retryMin)
	case errors.Is(err, store.ErrNotFound), errors.Is(err, kv.ErrExpired):
		return messages.Errorf(messages.NoCredential, "there is no living credential now; wxkeeper status says why").After(retryMin)
	case errors.Is(err, errStopping), errors.Is(err, context.Canceled): // requests are cancelled by the stop alone
		return messages.Errorf(messages.ShuttingDown, "this worker is stopping; ask again, another answers").After(100 * time.Millisecond)
	case errors.Is(err, context.DeadlineExceeded):
		return messages.Errorf(messages.UpstreamTimeout, "no answer in time")
	case errors.Is(err, store.ErrUnavailable):
		return messages.Errorf(messages.NoCredential, "JetStream does not answer, so nothing can be refreshed now").After(retryMin)
	default:
		return messages.Errorf(messages.Upstream, "%v", err)
	}
}

// refusalOf is what the contract says of a failure of WeChat.
func refusalOf(we *wechat.Error) *messages.Error {
	e := &messages.Error{Message: we.Error(), Errcode: we.Errcode, Errmsg: we.Errmsg, RID: we.RID}
	if we.Advice != "" {
		e.Message += ": " + we.Advice
	}
	switch we.Endpoint {
	case wechat.EndpointToken, wechat.EndpointStableToken, wechat.EndpointTicket:
		// It is the account that WeChat refuses, not the request: that may be asked again when the account is well.
		switch we.Class {
		case wechat.ClassAccount, wechat.ClassPermission, wechat.ClassRequest, wechat.ClassBug:
			e.Symbol = messages.NoCredential
			return e.After(max(we.Wait, permanentMin))
		}
	}
	switch we.Class {
	case wechat.ClassRequest, wechat.ClassPermission:
		e.Symbol = messages.Rejected
	case wechat.ClassDailyQuota:
		e.Symbol = messages.QuotaExhausted
		e = e.After(max(we.Wait, quotaWait))
	case wechat.ClassMinuteQuota:
		e.Symbol = messages.Throttled
		e = e.After(max(we.Wait, time.Minute))
	case wechat.ClassDeadToken:
		e.Symbol = messages.NoCredential
		e = e.After(retryMin)
	case wechat.ClassTransport:
		e.Symbol = messages.Upstream
		if errors.Is(we, context.DeadlineExceeded) {
			e.Symbol = messages.UpstreamTimeout
		}
	default: // busy, server, broken, unknown, bug; account: an operator can put it right, so not this request for good
		e.Symbol = messages.Upstream
	}
	return e
}
