package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wxkeeper/wxkeeper/bench/proc"
	"github.com/wxkeeper/wxkeeper/bench/report"
)

// runner runs the rows.
type runner struct {
	profile
	bins      binaries
	dir       string
	seed      uint64
	scaleOnly bool // row (f) without the systems that do not serve so many accounts
	report    report.Report
	starting  chan struct{} // limits the fleets that start at the same time

	mu        sync.Mutex
	busyCores []string // how busy the machine was, by row
}

// maxStarting is how many fleets start at the same time: hundreds of processes at once would wait for each other.
const maxStarting = 6

// rows are the rows of the table, by their letter.
var rows = map[string]func(*runner, context.Context) error{
	"a": (*runner).reading,
	"b": (*runner).lifetimes,
	"c": (*runner).killed,
	"d": (*runner).renewerKilled,
	"e": (*runner).busyWeChat,
	"f": (*runner).manyAccounts,
	"g": (*runner).resolving,
}

func runnerRole(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	isSmoke := f.Bool("smoke", false, "a short run: it shows that everything works, its numbers mean little")
	letters := f.String("rows", "abcdefg", "the rows to run")
	repeats := f.Int("repeats", 0, "repeats of each row; 0: three, or one of a short run")
	seed := f.Uint64("seed", 1, "of the moments at which tokens are killed")
	accounts := f.Int("scale-accounts", 0, "for docs/scale.md: measure only this number of accounts")
	consumers := f.Int("scale-consumers", 0, "for docs/scale.md: measure only this number of consumers")
	r := &runner{starting: make(chan struct{}, maxStarting)}
	f.StringVar(&r.bins.wxkeeper, "wxkeeper", "bin/wxkeeper", "path of wxkeeper")
	f.StringVar(&r.bins.nats, "nats-server", "bin/nats-server", "path of nats-server")
	f.StringVar(&r.bins.redis, "redis-server", "redis-server", "path or name of redis-server")
	if err := f.Parse(args); err != nil {
		return err
	}
	r.profile, r.seed = full, *seed
	if *isSmoke {
		r.profile = smoke
	}
	if *repeats > 0 {
		r.repeats = *repeats
	}
	switch {
	case *accounts > 0:
		*letters, r.repeats, r.accounts, r.scaleOnly = "f", 1, []int{*accounts}, true
	case *consumers > 0:
		*letters, r.repeats = "", 1
	}
	for _, l := range *letters {
		if rows[string(l)] == nil {
			return fmt.Errorf("-rows: there is no row %q", l)
		}
	}
	if err := r.findBinaries(*letters); err != nil {
		return err
	}
	r.report.Systems = []string{beside, embedded}
	for _, s := range systems {
		r.report.Systems = append(r.report.Systems, s.name)
	}
	var err error
	if r.dir, err = os.MkdirTemp("", "bench-peers-"); err != nil {
		return err
	}
	began := time.Now()
	err = r.run(ctx, *letters)
	if *consumers > 0 {
		err = r.manyConsumers(ctx, *consumers)
	}
	head, describeErr := r.describe(context.WithoutCancel(ctx), args, time.Since(began))
	if err == nil {
		err = describeErr
	}
	// Also after an error, and after an interrupt: half an hour of measurements must not be lost.
	_, _ = fmt.Println(head)
	if err := errors.Join(err, r.report.Write(os.Stdout)); err != nil {
		return fmt.Errorf("%w\nthe logs of all processes are in %s", err, r.dir)
	}
	return os.RemoveAll(r.dir)
}

// needRedis are the rows with a system that uses Redis.
const needRedis = "abcde"

func (r *runner) findBinaries(letters string) error {
	var err error
	if r.bins.self, err = os.Executable(); err != nil {
		return err
	}
	for _, file := range []*string{&r.bins.wxkeeper, &r.bins.nats} {
		if *file, err = filepath.Abs(*file); err != nil {
			return err
		}
		if _, err := os.Stat(*file); err != nil {
			return fmt.Errorf("%w: build it with make build bin/nats-server", err)
		}
	}
	path, err := exec.LookPath(r.bins.redis)
	if err != nil && strings.ContainsAny(letters, needRedis) {
		return errors.New("redis-server is missing, and the peers are measured with it too. Install it " +
			"(Debian: apt-get install redis-server), or name it with -redis-server")
	}
	if err == nil {
		r.bins.redis, err = filepath.Abs(path)
	} else {
		r.bins.redis, err = "", nil
	}
	return err
}

// run runs the rows: those of together at the same time, then the others, which need the machine for themselves.
func (r *runner) run(ctx context.Context, letters string) error {
	all := slices.Compact(slices.Sorted(slices.Values(strings.Split(letters, "")))) // "" has no letters
	waiting, waitingCtx := errgroup.WithContext(ctx)
	for _, l := range all {
		if strings.Contains(r.together, l) {
			waiting.Go(func() error { return r.row(waitingCtx, l) })
		}
	}
	if err := waiting.Wait(); err != nil {
		return err
	}
	for _, l := range all {
		if strings.Contains(r.together, l) {
			continue
		}
		if err := r.row(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) row(ctx context.Context, letter string) error {
	began, before := time.Now(), proc.CoresUsed()
	r.say("row (%s)", letter)
	if err := rows[letter](r, ctx); err != nil {
		return fmt.Errorf("row (%s): %w", letter, err)
	}
	took := time.Since(began)
	busy := 100 * (proc.CoresUsed() - before).Seconds() / took.Seconds() / float64(runtime.NumCPU())
	r.say("row (%s) took %s, cores busy: %.0f %%", letter, took.Round(time.Second), busy)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busyCores = append(r.busyCores, fmt.Sprintf("(%s) %.0f %%", letter, busy))
	return nil
}

// say prints progress.
func (r *runner) say(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}

// conduct starts a fleet, lets its services call, and returns what they have seen while scenario ran.
func (r *runner) conduct(ctx context.Context, c fleetConfig, scenario func(context.Context, *fleet) error) (outcome,
	error) {
	c.rate = min(r.rate, r.fleetRate/float64(c.services))
	r.starting <- struct{}{}
	started := sync.OnceFunc(func() { <-r.starting })
	defer started()
	f, err := startFleet(ctx, r.bins, r.dir, c)
	defer f.stop()
	if err != nil {
		return outcome{}, err
	}
	started()
	if err := f.begin(); err != nil {
		return outcome{}, err
	}
	if err := scenario(ctx, f); err != nil {
		return outcome{}, err
	}
	return f.outcome()
}

// wait returns after d, or with the error of ctx.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// forAge returns when the first token of the fleet is d old.
func (f *fleet) forAge(ctx context.Context, d time.Duration) error {
	return wait(ctx, d-f.wechat.age())
}
