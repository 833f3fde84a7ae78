package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wxkeeper/wxkeeper/bench/proc"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// errcodeBusy is WeChat's "system error": try again later.
const errcodeBusy = -1

// tokenEndpoints are where a token comes from.
var tokenEndpoints = []string{"token", "stable_token"}

// renewerKilled is row (d): the process that renews the token gets SIGKILL while WeChat answers it, and starts again
// after the absence. What it has in memory is lost.
func (r *runner) renewerKilled(ctx context.Context) error {
	what := fmt.Sprintf("the renewing process killed, back after %s", r.absent)
	return r.faults(ctx, "(d)", what, r.killRenewer)
}

// busyWeChat is row (e): WeChat refuses every call for a token, from shortly before the system renews its token.
func (r *runner) busyWeChat(ctx context.Context) error {
	return r.faults(ctx, "(e)", fmt.Sprintf("WeChat busy for %s around the renewal", r.busy), r.beBusy)
}

// faults runs a scenario for every system, all repeats at the same time, until the first token would have ended, and
// until what was broken has been whole again for a while.
func (r *runner) faults(ctx context.Context, row, what string, scenario func(context.Context, *fleet) error) error {
	all, ctx := errgroup.WithContext(ctx)
	for repeat := range r.repeats {
		for _, s := range systems {
			all.Go(func() error {
				c := fleetConfig{system: s, services: r.faultFleet, scale: r.faultScale, ahead: r.ahead}
				o, err := r.conduct(ctx, c, func(ctx context.Context, f *fleet) error {
					if err := scenario(ctx, f); err != nil {
						return err
					}
					return f.forAge(ctx, life(r.faultScale)+r.busy)
				})
				if err != nil {
					return err
				}
				r.addFailed(row, what, s, repeat, o)
				r.addTokenCalls(row, what, s, repeat, o)
				return nil
			})
		}
	}
	return all.Wait()
}

func (r *runner) beBusy(ctx context.Context, f *fleet) error {
	before := r.busy / 6
	if err := f.forAge(ctx, f.renewsAt(f.scale, f.ahead)-before); err != nil {
		return err
	}
	for _, e := range tokenEndpoints {
		f.wechat.Inject(wechattest.Fault{Endpoint: e, Errcode: errcodeBusy})
	}
	if err := wait(ctx, r.busy); err != nil {
		return err
	}
	f.wechat.ClearFaults()
	return nil
}

func (r *runner) killRenewer(ctx context.Context, f *fleet) error {
	for _, e := range tokenEndpoints { // the next call hangs, so that there is time to find out who makes it
		f.wechat.Inject(wechattest.Fault{Endpoint: e, Hang: true, Times: 1})
	}
	m, err := f.awaitRenewer(ctx)
	if err != nil {
		return err
	}
	m.process.Kill()
	f.wechat.ClearFaults()
	if err := wait(ctx, r.absent); err != nil {
		return err
	}
	return f.launch(m)
}

// awaitRenewer waits until a call for a token hangs, and returns the process that makes it.
func (f *fleet) awaitRenewer(ctx context.Context) (*member, error) {
	limit := 2 * life(f.scale)
	deadline := time.Now().Add(limit)
	for {
		for caller, since := range f.wechat.openCalls() {
			if time.Since(since) < 5*weChatLatency {
				continue // not the one that hangs
			}
			renewers, pids := f.renewers()
			pid, err := proc.Owner(caller, pids)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f.name, err)
			}
			return renewers[pid], nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s: nobody has renewed the token in %s", f.name, limit)
		}
		if err := wait(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// renewers returns the processes that ask WeChat for tokens.
func (f *fleet) renewers() (byPID map[int]*member, pids []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	byPID = map[int]*member{}
	for _, m := range f.members {
		if m.renews {
			byPID[m.process.PID()] = m
			pids = append(pids, m.process.PID())
		}
	}
	return byPID, pids
}
