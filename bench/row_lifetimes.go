package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wxkeeper/wxkeeper/bench/report"
)

// lifetimes is row (b): services that call WeChat over several lives of a token, with nothing going wrong.
func (r *runner) lifetimes(ctx context.Context) error {
	for repeat := range r.repeats {
		all, ctx := errgroup.WithContext(ctx)
		for _, n := range r.services {
			for _, s := range systems {
				all.Go(func() error {
					c := fleetConfig{system: s, services: n, scale: r.lifeScale}
					o, err := r.conduct(ctx, c, func(ctx context.Context, _ *fleet) error {
						return wait(ctx, time.Duration(r.lives*float64(life(r.lifeScale))))
					})
					if err != nil {
						return err
					}
					what := fmt.Sprintf("%s, %g lives", count(n, "service"), r.lives)
					r.addFailed("(b)", what, s, repeat, o)
					calls := report.Measure{Row: "(b)", What: what + ": calls for a token, for each life"}
					r.report.Add(calls, s.name, own, repeat, float64(o.tokenCalls)/r.lives)
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

func (r *runner) addFailed(row, what string, s system, repeat int, o outcome) {
	m := report.Measure{Row: row, What: what + ": failed calls", Unit: "%"}
	r.report.Add(m, s.name, own, repeat, o.failedPercent())
}

func (r *runner) addTokenCalls(row, what string, s system, repeat int, o outcome) {
	m := report.Measure{Row: row, What: what + ": calls for a token"}
	r.report.Add(m, s.name, own, repeat, float64(o.tokenCalls))
}

// count returns "1 service", "2 services".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
