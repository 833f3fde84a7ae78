// Package demo shows in one process what wxkeeper does: a simulated WeChat whose tokens live for a minute, an embedded
// NATS server and a worker with two accounts; and it tells, line by line, what happens to their credentials.
//
// It tells only what it has seen: as a consumer of the bucket and of the events, as a client of code.resolve, and by
// asking the simulation what it would say of a token. Values are shown masked: they are worth nothing here, but people
// copy what they see.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// Config says where the demo tells its story, and for how long. The zero value works, but for Out.
type Config struct {
	Out io.Writer // where the story is told; the demo ends when it cannot be written to any more
	// For ends the demo; 0: it goes on until the context ends. At least twice Life, or the story has no room.
	For time.Duration
	// Life of an access_token: whole seconds, at least 6. 0: a minute, or a third of For where that is shorter than two
	// minutes.
	Life time.Duration
	// Listen is the address of NATS; "" is 127.0.0.1:4222. Where it is taken, the demo says so and takes a free port.
	Listen string
	Color  bool // of the words that say what happened; the text is complete without
}

// ErrConfig is returned for a Config that makes no sense.
var ErrConfig = errors.New("demo")

const (
	defaultLife   = time.Minute
	minLife       = 6 * time.Second // below it the lags of a busy machine would count
	defaultListen = "127.0.0.1:4222"
)

func (c *Config) setDefaults() error {
	if c.Life == 0 {
		c.Life = defaultLife
		if c.For > 0 && c.For < 2*time.Minute {
			c.Life = max((c.For / 3).Truncate(time.Second), minLife)
		}
	}
	if c.Listen == "" {
		c.Listen = defaultListen
	}
	switch {
	case c.Out == nil:
		return errors.New("demo: Out is not set")
	case c.Life < minLife || c.Life%time.Second != 0:
		return fmt.Errorf("%w: a life of %s is not a whole number of seconds, at least %s", ErrConfig, c.Life, minLife)
	case c.For < 0 || c.For > 0 && c.For < 2*c.Life:
		return fmt.Errorf("%w: %s is too short for the story: at least %s", ErrConfig, c.For, 2*c.Life)
	}
	return nil
}

// Run tells the story until ctx ends, or for Config.For. It returns nil when ctx has ended, or when all chapters have
// happened in that time, and otherwise an error that names those that have not. Nothing of it stays: neither files
// nor goroutines.
func Run(ctx context.Context, cfg Config) error { return run(ctx, cfg, nil) }

// run is Run; prepare, if not nil, may change the simulated WeChat before anybody calls it.
func run(ctx context.Context, cfg Config, prepare func(*wechattest.Simulator)) error {
	if err := cfg.setDefaults(); err != nil {
		return err
	}
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	cfg.Out = &audience{out: cfg.Out, leave: leave}
	log := new(tail)
	err := perform(ctx, cfg, slog.New(slog.NewTextHandler(log, nil)), prepare)
	if err != nil {
		if lines := log.String(); lines != "" {
			fmt.Fprintf(cfg.Out, "\nThe last lines of the log of the worker and of NATS:\n\n%s\n", lines)
		}
	}
	return err
}

// audience ends the demo when it has gone: the reader of a pipe that is closed, a terminal that is shut.
type audience struct {
	out   io.Writer
	leave func()
}

func (a *audience) Write(p []byte) (int, error) {
	n, err := a.out.Write(p)
	if err != nil {
		a.leave()
	}
	return n, err
}

func perform(ctx context.Context, cfg Config, log *slog.Logger, prepare func(*wechattest.Simulator)) (err error) {
	began := time.Now()
	s := newStory(cfg, newSimulator(cfg.Life))
	if prepare != nil {
		prepare(s.sim)
	}
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	h := &house{cfg: cfg, log: log, sim: s.sim, fail: fail}
	defer func() { err = errors.Join(err, h.close()) }()
	if err := h.open(running, s); err != nil {
		if ctx.Err() != nil {
			return nil // its user has ended it before it had begun
		}
		return err
	}

	telling := running
	if cfg.For > 0 {
		var cancel context.CancelFunc
		telling, cancel = context.WithDeadline(running, began.Add(cfg.For))
		defer cancel()
	}
	s.tell(telling)
	s.sumUp(time.Since(began))

	switch {
	case ctx.Err() != nil:
		return nil // its user has ended it
	case running.Err() != nil:
		return context.Cause(running)
	}
	if missing := s.missing(); len(missing) > 0 {
		return fmt.Errorf("demo: within %s this has not happened: %s", cfg.For, strings.Join(missing, "; "))
	}
	return nil
}
