package worker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// testClock is the clock of the simulated WeChat and of the workers of a fixture. A test can stop and advance
// it. Leases and the TTLs of records do not follow it: the NATS server ends them by its own clock.
type testClock struct {
	mu      sync.Mutex
	ahead   time.Duration
	stopped time.Time // zero: the clock runs
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stopped.IsZero() {
		return c.stopped
	}
	return time.Now().Round(0).Add(c.ahead)
}

// stop stops the clock at a whole millisecond, which is the precision of records, so that only advance moves it.
func (c *testClock) stop() {
	now := c.Now().Truncate(time.Millisecond)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = now
}

func (c *testClock) isStopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.stopped.IsZero()
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
	if !c.stopped.IsZero() {
		c.stopped = c.stopped.Add(d)
	}
}

// clockedUpstream is a client of WeChat whose answers were requested at the time of a testClock.
type clockedUpstream struct {
	turnUpstream
	clock *testClock
}

func (u clockedUpstream) Token(ctx context.Context, appid, secret string) (wechat.Issued, error) {
	sentAt := u.clock.Now()
	issued, err := u.turnUpstream.Token(ctx, appid, secret)
	issued.SentAt = sentAt
	return issued, err
}

func (u clockedUpstream) StableToken(ctx context.Context, appid, secret string, force bool) (wechat.Issued, error) {
	sentAt := u.clock.Now()
	issued, err := u.turnUpstream.StableToken(ctx, appid, secret, force)
	issued.SentAt = sentAt
	return issued, err
}

func (u clockedUpstream) Ticket(ctx context.Context, token string, typ wechat.TicketType) (wechat.Issued, error) {
	sentAt := u.clock.Now()
	issued, err := u.turnUpstream.Ticket(ctx, token, typ)
	issued.SentAt = sentAt
	return issued, err
}

// lateClock is a clock by which the deadlines of leases come sooner than at the server, by the time in late.
type lateClock struct {
	systemClock
	late atomic.Int64
}

func (c *lateClock) Until(deadline time.Time) time.Duration {
	return c.systemClock.Until(deadline) - time.Duration(c.late.Load())
}

func (c *lateClock) WithDeadline(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc) {
	return c.systemClock.WithDeadline(ctx, deadline.Add(-time.Duration(c.late.Load())))
}
