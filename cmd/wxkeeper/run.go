package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/wxkeeper/wxkeeper/internal/buildinfo"
	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/internal/logging"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

type runVerb struct{}

func (runVerb) Help() string {
	return `It is configured by environment variables alone: see "wxkeeper env". Without NATS_URL it starts a NATS server of its own; a second worker joins it with NATS_URL.

SIGINT or SIGTERM stops it cleanly: it leaves the queue group and answers what it holds. A second signal ends it at once.

Example:

    WECHAT_APPID=wx0123456789abcdef WECHAT_SECRET_FILE=secret wxkeeper run
`
}

func (runVerb) Run(ctx context.Context, t *terminal) error {
	cfg, err := config.Load(nil)
	if err != nil {
		return usage(err)
	}
	accounts, err := cfg.Accounts()
	if err != nil {
		return usage(err)
	}
	log, err := logging.New(t.err, cfg.LogFormat, cfg.LogLevel)
	if err != nil {
		return usage(err)
	}
	err = serve(ctx, cfg, accounts, log)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		log.Info("wxkeeper has stopped before NATS was reached")
		err = nil
	}
	return err
}

// warn tells what is no error in the environment and yet hardly meant.
func warn(cfg config.Config, log *slog.Logger) {
	for _, u := range config.UnknownVariables(nil) {
		attrs := []any{"variable", u.Name}
		if u.Nearest != "" {
			attrs = append(attrs, "nearest", u.Nearest)
		}
		log.Warn("a variable is not known and has no effect, see wxkeeper env", attrs...)
	}
	for _, f := range cfg.OpenFiles() {
		log.Warn("a file with a secret can be read by other users of this machine: chmod 600", "variable", f.Variable,
			"file", f.Path, "mode", fmt.Sprintf("%04o", f.Mode))
	}
}

// serve runs a worker until ctx ends, and everything that it stands on. What was started last is stopped first.
func serve(ctx context.Context, cfg config.Config, accounts []config.Account, log *slog.Logger) (err error) {
	log.Debug("environment", "set", cfg)
	ctx, stop := context.WithCancelCause(ctx)
	defer func() {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			err = cause // the stop was not asked for
		}
		stop(nil)
	}()
	hangups := make(chan os.Signal, 1) // from the start: by default SIGHUP would end the process
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
		log.Info("wxkeeper starts", "version", buildinfo.Version(), "accounts", len(accounts), "http", pages.url, "nats", nats)
		warn(cfg, log)
	})
	if err != nil {
		return err
	}
	defer disconnect()
	go func() {
		select {
		case <-nc.Closed(): // for good: nothing reconnects it
			stop(nc.Err())
		case <-ctx.Done():
		}
	}()

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	wc := workerConfig(cfg, accounts, log, registry)
	refused := make(chan struct{}, 1)
	wc.OnAccountRefused = func(string) {
		select {
		case refused <- struct{}{}:
		default: // they are about to be read anyway
		}
	}
	w, err := worker.New(nc.Conn, wc)
	if err != nil {
		return err
	}
	go follow(ctx, cfg, accounts, hangups, refused, w, log)
	pages.show(w.Handler(registry))
	log.Info("wxkeeper started", "version", buildinfo.Version(), "accounts", len(accounts), "http", pages.url)
	return w.Run(ctx)
}

// connectWorker connects to the NATS server of the environment, or to one that it starts in this process. It calls
// starts with where NATS is expected before it waits for it, which may be long, and after it has found nothing wrong
// with the environment, which must stay the one line of a start that fails.
func connectWorker(ctx context.Context, cfg config.Config, log *slog.Logger, starts func(nats string)) (nc *natsconn.Conn, disconnect func(), err error) {
	c := natsConfig(cfg, "wxkeeper worker")
	c.Logger = log
	var opts []nats.Option
	shutdown := func() {}
	if cfg.NATSURL == "" {
		ec := embeddedConfig(cfg)
		ec.Logger = log
		srv, err := embedded.Start(ctx, ec)
		if err != nil {
			return nil, nil, err
		}
		shutdown, c.URL = srv.Shutdown, srv.URL() // the URL is for the log: the connection goes through memory
		opts = append(opts, srv.InProcess())
		starts("embedded")
		log.Info("other workers and services of this machine join with NATS_URL", "nats_url", srv.URL())
	} else {
		if err := c.Check(); err != nil {
			return nil, nil, err
		}
		starts(redact.URLs(c.URL))
	}
	nc, err = natsconn.Connect(ctx, c, opts...)
	if err != nil {
		shutdown()
		return nil, nil, err
	}
	return nc, func() {
		drained, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := nc.Drain(drained); err != nil {
			log.Warn("the NATS connection was not drained", "error", err)
		}
		shutdown()
		log.Info("wxkeeper has stopped")
	}, nil
}

func embeddedConfig(cfg config.Config) embedded.Config {
	return embedded.Config{Listen: cfg.NATSListen, DataDir: cfg.DataDir, User: cfg.NATSUser, Password: cfg.NATSPassword, Token: cfg.NATSToken}
}

func wechatConfig(cfg config.Config) wechat.Config {
	return wechat.Config{URLs: cfg.APIURLs, AllowInsecure: cfg.APIInsecure, Timeout: cfg.HTTPTimeout}
}

func workerConfig(cfg config.Config, accounts []config.Account, log *slog.Logger, reg prometheus.Registerer) worker.Config {
	c := worker.Config{
		Version: buildinfo.Version(), Bucket: cfg.Bucket, SubjectPrefix: cfg.SubjectPrefix, Replicas: cfg.Replicas,
		WeChat:        wechatConfig(cfg),
		RefreshBefore: cfg.RefreshBefore, ResolveConcurrency: cfg.ResolveConcurrency, ResolveTimeout: cfg.ResolveTimeout,
		Log: log, Registerer: reg,
	}
	c.Accounts = workerAccounts(accounts)
	return c
}

func workerAccounts(accounts []config.Account) []worker.Account {
	kinds := map[string]messages.Kind{"jsapi": messages.JSAPITicket, "wx_card": messages.WXCardTicket}
	var list []worker.Account
	for _, a := range accounts {
		wa := worker.Account{AppID: a.AppID, Secret: worker.Secret(a.Secret), Name: a.Name, TokenAPI: a.TokenAPI}
		for _, ticket := range a.Tickets {
			wa.Tickets = append(wa.Tickets, kinds[ticket])
		}
		list = append(list, wa)
	}
	return list
}

// follow has the accounts read again: on SIGHUP, on change, and when refused tells that WeChat refuses one.
func follow(ctx context.Context, cfg config.Config, accounts []config.Account, hangups <-chan os.Signal, refused <-chan struct{}, w *worker.Worker, log *slog.Logger) {
	asked := make(chan string)
	go func() {
		for {
			why := "SIGHUP"
			select {
			case <-ctx.Done():
				return
			case <-hangups:
			case <-refused:
				why = "WeChat refuses an account"
			}
			select {
			case <-ctx.Done():
				return
			case asked <- why:
			}
		}
	}()
	cfg.Follow(ctx, accounts, asked, func(read []config.Account) error { return w.SetAccounts(workerAccounts(read)) }, log)
}

// pages are what the HTTP address serves: until there is a worker, that there is none yet.
type pages struct {
	handler atomic.Pointer[http.Handler]
	url     string // empty: nothing is served
}

func (p *pages) show(h http.Handler) { p.handler.Store(&h) }

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := p.handler.Load()
	switch {
	case h != nil:
		(*h).ServeHTTP(w, r)
	case r.URL.Path == "/healthz":
		fmt.Fprintln(w, "ok")
	default:
		http.Error(w, "starting: NATS is not connected yet", http.StatusServiceUnavailable)
	}
}

// listenHTTP listens for those who ask for pages.
func listenHTTP(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("another process listens on %s: set WXKEEPER_HTTP_ADDR to another address, or to none", addr)
	} else if err != nil {
		return nil, fmt.Errorf("serving HTTP, see WXKEEPER_HTTP_ADDR: %w", err)
	}
	return l, nil
}

// listen serves the pages until closePages is called. Where serving ends by itself, stop is told why.
func (p *pages) listen(addr string, log *slog.Logger, stop context.CancelCauseFunc) (closePages func(), err error) {
	l, err := listenHTTP(addr)
	if err != nil {
		return nil, err
	}
	srv := httpServer(p, log)
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			stop(fmt.Errorf("serving HTTP on %s: %w", addr, err))
		}
	}()
	p.url = "http://" + l.Addr().String()
	return func() {
		closing, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if srv.Shutdown(closing) != nil {
			_ = srv.Close() // a client that does not take its answer
		}
		<-served
	}, nil
}

// httpServer gives up clients that are slow to ask or to take the answer.
func httpServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
