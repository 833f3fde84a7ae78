package worker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

// step is a moment in a turn: just before or just after one of its messages.
type step string

const (
	beforeLease   step = "before the lease"
	leaseTaken    step = "lease taken, the answer is lost"
	beforeLook    step = "before the read at the leader"
	beforeAttempt step = "before the attempt is written"
	beforeCall    step = "before the upstream call"
	afterCall     step = "after the upstream call"
	beforeOutcome step = "before the outcome is written"
	beforePublish step = "before the publication"
	published     step = "published, the answer is lost"
	outcomeLost   step = "published, the outcome is lost"
	beforeRelease step = "before the lease is released"
)

// arm makes the gates of a worker close at the step, and returns a channel that is closed when they have.
func (s step) arm(g *natstest.Gate, u *upstreamGate, key string) <-chan struct{} {
	const bucket, ledger = "$KV.wechat.", "$KV.wechat_ledger."
	switch s {
	case beforeLease:
		return g.Before(bucket+"lease."+key, 1)
	case leaseTaken:
		return g.After(bucket+"lease."+key, 1)
	case beforeLook:
		return g.Before("$JS.API.STREAM.MSG.GET.KV_wechat", 1)
	case beforeAttempt:
		return g.Before(ledger+key, 1)
	case beforeCall, afterCall:
		u.at = s
		return u.reached
	case beforeOutcome:
		return g.Before(ledger+key, 2)
	case beforePublish:
		return g.Before(bucket+key, 1)
	case published:
		return g.After(bucket+key, 1)
	case outcomeLost:
		g.Lose(ledger+key, 2)
		return g.Before(bucket+"lease."+key, 2)
	case beforeRelease:
		return g.Before(bucket+"lease."+key, 2)
	}
	panic(s)
}

// upstreamGate is between a worker and WeChat, as a natstest.Gate is between the worker and NATS. At its first
// call it closes both gates.
type upstreamGate struct {
	transport http.RoundTripper
	nats      *natstest.Gate
	at        step // beforeCall, afterCall; else the gate is open
	calls     atomic.Int64
	reached   chan struct{}
	open      chan struct{}
	severed   chan struct{}
}

var errSevered = errors.New("the gate is severed")

func (u *upstreamGate) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case <-u.severed:
		return nil, errSevered
	default:
	}
	first := u.calls.Add(1) == 1
	if first && u.at == beforeCall {
		if err := u.pass(req.Context()); err != nil {
			return nil, err
		}
	}
	if !first || u.at != afterCall {
		return u.transport.RoundTrip(req)
	}
	// The answer has arrived when the worker is stopped, and the worker reads it when it continues, however
	// late that is.
	resp, err := u.transport.RoundTrip(req.WithContext(context.WithoutCancel(req.Context())))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		err = u.pass(context.Background())
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, err
}

// pass closes both gates, and waits until the gate is open again.
func (u *upstreamGate) pass(ctx context.Context) error {
	u.nats.Hold()
	close(u.reached)
	select {
	case <-u.open:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	case <-u.severed:
		return errSevered
	}
}

// victim is a worker that is stopped at one step of its first turn.
type victim struct {
	*testWorker
	nats     *natstest.Gate
	upstream *upstreamGate
}

// victim starts a worker and returns when it has reached the step. Only its lease limits its call of WeChat.
func (f *faultFixture) victim(t *testing.T, a Account, kind messages.Kind, at step, lease time.Duration) *victim {
	t.Helper()
	g := natstest.NewGate()
	u := &upstreamGate{
		transport: f.transport, nats: g,
		reached: make(chan struct{}), open: make(chan struct{}), severed: make(chan struct{}),
	}
	key := messages.Key(a.AppID, kind)
	reached := at.arm(g, u, key)
	own := f.fixtureFor(t, g)
	own.lease = lease
	v := &victim{nats: g, upstream: u, testWorker: own.worker(func(c *Config) {
		c.Name, c.Accounts = "victim", []Account{a}
		c.WeChat.Timeout, c.WeChat.Transport = patience, u
	})}
	select {
	case <-reached:
	case <-time.After(patience):
		t.Fatal("the step is not reached")
	}
	if at != beforeLease {
		v.eventually("the lease is taken", func() bool { return f.seen.lease(key) != leaseNever })
	}
	if at == published {
		v.eventually("it is published", func() bool {
			c, err := f.seen.Get(a.AppID, kind)
			return err == nil && c.Worker == "victim"
		})
	}
	return v
}

// resume lets the victim continue.
func (v *victim) resume() {
	v.nats.Open()
	close(v.upstream.open)
}

// cut breaks the victim's connections to NATS. It can connect again.
func (v *victim) cut() {
	v.nats.Cut()
	close(v.upstream.open)
}

// die cuts the victim off from everything, permanently.
func (v *victim) die() {
	v.nats.Sever()
	close(v.upstream.severed)
}
