package main

import (
	"context"
	"errors"
	"os/signal"
	"syscall"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/demo"
)

type demoVerb struct {
	For    time.Duration `placeholder:"DURATION" help:"End after this time, for example 20s. Default: run until a signal."`
	Life   time.Duration `placeholder:"DURATION" help:"Life of an access_token, in whole seconds. Default: 1m, or a third of --for if --for is shorter than 2m."`
	Listen string        `default:"127.0.0.1:4222" help:"Address of NATS. If it is in use, the demo uses a free port."`
	Color  bool          `default:"true" negatable:"" help:"Colors on a terminal."`
}

func (demoVerb) Help() string {
	return `It runs a simulated WeChat, a NATS server and a worker in one process. It needs nothing else and leaves
nothing behind. It prints what happens to the credentials, and commands to try in a second terminal. With
--for the exit code is 0 only if everything that the demo announces has happened.

Examples:

    wxkeeper demo
    wxkeeper demo --for 20s
`
}

func (v *demoVerb) Run(ctx context.Context, t *terminal) error {
	// `wxkeeper demo | head`: the failed write ends the demo, which then removes its files
	signal.Ignore(syscall.SIGPIPE)
	err := demo.Run(ctx, demo.Config{Out: t.out, For: v.For, Life: v.Life, Listen: v.Listen, Color: v.Color && t.tty})
	if errors.Is(err, demo.ErrConfig) {
		return usage(err)
	}
	return err
}
