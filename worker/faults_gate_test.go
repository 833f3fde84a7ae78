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

// step is a moment in a turn: just before or after one of its messages.
type step string

const (
	beforeLease   step = "before the lease"
	leaseTaken    step = "lease taken, not known"
	beforeLook    step = "before the look at the leader"
	beforeAttempt step = "before the attempt is written"
	beforeCall    step = "before the upstream call"
	afterCall     step = "after the upstream call"
	beforeOutcome step = "before the outcome is written"
	beforePublish step = "before the publication"
	published     step = "published, not known"
	outcomeLost   step = "published, the outcome is lost"
	beforeRelease step = "before the lease is given back"
)

// arm makes a worker's gates close at the step, and returns what tells that they have.
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

// upstreamGate stands between a worker and WeChat, as a natstest.Gate between it and NATS. It closes both at its first
// call, and it is severed with the other.
type upstreamGate struct {
	transport http.RoundTripper
	nats      *natstest.Gate
	at        step // beforeCall, afterCall; else it is open
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
	strikes := u.calls.Add(1) == 1
	if strikes && u.at == beforeCall {
		if err := u.pass(req.Context()); err != nil {
			return nil, err
		}
	}
	if !strikes || u.at != afterCall {
		return u.transport.RoundTrip(req)
	}
	// The answer is there when the worker is stopped, and when it goes on, however long that takes.
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
	*actor
	nats     *natstest.Gate
	upstream *upstreamGate
}

// victim starts a worker and returns when it has reached the step. Its lease alone bounds its upstream call.
func (f *faultStage) victim(t *testing.T, a Account, kind messages.Kind, at step, lease time.Duration) *victim {
	t.Helper()
	g := natstest.NewGate()
	u := &upstreamGate{
		transport: f.transport, nats: g, reached: make(chan struct{}), open: make(chan struct{}), severed: make(chan struct{}),
	}
	key := messages.Key(a.AppID, kind)
	reached := at.arm(g, u, key)
	own := *f.stage
	own.TB, own.gate, own.lease = t, g, lease
	v := &victim{nats: g, upstream: u, actor: own.worker(func(c *Config) {
		c.Name, c.Accounts, c.WeChat.Timeout, c.WeChat.Transport = "victim", []Account{a}, patience, u
	})}
	select {
	case <-reached:
	case <-time.After(patience):
		t.Fatal("the step is not reached")
	}
	if at != beforeLease {
		v.eventually("the lease is taken", func() bool { return f.seen.lease(key) != never })
	}
	if at == published {
		v.eventually("it is published", func() bool { h := f.seen.Held(a.AppID, kind); return h != nil && h.Worker == "victim" })
	}
	return v
}

// goOn lets it continue.
func (v *victim) goOn() {
	v.nats.Open()
	close(v.upstream.open)
}

// lose breaks its connections to NATS, which it can make anew.
func (v *victim) lose() {
	v.nats.Cut()
	close(v.upstream.open)
}

// die cuts it off from everything, for good.
func (v *victim) die() {
	v.nats.Sever()
	close(v.upstream.severed)
}
