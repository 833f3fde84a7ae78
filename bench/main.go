package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/wxkeeper/wxkeeper/bench/load"
	"github.com/wxkeeper/wxkeeper/bench/relay"
	"github.com/wxkeeper/wxkeeper/bench/service"
	"github.com/wxkeeper/wxkeeper/bench/tokenserver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	name, args := "", os.Args[1:]
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		name, args = args[0], args[1:]
	}
	run, ok := roles[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "no role %q\n", name)
		os.Exit(2)
	}
	err := run(ctx, args)
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// roles are what a process of this program can be. Without a name it is the runner.
var roles = map[string]func(context.Context, []string) error{
	"":            runnerRole,
	"service":     serviceRole,
	"read":        readRole,
	"hold":        holdRole,
	"consume":     consumeRole,
	"tokenserver": tokenserverRole,
	"relay":       relayRole,
	"load":        loadRole,
}

// serviceFlags are those of a service; args makes them.
func serviceFlags(f *flag.FlagSet) *service.Config {
	c := &service.Config{}
	f.StringVar(&c.System, "system", "", "how the service has its token")
	f.StringVar(&c.API, "api", "", "URL of the simulated WeChat")
	f.StringVar(&c.AppID, "appid", "", "AppID")
	f.StringVar(&c.Secret, "secret", "", "AppSecret")
	f.StringVar(&c.Backend, "backend", "", "where Redis, the token server or NATS is")
	f.Float64Var(&c.Scale, "scale", 1, "how many times faster time is")
	f.Float64Var(&c.Rate, "rate", 0, "calls a second")
	return c
}

func serviceArgs(role string, c service.Config) []string {
	return []string{
		role, "-system", c.System, "-api", c.API, "-appid", c.AppID, "-secret", c.Secret, "-backend", c.Backend,
		"-scale", fmt.Sprint(c.Scale), "-rate", fmt.Sprint(c.Rate),
	}
}

func serviceRole(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("service", flag.ContinueOnError)
	c := serviceFlags(f)
	if err := f.Parse(args); err != nil {
		return err
	}
	return service.Run(ctx, *c, os.Stdin, os.Stdout)
}

func readRole(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("read", flag.ContinueOnError)
	c := serviceFlags(f)
	d := f.Duration("for", time.Second, "how long to read")
	if err := f.Parse(args); err != nil {
		return err
	}
	return service.Read(ctx, *c, *d, os.Stdout)
}

func holdRole(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("hold", flag.ContinueOnError)
	api := f.String("api", "", "URL of the simulated WeChat")
	n := f.Int("accounts", 1, "number of accounts")
	if err := f.Parse(args); err != nil {
		return err
	}
	return service.Hold(ctx, *api, accountsOf(*n), os.Stdout)
}

func consumeRole(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("consume", flag.ContinueOnError)
	natsURL := f.String("nats", "", "URL of NATS")
	appid := f.String("appid", "", "AppID")
	n := f.Int("consumers", 1, "number of consumers")
	if err := f.Parse(args); err != nil {
		return err
	}
	return service.Consume(ctx, *natsURL, *appid, *n, os.Stdout)
}

func tokenserverRole(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("tokenserver", flag.ContinueOnError)
	var c tokenserver.Config
	f.StringVar(&c.API, "api", "", "URL of the simulated WeChat")
	f.StringVar(&c.AppID, "appid", "", "AppID")
	f.StringVar(&c.Secret, "secret", "", "AppSecret")
	f.StringVar(&c.Listen, "listen", "", "address")
	f.DurationVar(&c.Ahead, "ahead", 10*time.Minute, "how long before its end a token is renewed")
	if err := f.Parse(args); err != nil {
		return err
	}
	return tokenserver.Run(ctx, c)
}

// pathFlags are those of the roles that call WeChat through NATS.
func pathFlags(name string, args []string) (natsURL, api, appid string, err error) {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.StringVar(&natsURL, "nats", "", "URL of NATS")
	f.StringVar(&api, "api", "", "URL of the simulated WeChat")
	f.StringVar(&appid, "appid", "", "AppID")
	err = f.Parse(args)
	return natsURL, api, appid, err
}

func relayRole(ctx context.Context, args []string) error {
	natsURL, api, appid, err := pathFlags("relay", args)
	if err != nil {
		return err
	}
	return relay.Run(ctx, natsURL, api, appid, os.Stdout)
}

func loadRole(ctx context.Context, args []string) error {
	natsURL, api, appid, err := pathFlags("load", args)
	if err != nil {
		return err
	}
	return load.Run(ctx, natsURL, api, appid, os.Stdin, os.Stdout)
}
