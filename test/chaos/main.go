//go:build unix

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 && os.Args[1] == consumeVerb {
		err = consume(ctx, os.Args[2:])
	} else {
		err = command(ctx, os.Args[1:])
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// settings are the command line.
type settings struct {
	wxkeeper, natsServer string // binaries
	duration             time.Duration
	seed                 uint64
	workers, accounts    int
	dir                  string
}

func command(ctx context.Context, args []string) error {
	var s settings
	f := flag.NewFlagSet("chaos", flag.ContinueOnError)
	f.StringVar(&s.wxkeeper, "wxkeeper", "bin/wxkeeper", "the wxkeeper binary")
	f.StringVar(&s.natsServer, "nats-server", "bin/nats-server", "the nats-server binary")
	f.DurationVar(&s.duration, "for", 3*time.Minute, "how long faults are injected")
	f.Uint64Var(&s.seed, "seed", 0, "seed of the schedule; 0: a random one")
	f.IntVar(&s.workers, "workers", 4, "number of workers")
	f.IntVar(&s.accounts, "accounts", 60, "number of accounts")
	f.StringVar(&s.dir, "dir", "",
		"empty directory for stores and logs, which is kept; not set: a new one, which is kept only after a failure")
	if err := f.Parse(args); err != nil {
		return err
	}
	if s.seed == 0 {
		s.seed = rand.Uint64() >> 32
	}
	return run(ctx, s)
}
