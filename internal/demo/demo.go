// Package demo shows in one process what wxkeeper does: it starts a simulated WeChat whose tokens live for a
// minute, an embedded NATS server, and a worker with two accounts, and prints, line by line, what happens to
// their credentials.
//
// It prints only what it has observed: as a consumer of the bucket and of the events, as a client of
// code.resolve, and by asking the simulation whether it accepts a token. Values are masked. They are worth
// nothing here, but users copy what they see.
package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/safetext"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// Config is where the demo prints, and how long it runs. The zero value works, except that Out must be set.
type Config struct {
	Out io.Writer // the demo ends when a write to it fails
	// For is how long the demo runs; 0: until the context ends. It must be at least twice Life, so that every
	// step can happen.
	For time.Duration
	// Life is the life of an access_token, in whole seconds, at least 6 s. 0 is a minute, or a third of For if
	// For is shorter than two minutes.
	Life time.Duration
	// Listen is the address of NATS; "" is 127.0.0.1:4222. If it is taken, the demo uses a free port and prints
	// so.
	Listen string
	Color  bool // prints the first word of each line in color
}

// ErrConfig is returned for a Config that cannot work.
var ErrConfig = errors.New("demo")

const (
	defaultLife   = time.Minute
	minLife       = 6 * time.Second // with a shorter life, a busy machine would miss a refresh
	defaultListen = "127.0.0.1:4222"
)

func (c *Config) setDefaults() error {
	if c.Life == 0 {
		c.Life = defaultLife
		if c.For > 0 && c.For < 2*time.Minute {
			c.Life = max((c.For / 3).Truncate(time.Second), minLife)
		}
	}
	c.Listen = cmp.Or(c.Listen, defaultListen)
	switch {
	case c.Out == nil:
		return errors.New("demo: Out is not set")
	case c.Life < minLife || c.Life%time.Second != 0:
		return fmt.Errorf("%w: a life of %s is not a whole number of seconds, at least %s", ErrConfig, c.Life, minLife)
	case c.For < 0 || c.For > 0 && c.For < 2*c.Life:
		return fmt.Errorf("%w: %s is too short for all steps: at least %s", ErrConfig, c.For, 2*c.Life)
	}
	return nil
}

// Run runs the demo until ctx ends, or for Config.For. It returns nil if ctx has ended, or if every step has
// happened; otherwise its error names the steps that have not happened. It leaves no files and no goroutines
// behind.
func Run(ctx context.Context, cfg Config) error { return run(ctx, cfg, nil) }

// run is Run. prepare, if it is not nil, may change the simulated WeChat before it is called.
func run(ctx context.Context, cfg Config, prepare func(*wechattest.Simulator)) error {
	if err := cfg.setDefaults(); err != nil {
		return err
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	cfg.Out = &output{out: cfg.Out, end: end}
	log := new(tail)
	err := play(ctx, cfg, slog.New(slog.NewTextHandler(safetext.Writer(log), nil)), prepare)
	if err != nil {
		if lines := log.String(); lines != "" {
			_, _ = io.WriteString(cfg.Out, "\nThe last lines of the log of the worker and of NATS:\n\n"+lines+"\n")
		}
	}
	return err
}

// output ends the demo when a write fails: the reader of a pipe has closed it, or the terminal is gone.
type output struct {
	out io.Writer
	end func()
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.out.Write(p)
	if err != nil {
		o.end()
	}
	return n, err
}

// play starts the stack, plays the story on it, and stops the stack.
func play(ctx context.Context, cfg Config, log *slog.Logger, prepare func(*wechattest.Simulator)) (err error) {
	began := time.Now()
	s := newStory(cfg, newSimulator(cfg.Life))
	if prepare != nil {
		prepare(s.sim)
	}
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	stack := &stack{cfg: cfg, log: log, sim: s.sim, fail: fail}
	defer func() { err = errors.Join(err, stack.stop()) }()
	if err := stack.start(running, s); err != nil {
		if ctx.Err() != nil {
			return nil // the user has ended the demo while it started
		}
		return err
	}

	playing := running
	if cfg.For > 0 {
		var cancel context.CancelFunc
		playing, cancel = context.WithDeadline(running, began.Add(cfg.For))
		defer cancel()
	}
	s.play(playing)
	s.printSummary(time.Since(began))

	switch {
	case ctx.Err() != nil:
		return nil // the user has ended the demo
	case running.Err() != nil:
		return context.Cause(running)
	}
	if missing := s.missing(); len(missing) > 0 {
		return fmt.Errorf("demo: these steps did not happen within %s: %s", cfg.For, strings.Join(missing, "; "))
	}
	return nil
}
