package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/wxkeeper/wxkeeper/bench/proc"
	"github.com/wxkeeper/wxkeeper/bench/report"
	"github.com/wxkeeper/wxkeeper/bench/service"
)

const (
	consumersPerProcess = 500
	// consumersSettle is longer than the time in which a new connection reads its credentials a few times more.
	consumersSettle = 40 * time.Second
	// consumersFor covers two of the rounds in which a consumer reads its credentials again, one each half minute.
	consumersFor = time.Minute
)

// manyConsumers is for docs/scale.md: what consumers cost while nothing changes. Each has a connection of its own.
func (r *runner) manyConsumers(ctx context.Context, n int) error {
	f, err := startFleet(ctx, r.bins, r.dir, fleetConfig{
		system: system{own, service.Wxkeeper, 1}, scale: 1, services: 1, rate: 1,
	})
	defer f.stop()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := f.launchConsumers(ctx, n); err != nil {
		return err
	}
	add := func(system, what, unit string, value float64) {
		m := report.Measure{Row: "(consumers)", What: count(n, "consumer") + ": " + what, Unit: unit}
		r.report.Add(m, system, system, 0, value)
	}
	add("all", "connected, with the token", "s", time.Since(began).Seconds())
	if err := wait(ctx, consumersSettle); err != nil {
		return err
	}
	in, err := received(ctx, f.pages)
	if err != nil {
		return err
	}
	cpu := map[string]time.Duration{}
	for name, pid := range f.backendPIDs() {
		if cpu[name], err = proc.CPU(pid); err != nil {
			return err
		}
	}
	began = time.Now()
	if err := wait(ctx, consumersFor); err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	later, err := received(ctx, f.pages)
	if err != nil {
		return err
	}
	add("nats-server", "messages received", "/s", float64(later-in)/took)
	for name, pid := range f.backendPIDs() {
		used, err := proc.CPU(pid)
		if err != nil {
			return err
		}
		resident, err := proc.Resident(pid)
		if err != nil {
			return err
		}
		add(name, "while nothing changes", "% of a core", 100*(used-cpu[name]).Seconds()/took)
		add(name, "resident memory", "MiB", float64(resident)/(1<<20))
	}
	return nil
}

// launchConsumers starts the processes of n consumers one after the other, and returns when all have the token.
func (f *fleet) launchConsumers(ctx context.Context, n int) error {
	for left, i := n, 1; left > 0; left, i = left-consumersPerProcess, i+1 {
		ready := make(chan struct{}, 1)
		m := &member{service: true, config: proc.Config{
			Name: fmt.Sprint("consumers", i), File: f.bins.self, Dir: f.dir,
			Args: []string{
				"consume", "-nats", f.backend, "-appid", appid, "-consumers", strconv.Itoa(min(left, consumersPerProcess)),
			},
			Line: func(string) { ready <- struct{}{} },
		}}
		if err := f.launch(m); err != nil {
			return err
		}
		select {
		case <-ready:
		case <-m.process.Exited():
			return fmt.Errorf("consumers have exited: see %s", f.dir)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// backendPIDs returns the processes that serve the services, by name.
func (f *fleet) backendPIDs() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string]int{}
	for _, m := range f.members {
		if !m.service {
			all[m.config.Name] = m.process.PID()
		}
	}
	return all
}

// received returns how many messages a nats-server has received.
func received(ctx context.Context, pages string) (int, error) {
	text, err := page(ctx, pages+"/varz")
	if err != nil {
		return 0, err
	}
	var server struct {
		In int `json:"in_msgs"`
	}
	return server.In, json.Unmarshal(text, &server)
}
