package worker

import (
	"context"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
)

// lookup finds the current credential for a request: in memory, and only if there is no valid one, at the leader
// of the bucket: a worker that has just started or woken up may not have received yet what others have published.
type lookup struct {
	store     turnStore
	memory    *memory
	scheduler *scheduler
	now       func() time.Time

	// Requests for one credential that memory does not have share the leader's answer.
	flights flights[string, struct{}]
	mu      sync.Mutex
	asked   map[string]time.Time // by messages.Key, when the leader had no valid record
}

const (
	lookupEvery   = time.Second // between two reads at the leader for one credential
	lookupTimeout = time.Second
)

// current returns a valid credential. It does not block if memory has one, otherwise for at most lookupTimeout.
// Its error is a *messages.Error.
func (l *lookup) current(ctx context.Context, a *Account, kind messages.Kind) (messages.Credential, error) {
	if c, err := l.memory.get(a.AppID, kind); err == nil {
		return *c, nil
	}
	key := messages.Key(a.AppID, kind)
	f, leads, _ := l.flights.join(key, nil)
	if leads {
		func() {
			defer l.flights.end(key, f)
			l.ask(ctx, a, kind, key)
		}()
	} else {
		select {
		case <-f.done:
		case <-ctx.Done():
			return messages.Credential{}, asRefusal(ctx.Err())
		}
	}
	if c, err := l.memory.get(a.AppID, kind); err == nil {
		return *c, nil
	}
	return messages.Credential{}, l.missing(a, kind)
}

// ask takes the record that the leader has, unless the leader was asked a moment ago.
func (l *lookup) ask(ctx context.Context, a *Account, kind messages.Kind, key string) {
	now := l.now()
	l.mu.Lock()
	since := now.Sub(l.asked[key])
	l.mu.Unlock()
	if since >= 0 && since < lookupEvery {
		return
	}
	if _, err := l.memory.get(a.AppID, kind); err == nil {
		return // it arrived while the flight was joined
	}
	// Not the caller's cancellation: others wait for the answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
	defer cancel()
	c, err := l.store.Get(ctx, a.AppID, kind)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && c.Valid(now) {
		l.memory.hold(c)
		delete(l.asked, key)
		return
	}
	if l.asked == nil {
		l.asked = make(map[string]time.Time)
	}
	l.asked[key] = l.now()
}

// missing is the error of a request for a credential that neither memory nor the leader has: with the reason, and the
// time until the next turn as retry_after.
func (l *lookup) missing(a *Account, kind messages.Kind) error {
	c, _ := l.scheduler.of(messages.Key(a.AppID, kind))
	why := l.why(a, kind, c)
	e := messages.Errorf(messages.NoCredential, "there is no valid %s of %s now: %s", kind, a.AppID, why)
	e.Errcode, e.RID = why.errcode, why.rid
	return e.After(max(c.next.At.Sub(l.now()), policy.RetryMin))
}

// why is why there is no valid credential.
func (l *lookup) why(a *Account, kind messages.Kind, c scheduled) cause {
	why := causeOf(c.obstacle, l.memory.ledger(messages.Key(a.AppID, kind)))
	switch {
	case c.next.Reason == messages.ReasonNoToken:
		token, _ := l.scheduler.of(messages.Key(a.AppID, messages.AccessToken))
		why = l.why(a, messages.AccessToken, token)
		why.message = "it needs an access_token, and there is none: " + why.message
	case why.message != "":
	case c.running:
		why.message = "it is being refreshed"
	default:
		why.message = waiting[c.next.Reason]
		if why.message == "" {
			why.message = "it is refreshed soon"
		}
	}
	return why
}

// waiting has the reasons for which nothing has failed and nothing is refreshed at once.
var waiting = map[messages.Reason]string{
	messages.ReasonOthers: "the bucket has lost it, and another worker may publish it again",
	messages.ReasonPaced:  "there were too many calls for it in a short time",
}
