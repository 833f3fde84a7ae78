package main

import (
	"context"
	"fmt"
	"io"
	"log" //nolint:depguard // to switch it off
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/wxkeeper/wxkeeper/internal/buildinfo"
	"github.com/wxkeeper/wxkeeper/internal/permissions"
	"github.com/wxkeeper/wxkeeper/messages"
)

// verbs has all verbs, in the order of --help.
type verbs struct {
	Run      runVerb      `cmd:"" help:"Run a worker: keep the credentials of the accounts fresh, and answer requests on NATS."`
	Demo     demoVerb     `cmd:"" help:"Run a demo in one process: a simulated WeChat, NATS and a worker."`
	Simulate simulateVerb `cmd:"" help:"Simulate the WeChat server API for tests: tokens, tickets, codes, quotas, faults."`

	Get     getVerb     `cmd:"" help:"Print the current credential."`
	Watch   watchVerb   `cmd:"" help:"Print each change of the credentials when it happens, but never their values."`
	Resolve resolveVerb `cmd:"" help:"Resolve a scanned code ticket into its marketing code."`
	Refresh refreshVerb `cmd:"" help:"Report a credential that WeChat refused, so that a worker checks and refreshes it."`
	Status  statusVerb  `cmd:"" help:"Show the state of every credential, what is wrong and what to do."`

	Check       checkVerb       `cmd:"" help:"Find what is wrong with the environment, NATS and the accounts before a worker starts."`
	Health      healthVerb      `cmd:"" help:"Check whether the worker of this environment is ready, for the health check of a container."`
	Permissions permissionsVerb `cmd:"" help:"Print the permissions that a NATS user needs, as configuration of nats-server."`

	Env     envVerb     `cmd:"" help:"List the environment variables."`
	NATSEnv natsEnvVerb `cmd:"" name:"nats-env" help:"Print how to connect to the embedded NATS server, as shell exports."`
	Version versionVerb `cmd:"" help:"Print the version."`

	VersionFlag kong.VersionFlag `name:"version" help:"Print the version."`
}

const description = "wxkeeper keeps the credentials of WeChat accounts fresh, provides them to every service " +
	"through NATS, and resolves scanned code tickets into marketing codes.\n\n" + exitCodes

// terminal is what a verb reads from and writes to.
type terminal struct {
	in  io.Reader
	out io.Writer
	err io.Writer
	tty bool // out is a terminal: people read it, and other people may see it
	now func() time.Time
}

func main() {
	// net/http writes to the standard log what a server sends after its answer, and with GODEBUG=http2debug every
	// request with its secrets. Everything else has a logger of its own.
	log.SetOutput(io.Discard)
	t := &terminal{in: os.Stdin, out: os.Stdout, err: os.Stderr, tty: term.IsTerminal(int(os.Stdout.Fd())),
		now: time.Now}
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
		return t.fail(usage(fmt.Errorf("%w%s (see wxkeeper --help)", err, dashAdvice(args))))
	}
	k.BindTo(ctx, (*context.Context)(nil))
	return t.fail(k.Run(t))
}

// dashAdvice explains -- if a command line that the parser refuses has an argument with a dash after it, or a word
// with one dash, which is no flag of any verb.
func dashAdvice(args []string) string {
	flags, rest := args, []string(nil)
	if i := slices.Index(args, "--"); i >= 0 {
		flags, rest = args[:i], args[i+1:]
	}
	dash := func(s string) bool { return strings.HasPrefix(s, "-") && s != "-" }
	switch {
	case slices.ContainsFunc(rest, dash):
		return ": after -- everything is an argument, also what begins with a dash: write the flags before --"
	case slices.ContainsFunc(flags, func(s string) bool { return dash(s) && s[1] != '-' }):
		return ": flags have two dashes; before an argument that begins with a dash, write --, and the flags before that"
	}
	return ""
}

// newParser returns the parser of the command line. The parser calls exit after --help.
func newParser(t *terminal, exit func(int)) (*kong.Kong, error) {
	return kong.New(new(verbs),
		kong.Vars{"version": buildinfo.String(), "kinds": joined(messages.Kinds[:]),
			"roles": joined(permissions.Roles) + "," + kindAccounts},
		kong.Name("wxkeeper"), kong.Description(description), kong.Writers(t.out, t.err), kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}))
}

// joined returns the names of a list, with commas between them.
func joined[T ~string](list []T) string {
	names := make([]string, len(list))
	for i, name := range list {
		names[i] = string(name)
	}
	return strings.Join(names, ",")
}

// untilSignal returns a context that ends at the first SIGINT or SIGTERM, which requests a clean stop. The
// second signal ends the process at once. Its goroutine runs until the process exits.
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
