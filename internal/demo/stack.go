package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxkeeper/wxkeeper/internal/buildinfo"
	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/internal/listen"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// The accounts of the demo.
const (
	stableID  = "wx-demo-stable"
	classicID = "wx-demo-classic"

	stableSecret  = "demo-secret-of-the-stable-account"
	classicSecret = "demo-secret-of-the-classic-account"
)

// ticketLives is the life of a ticket, in lives of a token. A worker refreshes a ticket three times in its
// life. With a shorter life it would use up its calls, which are paced to one a minute after a burst.
const ticketLives = 3

// overlapOf is how long the simulated WeChat accepts both the old and the new token: the five minutes of the
// real WeChat, or a third of a short life.
func overlapOf(life time.Duration) time.Duration { return min(5*time.Minute, life/3) }

func newSimulator(life time.Duration) *wechattest.Simulator {
	return wechattest.New(wechattest.Config{
		Accounts: []wechattest.Account{
			{AppID: stableID, Secret: stableSecret}, {AppID: classicID, Secret: classicSecret},
		},
		TokenLife: life, TicketLife: ticketLives * life, Overlap: overlapOf(life),
	})
}

// stack is everything that runs in the process.
type stack struct {
	cfg  Config
	log  *slog.Logger
	sim  *wechattest.Simulator
	fail context.CancelCauseFunc // ends the demo with an error

	api, control string // URLs of the simulated WeChat
	page         string // URL of the worker's page
	nats         string // URL
	taken        bool   // Config.Listen was taken
	dir          string
	stops        []func() error // stop calls them in reverse order
}

func (s *stack) onStop(f func() error) { s.stops = append(s.stops, f) }

// stop stops everything and waits for it. It may be called after a start that failed.
func (s *stack) stop() error {
	s.sim.Release() // a call that an injected fault lets hang would delay the stop
	var errs []error
	for _, stop := range slices.Backward(s.stops) {
		errs = append(errs, stop())
	}
	return errors.Join(errs...)
}

// start starts everything, prints the introduction, and connects the story. It returns when the worker answers
// requests.
func (s *stack) start(ctx context.Context, story *story) (err error) {
	if s.api, err = s.serve(func(net.Listener) http.Handler { return s.sim }); err != nil {
		return err
	}
	if s.control, err = s.serve(func(l net.Listener) http.Handler {
		return listen.Guard(s.sim.Control(), l, l.Addr().String())
	}); err != nil {
		return err
	}
	server, err := s.startNATS(ctx)
	if err != nil {
		return err
	}
	// The story's consumer is a client like any other. It subscribes before the worker publishes its first
	// event.
	consumer, err := s.connect(ctx, natsconn.Config{URL: server.URL(), Name: "wxkeeper demo consumer"})
	if err != nil {
		return err
	}
	if err := story.subscribe(consumer.Conn); err != nil {
		return err
	}
	w, err := s.newWorker(ctx, server)
	if err != nil {
		return err
	}
	story.introduce(s)
	if err := s.runWorker(ctx, w); err != nil {
		return err
	}
	return s.startReader(ctx, consumer, story)
}

// serve serves one of the two APIs of the simulation, or the pages of the worker, on a free port.
func (s *stack) serve(handler func(net.Listener) http.Handler) (url string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("demo: listen for HTTP: %w", err)
	}
	srv := listen.NewServer(handler(l), s.log)
	srv.WriteTimeout = 0 // a fault can make a call hang until its client gives up
	shutdown := listen.Serve(srv, l, func(err error) {
		s.fail(fmt.Errorf("demo: an HTTP server has stopped: %w", err))
	})
	s.onStop(func() error { shutdown(); return nil })
	return "http://" + l.Addr().String(), nil
}

func (s *stack) startNATS(ctx context.Context) (*embedded.Server, error) {
	dir, err := os.MkdirTemp("", "wxkeeper-demo-")
	if err != nil {
		return nil, fmt.Errorf("demo: make the data directory of NATS: %w", err)
	}
	s.dir = dir
	s.onStop(func() error { return os.RemoveAll(dir) })
	cfg := config.Defaults().Embedded()
	cfg.Listen, cfg.DataDir, cfg.Open, cfg.Logger = s.cfg.Listen, dir, true, s.log
	if l, err := net.Listen("tcp", cfg.Listen); err == nil {
		_ = l.Close()
	} else if host, _, split := net.SplitHostPort(cfg.Listen); split == nil && errors.Is(err, syscall.EADDRINUSE) {
		s.taken = true
		cfg.Listen = net.JoinHostPort(host, "0")
	}
	server, err := embedded.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s.onStop(func() error { server.Shutdown(); return nil })
	s.nats = server.URL()
	return server, nil
}

func (s *stack) connect(ctx context.Context, cfg natsconn.Config, extra ...nats.Option) (*natsconn.Conn, error) {
	cfg.Logger = s.log
	c, err := natsconn.Connect(ctx, cfg, extra...)
	if err != nil {
		return nil, err
	}
	s.onStop(func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		return c.Drain(ctx)
	})
	return c, nil
}

// newWorker makes the worker and serves its pages.
func (s *stack) newWorker(ctx context.Context, server *embedded.Server) (*worker.Worker, error) {
	nc, err := s.connect(ctx, natsconn.Config{Name: "wxkeeper demo worker"}, server.InProcess())
	if err != nil {
		return nil, err
	}
	metrics := prometheus.NewRegistry()
	w, err := worker.New(nc.Conn, worker.Config{
		Accounts: []worker.Account{
			{
				AppID: stableID, Secret: stableSecret, Name: "stable", TokenAPI: messages.SourceStableToken,
				Tickets: []messages.Kind{messages.JSAPITicket, messages.WXCardTicket},
			},
			{AppID: classicID, Secret: classicSecret, Name: "classic", TokenAPI: messages.SourceToken},
		},
		Name: "demo", Version: buildinfo.Version(), WeChat: wechat.Config{URLs: []string{s.api}}, Log: s.log,
		Registerer: metrics,
	})
	if err != nil {
		return nil, err
	}
	s.page, err = s.serve(func(l net.Listener) http.Handler {
		return listen.Guard(w.Handler(metrics), l, l.Addr().String())
	})
	return w, err
}

// runWorker runs the worker, and returns when it answers requests.
func (s *stack) runWorker(ctx context.Context, w *worker.Worker) error {
	s.run(ctx, func(ctx context.Context) {
		if err := w.Run(ctx); err != nil {
			s.fail(fmt.Errorf("demo: the worker has stopped: %w", err))
		}
	})
	select {
	case <-w.Ready():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// startReader lets the story follow its accounts.
func (s *stack) startReader(ctx context.Context, c *natsconn.Conn, story *story) error {
	reader, err := kv.NewReader(c.Conn, kv.ReaderConfig{
		AppIDs: []string{stableID, classicID}, OnChange: story.onChange,
		OnError: func(err error) { s.log.Warn("the demo's reader starts again", "error", err) },
	})
	if err != nil {
		return err
	}
	s.run(ctx, func(ctx context.Context) { _ = reader.Run(ctx) }) // returns only the error of its context
	story.client = messages.NewClient(c.Conn, "")
	return nil
}

// run runs f until the stack is stopped: not only until the end of ctx, so that the parts stop in order.
func (s *stack) run(ctx context.Context, f func(context.Context)) {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { f(running) })
	s.onStop(func() error {
		stop()
		wg.Wait()
		return nil
	})
}
