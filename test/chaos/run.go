//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// run runs one schedule. It returns an error if it found a violation.
func run(ctx context.Context, s settings) (err error) {
	if s.workers < 3 || s.accounts < 8 {
		return errors.New("use at least 3 workers (a fault hits up to two at once) and 8 accounts (of every sort)")
	}
	for _, file := range []*string{&s.wxkeeper, &s.natsServer} {
		if *file, err = filepath.Abs(*file); err != nil {
			return err
		}
	}
	keep := s.dir != ""
	if keep {
		err = os.MkdirAll(s.dir, 0o700)
	} else {
		s.dir, err = os.MkdirTemp("", "chaos-")
	}
	if err != nil {
		return err
	}
	if s.dir, err = filepath.Abs(s.dir); err != nil {
		return err
	}
	if used, err := os.ReadDir(s.dir); err != nil || len(used) > 0 {
		return fmt.Errorf("%s is not an empty directory: servers would open the stores of another run", s.dir)
	}
	timeline, err := os.Create(filepath.Join(s.dir, "timeline"))
	if err != nil {
		return err
	}
	defer timeline.Close()
	c := newChecker(makeAccounts(s.accounts), io.MultiWriter(os.Stdout, timeline))
	c.print("seed %d, for %s: %d workers, %d accounts, %d servers, %d consumers",
		s.seed, s.duration, s.workers, s.accounts, servers, consumers)
	st, err := startStack(ctx, s, c)
	if err != nil {
		return fmt.Errorf("%w; logs in %s", err, s.dir)
	}
	defer st.stop()
	c.print("everything is fresh: faults begin")
	c.start()
	began := time.Now()
	watching, stopWatching := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { defer close(watched); st.watchJetStream(watching) }()
	st.runSchedule(ctx, draw(s.seed, s.duration, s.workers, c.accounts))
	stopWatching()
	<-watched
	if ctx.Err() == nil {
		st.quiesce(ctx)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	st.checkCalls(time.Since(began))
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.violations) == 0 {
		c.printLocked("seed %d: no violation", s.seed)
		if !keep {
			_ = os.RemoveAll(s.dir) // it is a directory for temporary files
		}
		return nil
	}
	for _, v := range c.violations {
		fmt.Fprintln(os.Stderr, v)
	}
	return fmt.Errorf("seed %d for %s: %d violations; timeline and logs in %s",
		s.seed, s.duration, len(c.violations), s.dir)
}

// runSchedule injects the faults of a schedule, each at its time, and returns when all are healed.
func (st *stack) runSchedule(ctx context.Context, schedule []fault) {
	began := time.Now()
	var running sync.WaitGroup
	defer running.Wait()
	for _, f := range schedule {
		select {
		case <-ctx.Done():
			return
		case <-time.After(f.at - time.Since(began)):
		}
		running.Go(func() { st.runFault(ctx, f) })
	}
}

func (st *stack) runFault(ctx context.Context, f fault) {
	acting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if !f.harmless {
		end := st.checker.disrupt(f.effect)
		defer end()
	}
	if f.duration > 0 {
		st.checker.print("%s (%.1f s)", f.name, f.duration.Seconds())
	} else {
		st.checker.print("%s", f.name)
	}
	if err := f.inject(acting, st); err != nil {
		st.injectionFailed(f, err)
	}
	if f.heal == nil {
		return
	}
	select {
	case <-ctx.Done():
		return // the stack stops
	case <-time.After(f.duration):
	}
	if err := f.heal(acting, st); err != nil {
		st.checker.fail(fmt.Sprintf("heal %s: %v", f.name, err))
	}
	st.checker.print("%s: over", f.name)
}

// injectionFailed handles a fault that could not be injected. A process that does not exit as it should is a
// violation; a request that JetStream refuses or does not answer because of another fault is not.
func (st *stack) injectionFailed(f fault, err error) {
	if errors.Is(err, context.DeadlineExceeded) || isJetStream(err) {
		st.checker.print("%s: not possible now: %v", f.name, err)
		return
	}
	st.checker.fail(fmt.Sprintf("%s: %v", f.name, err))
}

func isJetStream(err error) bool {
	var js jetstream.JetStreamError
	return errors.As(err, &js)
}
