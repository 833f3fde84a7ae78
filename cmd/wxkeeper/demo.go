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
	For    time.Duration `placeholder:"DURATION" help:"End by itself after this time, for example 20s. Default: until a signal."`
	Life   time.Duration `placeholder:"DURATION" help:"Life of an access_token, in whole seconds. Default: 1m, or a third of --for where that is shorter than 2m."`
	Listen string        `default:"127.0.0.1:4222" help:"Address of NATS. Where it is taken, the demo takes a free port."`
	Color  bool          `default:"true" negatable:"" help:"Colors on a terminal."`
}

func (demoVerb) Help() string {
	return `A simulated WeChat, a NATS server and a worker in one process: nothing else is needed, and nothing is left behind. It shows what happens to the credentials, and the commands to try in a second terminal. With --for the exit code is 0 only if all that it promises has happened.

Examples:

    wxkeeper demo
    wxkeeper demo --for 20s
`
}

func (v *demoVerb) Run(ctx context.Context, t *terminal) error {
	signal.Ignore(syscall.SIGPIPE) // of `wxkeeper demo | head`: the failed write ends the demo, and nothing is left behind
	err := demo.Run(ctx, demo.Config{Out: t.out, For: v.For, Life: v.Life, Listen: v.Listen, Color: v.Color && t.tty})
	if errors.Is(err, demo.ErrConfig) {
		return usage(err)
	}
	return err
}
