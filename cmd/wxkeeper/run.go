package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/wxkeeper/wxkeeper/internal/buildinfo"
	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/internal/listen"
	"github.com/wxkeeper/wxkeeper/internal/logging"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

type runVerb struct{}

func (runVerb) Help() string {
	return `The configuration is in environment variables only: see "wxkeeper env". Without NATS_URL the worker starts
an embedded NATS server, and logs how services and other workers connect to it: see "wxkeeper nats-env".

SIGINT or SIGTERM stops the worker cleanly: it receives no new requests, and answers those that it has
received. A second signal ends the process at once.

Example:

    WECHAT_APPID=wx0123456789abcdef WECHAT_SECRET_FILE=secret wxkeeper run
`
}

func (runVerb) Run(ctx context.Context, t *terminal) error {
	cfg, err := config.Load(nil)
	if err != nil {
		return err
	}
	accounts, err := cfg.Accounts()
	if err != nil {
		return err
	}
	log, err := logging.New(t.err, cfg.LogFormat, cfg.LogLevel)
	if err != nil {
		return err
	}
	closeSecrets(cfg, log)
	err = serve(ctx, cfg, accounts, log)
	refusal, refused := errors.AsType[*store.Refusal](err)
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		log.Info("wxkeeper stopped before NATS was reached")
		err = nil
	case refused: // in the log, where the other problems of JetStream are
		log.Error("JetStream refuses the buckets, and asking again is useless: wxkeeper stops", "error", refusal.Err,
			"advice", refusal.Advice)
		err = errPrinted
	}
	return err
}

// closeSecrets keeps the secrets of this process from other processes. A worker that cannot do it still runs.
func closeSecrets(cfg config.Config, log *slog.Logger) {
	if err := config.ForgetSecrets(); err != nil { // it needs /proc, which closeMemory closes
		log.Warn("secrets not removed from the memory of the environment", "error", err)
	}
	if cfg.Dumpable {
		return
	}
	if err := closeMemory(); err != nil {
		log.Warn("memory not closed to other processes of this user", "error", err)
	}
}

// serve runs a worker, and what it needs, until ctx ends. It stops everything in the reverse order of the start, and
// returns when all goroutines have ended.
func serve(ctx context.Context, cfg config.Config, accounts []worker.Account, log *slog.Logger) (err error) {
	log.Debug("environment", "set", cfg)
	ctx, stop := context.WithCancelCause(ctx)
	var background sync.WaitGroup // its goroutines end with ctx
	defer func() {
		cause := context.Cause(ctx)
		stop(nil)
		background.Wait()
		if cause != nil && !errors.Is(cause, context.Canceled) {
			err = cause // no signal: the pages or the connection have failed
		}
	}()
	hangups := make(chan os.Signal, 1) // from the beginning, because SIGHUP ends a process that does not handle it
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	pages := new(pages)
	if cfg.HTTPAddr != "" {
		closePages, err := pages.listen(cfg.HTTPAddr, log, stop)
		if err != nil {
			return err
		}
		defer closePages()
	}
	nc, disconnect, err := connectWorker(ctx, cfg, log, func(nats string) {
		log.Info("wxkeeper starts", "version", buildinfo.Version(), "accounts", len(accounts), "http", pages.url,
			"nats", nats)
		warn(cfg, log)
	})
	if err != nil {
		return err
	}
	defer disconnect()
	reload := make(chan string, 1)
	requestReload := func(why string) {
		select {
		case reload <- why:
		default: // another reload is pending, and will read the same files
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	wc := cfg.Worker(accounts)
	wc.Version, wc.Log, wc.Registerer = buildinfo.Version(), log, registry
	wc.OnAccountRefused = func(string) { requestReload("WeChat refuses an account") }
	w, err := worker.New(nc.Conn, wc)
	if err != nil {
		return err
	}
	background.Go(func() { cfg.Follow(ctx, accounts, reload, w.SetAccounts, log) })
	background.Go(func() {
		for {
			select {
			case <-hangups:
				requestReload("SIGHUP")
			case <-nc.Closed(): // permanently: nothing reconnects it
				stop(nc.Err())
				return
			case <-ctx.Done():
				return
			}
		}
	})
	pages.show(w.Handler(registry))
	log.Info("wxkeeper started", "version", buildinfo.Version(), "accounts", len(accounts), "http", pages.url)
	return w.Run(ctx)
}

// warn logs what is no error in the environment but is probably a mistake.
func warn(cfg config.Config, log *slog.Logger) {
	for _, u := range config.UnknownVariables(nil) {
		attrs := []any{"variable", u.Name}
		if u.Nearest != "" {
			attrs = append(attrs, "nearest", u.Nearest)
		}
		log.Warn("unknown variable has no effect, see wxkeeper env", attrs...)
	}
	for _, r := range cfg.Routes() {
		switch {
		case r.Proxy != "":
			log.Info("calls of WeChat go through a proxy", "host", r.Host, "proxy", r.Proxy, "variable", r.Variable)
		case !r.Excepted:
			log.Warn("calls of WeChat go directly: a proxy is configured, but not for this kind of URL", "host", r.Host,
				"variable", r.Variable)
		}
	}
	if cfg.NATSURL == "" && cfg.NATSOpen {
		log.Warn("the embedded NATS server demands no token: every user of this machine can read every credential",
			"variable", "WXKEEPER_NATS_OPEN")
	}
	for _, f := range cfg.OpenFiles() {
		log.Warn("other users of this machine can read a file with a secret: chmod 600", "variable", f.Variable,
			"file", f.Path, "mode", fmt.Sprintf("%04o", f.Mode))
	}
}

// connectWorker connects to the NATS server of the environment, or to an embedded server that it starts. When
// it has found no fault in the environment it calls starting with the address of NATS: not earlier, because a
// start that fails prints one line only; and not later, because it may then wait for NATS for a long time.
func connectWorker(ctx context.Context, cfg config.Config, log *slog.Logger,
	starting func(nats string)) (nc *natsconn.Conn, disconnect func(), err error) {
	var c natsconn.Config
	var opts []nats.Option
	shutdown := func() {}
	if err := cfg.CheckEmbedded(); err != nil {
		return nil, nil, err
	}
	if cfg.NATSURL == "" {
		c = natsconn.Config{Name: workerName, InboxPrefix: cfg.NATSInbox}
		ec := cfg.Embedded()
		ec.Logger = log
		srv, err := embedded.Start(ctx, ec)
		if err != nil {
			return nil, nil, err
		}
		shutdown, c.URL = srv.Shutdown, srv.URL() // the URL is for the log: the connection is in memory
		opts = append(opts, srv.InProcess())
		starting("embedded")
		log.Info("services, the nats command and other workers connect with what this command prints", "nats_url",
			srv.URL(), "command", natsEnvCommand(cfg.DataDir))
	} else {
		if c, _, err = cfg.Client(workerName, embedded.Workers); err != nil {
			return nil, nil, err
		}
		if err := c.Check(); err != nil {
			return nil, nil, err
		}
		starting(redact.URLs(c.URL))
	}
	c.Logger = log
	nc, err = natsconn.Connect(ctx, c, opts...)
	if err != nil {
		shutdown()
		return nil, nil, err
	}
	return nc, func() {
		draining, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := nc.Drain(draining); err != nil {
			log.Warn("NATS connection not drained", "error", err)
		}
		shutdown()
		log.Info("wxkeeper stopped")
	}, nil
}

// workerName is the name under which NATS lists the connection of a worker.
const workerName = "wxkeeper worker"

// natsEnvCommand is the command that prints how to connect to the embedded server on a data directory.
func natsEnvCommand(dir string) string {
	const command = "wxkeeper nats-env"
	if dir == config.Defaults().DataDir {
		return command
	}
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return "WXKEEPER_DATA_DIR=" + quote(dir) + " " + command
}

// pages serves the worker's pages under WXKEEPER_HTTP_ADDR. Before there is a worker it serves starting.
type pages struct {
	handler atomic.Pointer[http.Handler]
	url     string // empty: nothing is served
}

// listen serves the pages until closePages is called. If serving fails before, it calls stop with the error.
func (p *pages) listen(addr string, log *slog.Logger, stop context.CancelCauseFunc) (closePages func(), err error) {
	l, err := listenHTTP(addr)
	if err != nil {
		return nil, err
	}
	p.url = "http://" + l.Addr().String()
	return listen.Serve(listen.NewServer(listen.Guard(p, l, addr), log), l, func(err error) {
		stop(fmt.Errorf("serve HTTP on %s: %w", addr, err))
	}), nil
}

func (p *pages) show(h http.Handler) { p.handler.Store(&h) }

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := p.handler.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	starting().ServeHTTP(w, r)
}

// starting are the pages of a process that has no worker yet.
func starting() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "starting: NATS is not connected yet", http.StatusServiceUnavailable)
	})
	return mux
}
