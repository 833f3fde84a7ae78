package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/wxkeeper/wxkeeper/bench/proc"
	"github.com/wxkeeper/wxkeeper/bench/service"
)

// system is one of the systems that are compared.
type system struct {
	name    string
	uses    string // of the services: one of package service
	workers int    // of wxkeeper
}

// own is the system that the others are compared with.
const own = "wxkeeper, 1 worker"

var systems = []system{
	{own, service.Wxkeeper, 1},
	{"wxkeeper, 3 workers", service.Wxkeeper, 3},
	{"silenceper, memory", service.Memory, 0},
	{"silenceper, memory, stable_token", service.MemoryStable, 0},
	{"silenceper, Redis", service.Redis, 0},
	{"silenceper, Redis, stable_token", service.RedisStable, 0},
	{"token server, asked at each call", service.Asked, 0},
	{"token server, cached", service.Cached, 0},
	{"token server, cached, with reports", service.Reporting, 0},
}

// fast reports whether the system's clients have margins that are scaled, see package service.
func (s system) fast() bool {
	switch s.uses {
	case service.Memory, service.MemoryStable, service.Redis, service.RedisStable:
		return true
	}
	return false
}

// stable reports whether the system uses stable_token.
func (s system) stable() bool { return s.uses == service.MemoryStable || s.uses == service.RedisStable }

// renewsAt is when, in the life of a token, the system renews it at the earliest.
func (s system) renewsAt(scale float64, ahead time.Duration) time.Duration {
	switch s.uses {
	case service.Memory, service.Redis:
		return life(scale) - scaled(1500*time.Second, scale)
	case service.MemoryStable, service.RedisStable:
		return life(scale) - scaled(300*time.Second, scale)
	case service.Wxkeeper:
		return life(scale) - ahead*5/4 // jitter: up to a quarter earlier
	}
	return life(scale) - ahead
}

// startBackend starts what the services of a system need, and sets where it is.
func (f *fleet) startBackend(ctx context.Context) error {
	switch f.uses {
	case service.Redis, service.RedisStable:
		return f.startRedis(ctx)
	case service.Asked, service.Cached, service.Reporting:
		return f.startTokenServer(ctx)
	case service.Wxkeeper:
		return f.startWxkeeper(ctx)
	}
	return nil
}

func (f *fleet) startRedis(ctx context.Context) error {
	port, err := proc.FreePort()
	if err != nil {
		return err
	}
	f.backend = address(port)
	if err := f.launch(&member{config: proc.Config{
		Name: "redis", File: f.bins.redis, Dir: f.dir,
		Args: []string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"},
	}}); err != nil {
		return err
	}
	return awaitPort(ctx, port)
}

func (f *fleet) startTokenServer(ctx context.Context) error {
	port, err := proc.FreePort()
	if err != nil {
		return err
	}
	f.backend = "http://" + address(port)
	if err := f.launch(&member{renews: true, config: proc.Config{
		Name: "tokenserver", File: f.bins.self, Dir: f.dir,
		Args: []string{
			"tokenserver", "-api", f.wechat.plain, "-appid", appid, "-secret", secret, "-listen", address(port),
			"-ahead", f.ahead.String(),
		},
	}}); err != nil {
		return err
	}
	return awaitPort(ctx, port)
}

func (f *fleet) startWxkeeper(ctx context.Context) error {
	m, url, pages, err := natsServer(f.bins, f.dir)
	if err != nil {
		return err
	}
	f.backend, f.pages = url, pages
	if err := f.launch(m); err != nil {
		return err
	}
	if err := awaitURL(ctx, url); err != nil {
		return err
	}
	for i := range f.workers {
		err := f.launch(&member{renews: true, config: proc.Config{
			Name: fmt.Sprint("worker", i+1), File: f.bins.wxkeeper, Dir: f.dir, Args: []string{"run"},
			Env: []string{
				"NATS_URL=" + url, "WECHAT_API_URL=" + f.wechat.plain, "WECHAT_APPID=" + appid, "WECHAT_SECRET=" + secret,
				"WECHAT_TOKEN_API=token", "WECHAT_TICKETS=none", "WXKEEPER_REFRESH_BEFORE=" + f.ahead.String(),
				"WXKEEPER_HTTP_ADDR=none", "WXKEEPER_LOG_FORMAT=json", "WXKEEPER_DUMPABLE=true",
			},
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

// natsServer returns a nats-server with JetStream, which is not started yet, its URL, and the URL of its own pages.
func natsServer(b binaries, dir string) (m *member, url, pages string, err error) {
	port, err := proc.FreePort()
	if err != nil {
		return nil, "", "", err
	}
	monitor, err := proc.FreePort()
	if err != nil {
		return nil, "", "", err
	}
	store := filepath.Join(dir, "jetstream")
	if err := os.MkdirAll(store, 0o700); err != nil {
		return nil, "", "", err
	}
	return &member{config: proc.Config{
		Name: "nats-server", File: b.nats, Dir: dir,
		Args: []string{"-a", "127.0.0.1", "-p", strconv.Itoa(port), "-m", strconv.Itoa(monitor), "-js", "-sd", store},
	}}, "nats://" + address(port), "http://" + address(monitor), nil
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func awaitURL(ctx context.Context, natsURL string) error {
	_, text, err := net.SplitHostPort(natsURL[len("nats://"):])
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	return awaitPort(ctx, port)
}

// awaitPort waits until something listens on the port.
func awaitPort(ctx context.Context, port int) error {
	return proc.Await(ctx, "port "+strconv.Itoa(port), time.Minute, func(ctx context.Context) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp4", address(port))
		if err == nil {
			c.Close()
		}
		return err
	})
}
