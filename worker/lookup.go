package worker

import (
	"context"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

// lookup finds the current credential for a request: in memory, and only where no living one is there, at the leader of
// the bucket. A worker that has just started or woken up may not have heard yet of what the others have published.
type lookup struct {
	store   *store.Store
	reader  *kv.Reader
	missing func(*Account, messages.Kind) error // what is answered where there is none
	now     func() time.Time

	flights flights[string, struct{}] // all who miss one at the same time share the leader's answer
	mu      sync.Mutex
	asked   map[string]time.Time // by kv.Key, when the leader had none
}

const (
	lookupEvery   = time.Second // between two questions to the leader for one credential
	lookupTimeout = time.Second
)

// current returns a living credential; where memory has one it does not block, otherwise for at most lookupTimeout. Its
// error is a *messages.Error.
func (l *lookup) current(ctx context.Context, a *Account, kind messages.Kind) (messages.Credential, error) {
	c, err := l.reader.Get(a.AppID, kind)
	if err == nil {
		return c, nil
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
	if c, err = l.reader.Get(a.AppID, kind); err == nil {
		return c, nil
	}
	return messages.Credential{}, l.missing(a, kind)
}

// ask takes what the leader has, unless it was asked a moment ago.
func (l *lookup) ask(ctx context.Context, a *Account, kind messages.Kind, key string) {
	now := l.now()
	l.mu.Lock()
	since := now.Sub(l.asked[key])
	l.mu.Unlock()
	if since >= 0 && since < lookupEvery {
		return
	}
	if _, err := l.reader.Get(a.AppID, kind); err == nil {
		return // it came while the flight was joined
	}
	// Not the caller's cancellation: others wait for the answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
	defer cancel()
	c, err := l.store.Get(ctx, a.AppID, kind)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && c.Valid(now) {
		l.reader.Apply(c)
		delete(l.asked, key)
		return
	}
	if l.asked == nil {
		l.asked = make(map[string]time.Time)
	}
	l.asked[key] = l.now()
}
