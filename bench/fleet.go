package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wxkeeper/wxkeeper/bench/proc"
	"github.com/wxkeeper/wxkeeper/bench/service"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// The account of rows (a) to (e) and (g).
const (
	appid  = "wx00000000000000be"
	secret = "0123456789abcdef0123456789abcdef"
)

// binaries are the programs that run as processes.
type binaries struct{ self, wxkeeper, nats, redis string }

// fleetConfig says what runs: a system with its services, beside a WeChat of its own.
type fleetConfig struct {
	system
	services int
	rate     float64
	scale    float64
	ahead    time.Duration // margin of wxkeeper and of the token server; 0: ten minutes, scaled
	abrupt   bool          // a token that is replaced is dead at once
	quick    bool          // WeChat answers at once, and resolves every code: for throughput
}

// fleet is a system with its services, as processes.
type fleet struct {
	fleetConfig
	bins    binaries
	dir     string
	wechat  *weChat
	backend string
	pages   string // URL of nats-server's own pages

	ready chan struct{} // receives once for each service

	mu      sync.Mutex
	members []*member
	running bool
	before  int                      // calls of WeChat for a token before begin
	counts  map[int][]service.Counts // by service
}

// member is a process of the fleet that can be killed and started again.
type member struct {
	config  proc.Config
	renews  bool // it asks WeChat for tokens
	service bool
	process *proc.Process
}

// startFleet returns when every service is ready. The caller must stop the fleet, also after an error.
func startFleet(ctx context.Context, b binaries, dir string, c fleetConfig) (*fleet, error) {
	f := &fleet{
		fleetConfig: c, bins: b, ready: make(chan struct{}, c.services), counts: map[int][]service.Counts{},
	}
	if f.ahead == 0 {
		f.ahead = scaled(10*time.Minute, f.scale)
	}
	var err error
	if f.dir, err = os.MkdirTemp(dir, "fleet-"); err != nil {
		return f, err
	}
	wc := wechattest.Config{
		Accounts: []wechattest.Account{{AppID: appid, Secret: secret}}, Latency: weChatLatency, ForceGap: -1,
	}
	if f.abrupt {
		wc.Overlap = -1
	}
	if f.quick {
		wc.Latency, wc.AnyCode = 0, true
	}
	if f.wechat, err = startWeChat(wc, f.scale); err != nil {
		return f, err
	}
	if err := f.startBackend(ctx); err != nil {
		return f, err
	}
	for i := range f.services {
		m := &member{renews: f.fast(), service: true, config: proc.Config{
			Name: fmt.Sprintf("service%02d", i+1), File: b.self, Args: serviceArgs("service", f.serviceConfig()), Dir: f.dir,
		}}
		m.config.Line = func(line string) { f.line(i, m, line) }
		if err := f.launch(m); err != nil {
			return f, err
		}
	}
	return f, f.awaitReady(ctx)
}

func (f *fleet) serviceConfig() service.Config {
	return service.Config{
		System: f.uses, API: f.wechat.fast, AppID: appid, Secret: secret, Backend: f.backend, Scale: f.scale, Rate: f.rate,
	}
}

func (f *fleet) launch(m *member) error {
	f.mu.Lock()
	defer f.mu.Unlock() // also during the start: line needs the process
	p, err := proc.Start(m.config)
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	if m.process == nil {
		f.members = append(f.members, m)
	}
	m.process = p
	return nil
}

// line takes a line that service i has printed.
func (f *fleet) line(i int, m *member, line string) {
	if line == service.Ready {
		f.mu.Lock()
		running := f.running
		p := m.process
		f.mu.Unlock()
		if running { // it was started again
			_ = p.Send("go") // an error: it has exited, and its calls are missing
			return
		}
		f.ready <- struct{}{}
		return
	}
	var c service.Counts
	if json.Unmarshal([]byte(line), &c) == nil {
		f.mu.Lock()
		f.counts[i] = append(f.counts[i], c)
		f.mu.Unlock()
	}
}

func (f *fleet) awaitReady(ctx context.Context) error {
	limit := time.After(time.Minute)
	for range f.services {
		select {
		case <-f.ready:
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return fmt.Errorf("%s: a service has not started within a minute: see %s", f.name, f.dir)
		}
	}
	return nil
}

// begin lets the services call WeChat.
func (f *fleet) begin() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running, f.before = true, f.wechat.tokenCalls()
	for _, m := range f.members {
		if m.service {
			if err := m.process.Send("go"); err != nil {
				return fmt.Errorf("%s: %s has exited: see %s", f.name, m.config.Name, f.dir)
			}
		}
	}
	return nil
}

// stop ends all processes, the services first.
func (f *fleet) stop() {
	f.mu.Lock()
	members := f.members
	f.mu.Unlock()
	for _, services := range []bool{true, false} {
		var all errgroup.Group
		for _, m := range members {
			if m.service == services {
				all.Go(func() error { m.process.Stop(); return nil })
			}
		}
		_ = all.Wait() // no function returns an error
	}
	if f.wechat != nil {
		f.wechat.close()
	}
}

// outcome is what the services of a fleet have seen.
type outcome struct {
	calls, failed int
	tokenCalls    int // calls of WeChat for a token, from begin on
}

func (f *fleet) outcome() (o outcome, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, counts := range f.counts {
		for _, c := range counts {
			o.calls += c.Calls
			o.failed += c.Failed
		}
	}
	if o.calls == 0 || len(f.counts) < f.services {
		return o, fmt.Errorf("%s: %d of %d services have called: see %s", f.name, len(f.counts), f.services, f.dir)
	}
	o.tokenCalls = f.wechat.tokenCalls() - f.before
	return o, nil
}

func (o outcome) failedPercent() float64 { return 100 * float64(o.failed) / float64(o.calls) }
