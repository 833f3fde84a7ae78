package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/buildinfo"
	"github.com/wxkeeper/wxkeeper/internal/embedded"
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

// ticketLives is how many lives of a token a ticket has. A worker looks at a ticket three times in its life: much more
// often than once a minute it would spend the paced calls of hours.
const ticketLives = 3

// overlapOf is how long the simulated WeChat accepts old and new token: its five minutes, or a third of a short life.
func overlapOf(life time.Duration) time.Duration { return min(5*time.Minute, life/3) }

func newSimulator(life time.Duration) *wechattest.Simulator {
	return wechattest.New(wechattest.Config{
		Accounts:  []wechattest.Account{{AppID: stableID, Secret: stableSecret}, {AppID: classicID, Secret: classicSecret}},
		TokenLife: life, TicketLife: ticketLives * life, Overlap: overlapOf(life),
	})
}

// house is what runs in the process.
type house struct {
	cfg  Config
	log  *slog.Logger
	sim  *wechattest.Simulator
	fail context.CancelCauseFunc // ends the demo with an error

	api, control string // URLs of the simulated WeChat
	nats         string // URL
	taken        bool   // Config.Listen was taken
	dir          string
	closers      []func() error // the last one first
}

func (h *house) onClose(f func() error) { h.closers = append(h.closers, f) }

// close ends all that runs and waits for it. It may be called after an open that failed.
func (h *house) close() error {
	h.sim.Release() // nobody waits for a fault that hangs
	var errs []error
	for i := len(h.closers) - 1; i >= 0; i-- {
		errs = append(errs, h.closers[i]())
	}
	h.closers = nil
	return errors.Join(errs...)
}

// open starts everything, introduces it, and connects the story to it. It returns when the worker answers requests.
func (h *house) open(ctx context.Context, s *story) (err error) {
	if h.api, err = h.serve(h.sim); err != nil {
		return err
	}
	if h.control, err = h.serve(h.sim.Control()); err != nil {
		return err
	}
	server, err := h.startNATS(ctx)
	if err != nil {
		return err
	}
	// The consumer is a client like any other, and listens before the worker speaks.
	consumer, err := h.connect(ctx, natsconn.Config{URL: server.URL(), Name: "wxkeeper demo consumer"})
	if err != nil {
		return err
	}
	if err := s.listen(consumer.Conn); err != nil {
		return err
	}
	s.introduce(h)
	if err := h.startWorker(ctx, server); err != nil {
		return err
	}
	return h.startReader(ctx, consumer, s)
}

// serve serves one of the two APIs of the simulation on a free port.
func (h *house) serve(handler http.Handler) (url string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("demo: starting the simulated WeChat: %w", err)
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelWarn)}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			h.fail(fmt.Errorf("demo: the simulated WeChat has ended: %w", err))
		}
	})
	h.onClose(func() error {
		defer serving.Wait()
		return srv.Close()
	})
	return "http://" + l.Addr().String(), nil
}

func (h *house) startNATS(ctx context.Context) (*embedded.Server, error) {
	dir, err := os.MkdirTemp("", "wxkeeper-demo-")
	if err != nil {
		return nil, fmt.Errorf("demo: making the data directory of NATS: %w", err)
	}
	h.dir = dir
	h.onClose(func() error { return os.RemoveAll(dir) })
	cfg := embedded.Config{Listen: h.cfg.Listen, DataDir: dir, Logger: h.log}
	if l, err := net.Listen("tcp", cfg.Listen); err == nil {
		_ = l.Close()
	} else if host, _, split := net.SplitHostPort(cfg.Listen); split == nil && errors.Is(err, syscall.EADDRINUSE) {
		h.taken = true
		cfg.Listen = net.JoinHostPort(host, "0")
	}
	server, err := embedded.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	h.onClose(func() error { server.Shutdown(); return nil })
	h.nats = server.URL()
	return server, nil
}

func (h *house) connect(ctx context.Context, cfg natsconn.Config, extra ...nats.Option) (*natsconn.Conn, error) {
	cfg.Logger = h.log
	c, err := natsconn.Connect(ctx, cfg, extra...)
	if err != nil {
		return nil, err
	}
	h.onClose(func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		return c.Drain(ctx)
	})
	return c, nil
}

func (h *house) startWorker(ctx context.Context, server *embedded.Server) error {
	nc, err := h.connect(ctx, natsconn.Config{Name: "wxkeeper demo worker"}, server.InProcess())
	if err != nil {
		return err
	}
	w, err := worker.New(nc.Conn, worker.Config{
		Accounts: []worker.Account{
			{AppID: stableID, Secret: stableSecret, Name: "stable", TokenAPI: messages.SourceStableToken, Tickets: []messages.Kind{messages.JSAPITicket, messages.WXCardTicket}},
			{AppID: classicID, Secret: classicSecret, Name: "classic", TokenAPI: messages.SourceToken},
		},
		Name: "demo", Version: buildinfo.Version(), WeChat: wechat.Config{URLs: []string{h.api}}, Log: h.log,
	})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := w.Run(running); err != nil {
			h.fail(fmt.Errorf("demo: the worker has ended: %w", err))
		}
	}()
	h.onClose(func() error {
		stop()
		<-ended
		return nil
	})
	select {
	case <-w.Ready():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// startReader lets the story follow the bucket.
func (h *house) startReader(ctx context.Context, c *natsconn.Conn, s *story) error {
	reader, err := kv.NewReader(c.Conn, kv.ReaderConfig{OnChange: s.changed, OnError: func(err error) {
		h.log.Warn("the demo's reader starts over", "error", err)
	}})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var reading sync.WaitGroup
	reading.Go(func() { _ = reader.Run(running) }) // the end of its context is its only error
	h.onClose(func() error {
		stop()
		reading.Wait()
		return nil
	})
	s.client = messages.NewClient(c.Conn, "")
	return nil
}
