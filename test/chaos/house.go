package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// The times of the house. Everything else is as in production.
const (
	tokenLife   = 90 * time.Second // of every token and ticket
	overlap     = 30 * time.Second // in which old and new are both good
	renewAhead  = 30 * time.Second // WXKEEPER_REFRESH_BEFORE
	callTimeout = time.Second      // WECHAT_HTTP_TIMEOUT; the lease is 4 s then
	resolveTime = 2 * time.Second  // WXKEEPER_RESOLVE_TIMEOUT
	wechatTakes = 20 * time.Millisecond
)

const (
	servers   = 3
	consumers = 6
)

// house is everything that runs.
type house struct {
	settings
	judge  *judge
	wechat *wechattest.Simulator
	api    string // of the simulated WeChat
	ear    string // where consumers tell what they see

	nats      [servers]*process
	clients   [servers]*proxy          // the way of clients to a server
	routes    [servers][servers]*proxy // the way of server i to server j
	workers   []*process
	consumers []*process

	nc *nats.Conn // of the one who breaks things: it goes past the proxies
	js jetstream.JetStream

	closers []func()
}

// account is one of the simulated WeChat.
type account struct {
	AppID    string   `json:"appid"`
	Secret   string   `json:"secret"`
	TokenAPI string   `json:"token_api"`
	Tickets  []string `json:"tickets"`

	// wrongSecret: WeChat refuses it for ever, and nobody else may notice.
	wrongSecret bool
}

func (a account) endpoint() string { return a.TokenAPI }

func (a account) kinds() []string {
	kinds := []string{"access_token"}
	for _, t := range a.Tickets {
		kinds = append(kinds, t+"_ticket")
	}
	return kinds
}

// makeAccounts: half classic, half stable; of both, half without tickets; the last with a wrong secret.
func makeAccounts(n int) []account {
	as := make([]account, n)
	for i := range as {
		as[i] = account{AppID: fmt.Sprintf("wx%04d", i), Secret: fmt.Sprintf("%032x", 0xc0ffee+i), TokenAPI: "stable_token", Tickets: []string{"jsapi", "wx_card"}}
		if i%2 == 0 {
			as[i].TokenAPI = "token"
		}
		if i%4 >= 2 {
			as[i].Tickets = []string{}
		}
	}
	as[n-1].wrongSecret = true
	return as
}

// build makes the house and waits until every credential is there.
func build(ctx context.Context, s settings, j *judge) (h *house, err error) {
	h = &house{settings: s, judge: j}
	defer func() {
		if err != nil {
			h.tearDown()
		}
	}()
	var issued []wechattest.Account
	for _, a := range j.accounts {
		secret := a.Secret
		if a.wrongSecret {
			secret = strings.Repeat("0", 32)
		}
		issued = append(issued, wechattest.Account{AppID: a.AppID, Secret: secret})
	}
	h.wechat = wechattest.New(wechattest.Config{Accounts: issued, TokenLife: tokenLife, TicketLife: tokenLife, Overlap: overlap, Latency: wechatTakes, AnyCode: true})
	j.wechat = h.wechat
	h.closers = append(h.closers, h.wechat.Release)
	if h.api, err = h.serve(h.wechat); err != nil {
		return h, err
	}
	if h.ear, err = h.serve(j.handler()); err != nil {
		return h, err
	}
	if err = h.startCluster(ctx); err != nil {
		return h, err
	}
	return h, h.startWorkersAndConsumers(ctx)
}

func (h *house) serve(handler http.Handler) (url string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	go srv.Serve(l) //nolint:errcheck // it ends with the house
	h.closers = append(h.closers, func() { _ = srv.Close() })
	return "http://" + l.Addr().String(), nil
}

// startCluster starts three servers that reach each other, and are reached, by proxies alone.
func (h *house) startCluster(ctx context.Context) error {
	var clientAddr, routeAddr [servers]string
	var direct []string
	for i := range servers {
		ports, err := freePorts(2)
		if err != nil {
			return err
		}
		clientAddr[i], routeAddr[i] = fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
		direct = append(direct, "nats://"+clientAddr[i])
	}
	for i := range servers {
		var err error
		if h.clients[i], err = newProxy(clientAddr[i]); err != nil {
			return err
		}
		h.closers = append(h.closers, h.clients[i].close)
		var routes []string
		for k := range servers {
			if k == i {
				continue
			}
			if h.routes[i][k], err = newProxy(routeAddr[k]); err != nil {
				return err
			}
			h.closers = append(h.closers, h.routes[i][k].close)
			routes = append(routes, fmt.Sprintf("%q", "nats://"+h.routes[i][k].addr()))
		}
		name := fmt.Sprintf("nats%d", i+1)
		// What a server advertises would lead the others past the proxies: it advertises a port where nobody listens.
		conf := fmt.Sprintf(`server_name: %s
listen: %q
ping_interval: "5s"
jetstream { store_dir: %q }
cluster { name: chaos, listen: %q, no_advertise: true, advertise: "127.0.0.1:1", routes: [%s] }
`, name, clientAddr[i], filepath.Join(h.dir, name), routeAddr[i], strings.Join(routes, ", "))
		file := filepath.Join(h.dir, name+".conf")
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			return err
		}
		h.nats[i] = &process{name: name, dir: h.dir, file: h.natsServer, args: []string{"-c", file}}
		if err := h.nats[i].start(h.judge.oops); err != nil {
			return err
		}
		h.closers = append(h.closers, h.kill(h.nats[i]))
	}
	var err error
	h.nc, err = nats.Connect(strings.Join(direct, ","), nats.MaxReconnects(-1), nats.ReconnectWait(200*time.Millisecond), nats.RetryOnFailedConnect(true), nats.Name("chaos"))
	if err != nil {
		return err
	}
	h.closers = append(h.closers, h.nc.Close)
	h.js, err = jetstream.New(h.nc)
	if err != nil {
		return err
	}
	return await(ctx, "the cluster", 30*time.Second, func(ctx context.Context) error {
		_, err := h.js.AccountInfo(ctx)
		return err
	})
}

func (h *house) startWorkersAndConsumers(ctx context.Context) error {
	file := filepath.Join(h.dir, "accounts.json")
	list, err := json.Marshal(h.judge.accounts)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, list, 0o600); err != nil {
		return err
	}
	var urls []string
	for _, p := range h.clients {
		urls = append(urls, "nats://"+p.addr())
	}
	all := strings.Join(urls, ",")
	for i := range h.settings.workers {
		h.workers = append(h.workers, &process{
			name: fmt.Sprintf("worker%d", i+1), dir: h.dir, file: h.wxkeeper, args: []string{"run"},
			env: []string{
				"NATS_URL=" + all, "WECHAT_API_URL=" + h.api, "WECHAT_ACCOUNTS_FILE=" + file, "WECHAT_HTTP_TIMEOUT=" + callTimeout.String(),
				"WXKEEPER_REFRESH_BEFORE=" + renewAhead.String(), "WXKEEPER_RESOLVE_TIMEOUT=" + resolveTime.String(),
				"WXKEEPER_HTTP_ADDR=127.0.0.1:0", "WXKEEPER_LOG_FORMAT=json", "WXKEEPER_LOG_LEVEL=debug",
			},
		})
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	one := h.judge.accounts[0].AppID // who follows one account sees nothing else that would show what was missed
	for i, c := range [consumers]struct {
		kind string
		args []string
	}{{kindReader, nil}, {kindReader, nil}, {kindReader, []string{"-only", one}}, {kindReader, []string{"-only", one, "-direct"}}, {kindPoller, nil}, {kindPoller, nil}} {
		p := &process{name: fmt.Sprintf("%s%d", c.kind, i+1), dir: h.dir, file: self}
		p.args = append([]string{consumeVerb, "-kind", c.kind, "-name", p.name, "-nats", all, "-ear", h.ear}, c.args...)
		h.consumers = append(h.consumers, p)
	}
	for _, p := range append(h.workers, h.consumers...) {
		if err := p.start(h.judge.oops); err != nil {
			return err
		}
		h.closers = append(h.closers, h.kill(p))
	}
	return await(ctx, "a credential of every kind", time.Minute, func(context.Context) error { return h.judge.complete(h.consumers) })
}

// listen notes, until ctx ends, when JetStream does not answer: then nothing can be renewed, whatever was done to whom.
func (h *house) listen(ctx context.Context) {
	ends := func() {}
	deaf := false
	for ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, time.Second)
		err := h.answers(asking)
		cancel()
		switch {
		case err != nil && !deaf:
			ends, deaf = h.judge.begins(fault{deaf: true}), true
		case err == nil && deaf:
			ends()
			deaf = false
		}
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
	ends()
}

// answers asks the leaders of both buckets.
func (h *house) answers(ctx context.Context) error {
	for _, stream := range []string{"KV_wechat", "KV_wechat_ledger"} {
		reply, err := h.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, []byte(`{"last_by_subj":"nothing"}`))
		if err != nil {
			return err
		}
		var answer struct{ Error *struct{ Code int } }
		if err := json.Unmarshal(reply.Data, &answer); err != nil || answer.Error == nil || answer.Error.Code != http.StatusNotFound || strings.Contains(string(reply.Data), "stream not found") {
			return fmt.Errorf("%s: %s", stream, reply.Data)
		}
	}
	return nil
}

func (h *house) kill(p *process) func() {
	return func() { _ = p.end(syscall.SIGKILL, 10*time.Second) } // it may have ended
}

// tearDown ends everything, the last first.
func (h *house) tearDown() {
	for i := len(h.closers) - 1; i >= 0; i-- {
		h.closers[i]()
	}
	h.closers = nil
}

// set changes the ways of a server: those of clients, those to the other servers, or both.
func (h *house) set(server int, n network, ofClients, ofServers bool) {
	if ofClients {
		h.clients[server].set(n)
	}
	for k := range servers {
		if k != server && ofServers {
			h.routes[server][k].set(n)
			h.routes[k][server].set(n)
		}
	}
}

// await asks until there is no error.
func await(ctx context.Context, what string, within time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		asking, done := context.WithTimeout(ctx, 2*time.Second)
		err := ask(asking)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not there within %s: %w", what, within, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// freePorts finds ports below those that the kernel gives to outgoing connections: they must be free again and again.
func freePorts(n int) (ports []int, err error) {
	for range 1000 {
		port := 20_000 + rand.IntN(10_000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close()
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("no free port")
}
