package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/wxkeeper/wxkeeper/bench/report"
	"github.com/wxkeeper/wxkeeper/bench/service"
)

// reading is row (a): what it costs a service to have the current token, in a process that does nothing else.
func (r *runner) reading(ctx context.Context) error {
	m := report.Measure{Row: "(a)", What: "reading a token", Unit: "ns"}
	for repeat := range r.repeats {
		for _, s := range systems {
			switch {
			case s.workers > 1, s.uses == service.MemoryStable, s.uses == service.RedisStable, s.uses == service.Reporting:
				continue // it reads like the system before it
			}
			ns, err := r.read(ctx, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			r.report.Add(m, s.name, own, repeat, ns)
		}
	}
	return nil
}

func (r *runner) read(ctx context.Context, s system) (ns float64, err error) {
	f, err := startFleet(ctx, r.bins, r.dir, fleetConfig{system: s, scale: 1})
	defer f.stop()
	if err != nil {
		return 0, err
	}
	args := append(serviceArgs("read", f.serviceConfig()), "-for", r.readFor.String())
	out, err := exec.CommandContext(ctx, r.bins.self, args...).Output() //nolint:gosec // this program
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}
