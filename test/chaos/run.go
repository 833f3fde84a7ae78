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

// run lives through one schedule. Its error says what was found.
func run(ctx context.Context, s settings) (err error) {
	if s.workers < 3 || s.accounts < 8 {
		return errors.New("at least 3 workers, of which two are hit at once, and 8 accounts, of every sort")
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
		return fmt.Errorf("%s is not an empty directory: the stores of another run would be found there", s.dir)
	}
	timeline, err := os.Create(filepath.Join(s.dir, "timeline"))
	if err != nil {
		return err
	}
	defer timeline.Close()
	j := newJudge(makeAccounts(s.accounts), io.MultiWriter(os.Stdout, timeline))
	j.say("seed %d, for %s: %d workers, %d accounts, 3 servers, 5 consumers", s.seed, s.lasts, s.workers, s.accounts)
	h, err := build(ctx, s, j)
	if err != nil {
		return fmt.Errorf("%w; logs in %s", err, s.dir)
	}
	defer h.tearDown()
	j.say("everything is fresh: let it begin")
	j.begin()
	began := time.Now()
	listening, deafen := context.WithCancel(ctx)
	listened := make(chan struct{})
	go func() { defer close(listened); h.listen(listening) }()
	h.live(ctx, draw(s.seed, s.lasts, s.workers, j.accounts))
	deafen()
	<-listened
	if ctx.Err() == nil {
		h.rest(ctx)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	h.settleAccounts(time.Since(began))
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.findings) == 0 {
		j.sayLocked("seed %d: nothing was found", s.seed)
		if !keep {
			_ = os.RemoveAll(s.dir) // it is in the directory of temporary files
		}
		return nil
	}
	for _, f := range j.findings {
		fmt.Fprintln(os.Stderr, f)
	}
	return fmt.Errorf("seed %d for %s: %d findings; timeline and logs in %s", s.seed, s.lasts, len(j.findings), s.dir)
}

// live lets the faults of a schedule happen, each for its time.
func (h *house) live(ctx context.Context, schedule []fault) {
	began := time.Now()
	var under sync.WaitGroup
	defer under.Wait()
	for _, f := range schedule {
		select {
		case <-ctx.Done():
			return
		case <-time.After(f.at - time.Since(began)):
		}
		under.Go(func() { h.happen(ctx, f) })
	}
}

func (h *house) happen(ctx context.Context, f fault) {
	acting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ends := func() {}
	if !f.harmless {
		ends = h.judge.begins(f)
	}
	defer func() { ends() }()
	if f.lasts > 0 {
		h.judge.say("%s (%.1f s)", f.name, f.lasts.Seconds())
	} else {
		h.judge.say("%s", f.name)
	}
	if err := f.begin(acting, h); err != nil {
		h.complain(f, err)
	}
	if f.heal == nil {
		return
	}
	select {
	case <-ctx.Done():
		return // everything is about to be taken down
	case <-time.After(f.lasts):
	}
	if err := f.heal(acting, h); err != nil {
		h.judge.oops(fmt.Sprintf("healing %s: %v", f.name, err))
	}
	h.judge.say("%s: over", f.name)
}

// complain says that a fault could not be made. A process that does not end as it should is a finding; what JetStream
// refuses because another fault is in force is not.
func (h *house) complain(f fault, err error) {
	if errors.Is(err, context.DeadlineExceeded) || isJetStream(err) {
		h.judge.say("%s: cannot be done now: %v", f.name, err)
		return
	}
	h.judge.oops(fmt.Sprintf("%s: %v", f.name, err))
}

func isJetStream(err error) bool {
	var js jetstream.JetStreamError
	return errors.As(err, &js)
}
