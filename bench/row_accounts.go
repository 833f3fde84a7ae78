package main

import (
	"context"
	"fmt"
	"time"

	"github.com/wxkeeper/wxkeeper/bench/report"
	"github.com/wxkeeper/wxkeeper/bench/service"
)

// The systems of row (f).
const (
	beside   = "wxkeeper and nats-server"
	embedded = "wxkeeper, embedded NATS"
	heldSDK  = "silenceper, memory, stable_token"
)

// manyAccounts is row (f): one process that has the tokens of many accounts: until it has all, its memory, and what it
// costs while nothing is to do. The systems start one after the other, and are idle at the same time.
func (r *runner) manyAccounts(ctx context.Context) error {
	for repeat := range r.repeats {
		for _, n := range r.accounts {
			if err := r.accountsOnce(ctx, n, repeat); err != nil {
				return fmt.Errorf("%s: %w", count(n, "account"), err)
			}
		}
	}
	return nil
}

func (r *runner) accountsOnce(ctx context.Context, n, repeat int) error {
	var holders []*holder
	defer func() {
		for _, h := range holders {
			h.stop()
		}
	}()
	names := []string{beside, embedded, heldSDK}
	if r.scaleOnly { // nobody would keep so many accounts in an embedded server or in an SDK's memory
		names = names[:1]
	}
	for _, name := range names {
		h, err := r.newHolder(name, n)
		if err != nil {
			return err
		}
		holders = append(holders, h)
		h.add = func(what, unit string, value float64) {
			m := report.Measure{Row: "(f)", What: count(n, "account") + ": " + what, Unit: unit}
			r.report.Add(m, name, beside, repeat, value)
		}
		start := h.startTwice
		if name == heldSDK {
			start = h.startSDK
		}
		if err := start(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return r.idle(ctx, holders)
}

// idle measures memory and processor time, of a worker and its nats-server together.
func (r *runner) idle(ctx context.Context, holders []*holder) error {
	if err := wait(ctx, min(r.idleFor, 5*time.Second)); err != nil { // until the start is over
		return err
	}
	before := make([]time.Duration, len(holders))
	for i, h := range holders {
		var err error
		if before[i], _, err = h.usage(); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := wait(ctx, r.idleFor); err != nil {
		return err
	}
	took := time.Since(began)
	for i, h := range holders {
		after, resident, err := h.usage()
		if err != nil {
			return err
		}
		h.add("idle", "% of a core", 100*(after-before[i]).Seconds()/took.Seconds())
		h.add("resident memory", "MiB", float64(resident)/(1<<20))
	}
	return nil
}

func accountsOf(n int) (all []service.Account) {
	for i := range n {
		all = append(all, service.Account{AppID: fmt.Sprintf("wx%016x", i), Secret: fmt.Sprintf("%032x", i)})
	}
	return all
}
