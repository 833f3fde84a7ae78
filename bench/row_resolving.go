package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/wxkeeper/wxkeeper/bench/load"
	"github.com/wxkeeper/wxkeeper/bench/proc"
	"github.com/wxkeeper/wxkeeper/bench/report"
	"github.com/wxkeeper/wxkeeper/bench/service"
)

// ways are the systems of row (g).
var ways = []struct{ way, name string }{
	{load.Resolve, own},
	{load.Relay, "the least relay"},
	{load.Echo, "raw NATS echo (no WeChat)"},
	{load.Direct, "direct HTTP (no NATS)"},
}

// saturation is the number of callers at a time.
const saturation = 64

// resolving is row (g): code.resolve, one request at a time and saturated. Callers, nats-server, worker and relay are
// processes of their own. The ways take turns within one run.
func (r *runner) resolving(ctx context.Context) error {
	g, err := r.startResolving(ctx)
	defer g.stop()
	if err != nil {
		return err
	}
	for round := -1; round < r.rounds; round++ { // the first one warms up
		for _, callers := range []int{1, saturation} {
			for i := range ways {
				w := ways[(i+round+len(ways))%len(ways)] // no way always follows the same other way
				if err := g.measure(ctx, r, round, w.way, w.name, callers); err != nil {
					return fmt.Errorf("%s: %w", w.name, err)
				}
			}
		}
	}
	return nil
}

// resolvers are the processes of row (g).
type resolvers struct {
	*fleet
	worker, relay, load *proc.Process
	results             chan load.Result
}

func (r *runner) startResolving(ctx context.Context) (*resolvers, error) {
	g := &resolvers{results: make(chan load.Result, 1)}
	var err error
	g.fleet, err = startFleet(ctx, r.bins, r.dir, fleetConfig{
		system: system{own, service.Wxkeeper, 1}, scale: 1, quick: true,
		services: 1, rate: 1, // it waits for the first token, and does nothing more
	})
	if err != nil {
		return g, err
	}
	paths := []string{"-nats", g.backend, "-api", g.wechat.plain, "-appid", appid}
	ready := make(chan struct{}, 1)
	relay := &member{config: proc.Config{
		Name: "relay", File: r.bins.self, Dir: g.dir, Args: append([]string{"relay"}, paths...),
		Line: func(string) { ready <- struct{}{} },
	}}
	if err := g.launch(relay); err != nil {
		return g, err
	}
	select {
	case <-ready:
	case <-relay.process.Exited():
		return g, fmt.Errorf("the relay has exited: see %s", g.dir)
	}
	loader := &member{config: proc.Config{
		Name: "load", File: r.bins.self, Dir: g.dir, Args: append([]string{"load"}, paths...),
		Line: func(line string) {
			var result load.Result
			if err := json.Unmarshal([]byte(line), &result); err != nil {
				result.Error = err.Error()
			}
			g.results <- result
		},
	}}
	if err := g.launch(loader); err != nil {
		return g, err
	}
	g.relay, g.load = relay.process, loader.process
	for _, m := range g.members {
		if m.renews {
			g.worker = m.process
		}
	}
	return g, nil
}

// measure measures one way for a while. Round -1 is not reported.
func (g *resolvers) measure(ctx context.Context, r *runner, round int, way, name string, callers int) error {
	answering := g.relay
	if way == load.Resolve {
		answering = g.worker
	}
	before, err := proc.CPU(answering.PID())
	if err != nil {
		return err
	}
	result, err := g.order(ctx, load.Order{Way: way, Callers: callers, For: r.resolveFor})
	if err != nil || round < 0 {
		return err
	}
	after, err := proc.CPU(answering.PID())
	if err != nil {
		return err
	}
	if callers == 1 {
		m := report.Measure{Row: "(g)", What: "code.resolve, one at a time", Unit: "µs"}
		r.report.Add(m, name, own, round, result.Took.Seconds()*1e6/float64(result.Requests))
		return nil
	}
	what := fmt.Sprintf("code.resolve, %d callers", callers)
	m := report.Measure{Row: "(g)", What: what, Unit: "/s", Better: report.Higher}
	r.report.Add(m, name, own, round, float64(result.Requests)/result.Took.Seconds())
	if way == load.Direct {
		return nil // no process stands between
	}
	m = report.Measure{Row: "(g)", What: what + ": CPU of the process that answers", Unit: "µs for each"}
	r.report.Add(m, name, own, round, (after-before).Seconds()*1e6/float64(result.Requests))
	return nil
}

func (g *resolvers) order(ctx context.Context, o load.Order) (result load.Result, err error) {
	text, err := json.Marshal(o)
	if err != nil {
		return result, err
	}
	if err := g.load.Send(string(text)); err != nil {
		return result, fmt.Errorf("the load has exited: see %s", g.dir)
	}
	select {
	case result = <-g.results:
	case <-g.load.Exited():
		return result, fmt.Errorf("the load has exited: see %s", g.dir)
	case <-ctx.Done():
		return result, ctx.Err()
	case <-time.After(o.For + time.Minute):
		return result, errors.New("no result")
	}
	if result.Error != "" {
		return result, errors.New(result.Error)
	}
	return result, nil
}
