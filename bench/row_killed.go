package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wxkeeper/wxkeeper/bench/report"
)

// killed is row (c): a forgotten system fetches a token, and the token in use is dead at once. Time is real, so that
// the limits of each system count as they are.
func (r *runner) killed(ctx context.Context) error {
	for repeat := range r.repeats {
		all, ctx := errgroup.WithContext(ctx)
		for _, kills := range r.kills {
			moments := r.moments(repeat, kills)
			for _, s := range systems {
				all.Go(func() error {
					c := fleetConfig{system: s, services: r.killFleet, scale: 1, abrupt: true}
					o, err := r.conduct(ctx, c, func(ctx context.Context, f *fleet) error { return r.kill(ctx, f, moments) })
					if err != nil {
						return err
					}
					what := fmt.Sprintf("killed %s within %s, %s", count(kills, "time"), r.killWithin,
						count(r.killFleet, "service"))
					r.addFailed("(c)", what, s, repeat, o)
					calls := report.Measure{Row: "(c)", What: what + ": calls for a token", Better: report.Neither}
					r.report.Add(calls, s.name, own, repeat, float64(o.tokenCalls)) // a system that never recovers makes none
					return nil
				})
			}
		}
		if err := all.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// moments returns when tokens are killed, at random, the same for every system.
func (r *runner) moments(repeat, kills int) []time.Duration {
	source := rand.New(rand.NewPCG(r.seed, uint64(repeat*100+kills)))
	var all []time.Duration
	for range kills {
		all = append(all, time.Second+time.Duration(source.Int64N(int64(r.killWithin-time.Second))))
	}
	slices.Sort(all)
	return all
}

// kill kills the token at each moment. A system that uses stable_token is hit by a forced refresh: a foreign call of
// token would not harm it, which is the advantage of stable_token.
func (r *runner) kill(ctx context.Context, f *fleet, moments []time.Duration) error {
	endpoint := "token"
	if f.stable() {
		endpoint = "stable_token"
	}
	began := time.Now()
	for _, m := range moments {
		if err := wait(ctx, m-time.Since(began)); err != nil {
			return err
		}
		if _, err := f.wechat.ForeignRefresh(appid, endpoint); err != nil {
			return err
		}
	}
	return wait(ctx, r.killFor-time.Since(began))
}
