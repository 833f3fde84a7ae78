package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"
)

// verbs are the verbs, in the order in which --help lists them.
type verbs struct {
	Run      runVerb      `cmd:"" help:"Keep the credentials of the accounts fresh, and answer on NATS: the worker."`
	Demo     demoVerb     `cmd:"" help:"Show it all in one process: a simulated WeChat, NATS and a worker."`
	Simulate simulateVerb `cmd:"" help:"Be a WeChat server API for tests: tokens, tickets, codes, quotas, faults."`

	Get     getVerb     `cmd:"" help:"Print the current credential."`
	Watch   watchVerb   `cmd:"" help:"Print each change of the credentials as it happens, never their values."`
	Resolve resolveVerb `cmd:"" help:"Resolve a scanned code ticket into its marketing code."`
	Refresh refreshVerb `cmd:"" help:"Report a credential that WeChat refused, so that it is checked and renewed."`
	Status  statusVerb  `cmd:"" help:"Say how every credential is, what is wrong and what to do."`

	Check       checkVerb       `cmd:"" help:"Say what is wrong with the environment, NATS and the accounts, before a worker starts."`
	Health      healthVerb      `cmd:"" help:"Ask the worker of this environment whether it is ready, for the health check of a container."`
	Permissions permissionsVerb `cmd:"" help:"Print what a NATS user needs, and no more, as configuration of nats-server."`

	Env     envVerb     `cmd:"" help:"List the environment variables."`
	Version versionVerb `cmd:"" help:"Print the version."`

	VersionFlag kong.VersionFlag `name:"version" help:"Print the version."`
}

const description = "wxkeeper keeps the credentials of WeChat accounts fresh, hands them to every service through NATS, " +
	"and resolves scanned code tickets into marketing codes.\n\n" + exitCodes

// terminal is where a verb reads and writes.
type terminal struct {
	in  io.Reader
	out io.Writer
	err io.Writer
	// tty: out is a terminal, so that people read it, and scroll back in it.
	tty bool
	now func() time.Time
}

func main() {
	t := &terminal{in: os.Stdin, out: os.Stdout, err: os.Stderr, tty: term.IsTerminal(int(os.Stdout.Fd())), now: time.Now}
	os.Exit(execute(untilSignal(), t, os.Args[1:]))
}

// execute runs one verb and returns the exit code.
func execute(ctx context.Context, t *terminal, args []string) int {
	parser, err := newParser(t, os.Exit)
	if err != nil {
		return t.fail(err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if err != nil {
		return t.fail(usage(fmt.Errorf("%w (see wxkeeper --help)", err)))
	}
	k.BindTo(ctx, (*context.Context)(nil))
	return t.fail(k.Run(t))
}

// newParser makes the parser of the command line. exit is called after --help.
func newParser(t *terminal, exit func(int)) (*kong.Kong, error) {
	return kong.New(new(verbs),
		kong.Vars{"version": version()}, kong.Name("wxkeeper"), kong.Description(description), kong.Writers(t.out, t.err), kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}))
}

// untilSignal ends with the first SIGINT or SIGTERM, which asks for a clean stop. The second exits at once: it comes
// from somebody who does not want to wait for one.
func untilSignal() context.Context {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		stop()
		<-signals
		os.Exit(exitInterrupted)
	}()
	return ctx
}
