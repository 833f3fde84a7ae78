//go:build unix

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

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// The times of the stack. Everything else is as in production.
const (
	tokenLife     = 90 * time.Second // of every token and ticket
	overlap       = 30 * time.Second // WeChat accepts the old token beside the new one
	renewAhead    = 30 * time.Second // WXKEEPER_REFRESH_BEFORE
	callTimeout   = time.Second      // WECHAT_HTTP_TIMEOUT; it gives a lease of 4 s
	resolveTime   = 2 * time.Second  // WXKEEPER_RESOLVE_TIMEOUT
	wechatLatency = 20 * time.Millisecond
)

const (
	servers   = 3
	consumers = 6
)

// The streams of the two buckets.
const (
	recordStream = "KV_wechat"
	ledgerStream = "KV_wechat_ledger"
)

// hang is the limit of waits for what always comes on a machine that is not too busy.
const hang = 5 * time.Minute

// stack is the running set of servers and processes.
type stack struct {
	settings
	checker    *checker
	wechat     *wechattest.Simulator
	api        string // URL of the simulated WeChat
	checkerURL string // consumers post to it what they see

	nats      [servers]*process
	clients   [servers]*proxy          // from clients to a server
	routes    [servers][servers]*proxy // from server i to server j
	workers   []*process
	consumers []*process

	nc *nats.Conn // for the faults; it bypasses the proxies
	js jetstream.JetStream

	closers []func()
}

// account is an account of the simulated WeChat.
type account struct {
	AppID    string   `json:"appid"`
	Secret   string   `json:"secret"`
	TokenAPI string   `json:"token_api"`
	Tickets  []string `json:"tickets"`

	// wrongSecret: WeChat refuses this account all the time, which must not affect the others.
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

// makeAccounts returns n accounts: half with classic tokens and half with stable ones, half of each without
// tickets. The last account has a wrong secret.
func makeAccounts(n int) []account {
	as := make([]account, n)
	for i := range as {
		as[i] = account{
			AppID: fmt.Sprintf("wx%04d", i), Secret: fmt.Sprintf("%032x", 0xc0ffee+i), TokenAPI: "stable_token",
			Tickets: []string{"jsapi", "wx_card"},
		}
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

// startStack starts everything, and returns when every consumer has every credential.
func startStack(ctx context.Context, s settings, c *checker) (st *stack, err error) {
	st = &stack{settings: s, checker: c}
	defer func() {
		if err != nil {
			st.stop()
		}
	}()
	var issued []wechattest.Account
	for _, a := range c.accounts {
		secret := a.Secret
		if a.wrongSecret {
			secret = strings.Repeat("0", 32)
		}
		issued = append(issued, wechattest.Account{AppID: a.AppID, Secret: secret})
	}
	st.wechat = wechattest.New(wechattest.Config{
		Accounts: issued, TokenLife: tokenLife, TicketLife: tokenLife, Overlap: overlap,
		Latency: wechatLatency, AnyCode: true,
	})
	c.wechat = st.wechat
	st.closers = append(st.closers, st.wechat.Release)
	if st.api, err = st.serve(st.wechat); err != nil {
		return st, err
	}
	if st.checkerURL, err = st.serve(c.handler()); err != nil {
		return st, err
	}
	if err = st.startCluster(ctx); err != nil {
		return st, err
	}
	return st, st.startWorkersAndConsumers(ctx)
}

func (st *stack) serve(handler http.Handler) (url string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	go srv.Serve(l) //nolint:errcheck // it returns when the stack stops
	st.closers = append(st.closers, func() { _ = srv.Close() })
	return "http://" + l.Addr().String(), nil
}

// startCluster starts three servers. Their routes to each other and the connections of clients go through proxies.
func (st *stack) startCluster(ctx context.Context) error {
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
		if st.clients[i], err = newProxy(clientAddr[i]); err != nil {
			return err
		}
		st.closers = append(st.closers, st.clients[i].close)
		var routes []string
		for k := range servers {
			if k == i {
				continue
			}
			if st.routes[i][k], err = newProxy(routeAddr[k]); err != nil {
				return err
			}
			st.closers = append(st.closers, st.routes[i][k].close)
			routes = append(routes, fmt.Sprintf("%q", "nats://"+st.routes[i][k].addr()))
		}
		name := fmt.Sprintf("nats%d", i+1)
		// The other servers connect to the address that a server advertises. Its real address would bypass the
		// proxies, so it advertises a port on which nothing listens.
		conf := fmt.Sprintf(`server_name: %s
listen: %q
ping_interval: "5s"
jetstream { store_dir: %q }
cluster { name: chaos, listen: %q, no_advertise: true, advertise: "127.0.0.1:1", routes: [%s] }
`, name, clientAddr[i], filepath.Join(st.dir, name), routeAddr[i], strings.Join(routes, ", "))
		file := filepath.Join(st.dir, name+".conf")
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			return err
		}
		st.nats[i] = &process{name: name, dir: st.dir, file: st.natsServer, args: []string{"-c", file}}
		if err := st.nats[i].start(st.checker.fail); err != nil {
			return err
		}
		st.closers = append(st.closers, kill(st.nats[i]))
	}
	var err error
	st.nc, err = nats.Connect(strings.Join(direct, ","), nats.Name("chaos"), nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1), nats.ReconnectWait(200*time.Millisecond))
	if err != nil {
		return err
	}
	st.closers = append(st.closers, st.nc.Close)
	st.js, err = jetstream.New(st.nc)
	if err != nil {
		return err
	}
	return await(ctx, "the JetStream cluster", hang, func(ctx context.Context) error {
		_, err := st.js.AccountInfo(ctx)
		return err
	})
}

func (st *stack) startWorkersAndConsumers(ctx context.Context) error {
	file := filepath.Join(st.dir, "accounts.json")
	list, err := json.Marshal(st.checker.accounts)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, list, 0o600); err != nil {
		return err
	}
	var urls []string
	for _, p := range st.clients {
		urls = append(urls, "nats://"+p.addr())
	}
	all := strings.Join(urls, ",")
	for i := range st.settings.workers {
		st.workers = append(st.workers, &process{
			name: fmt.Sprintf("worker%d", i+1), dir: st.dir, file: st.wxkeeper, args: []string{"run"},
			env: []string{
				"NATS_URL=" + all, "WECHAT_API_URL=" + st.api, "WECHAT_ACCOUNTS_FILE=" + file,
				"WECHAT_HTTP_TIMEOUT=" + callTimeout.String(), "WXKEEPER_REFRESH_BEFORE=" + renewAhead.String(),
				"WXKEEPER_RESOLVE_TIMEOUT=" + resolveTime.String(), "WXKEEPER_HTTP_ADDR=127.0.0.1:0",
				"WXKEEPER_LOG_FORMAT=json", "WXKEEPER_LOG_LEVEL=debug",
			},
		})
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// A Reader of one account receives few events. Nothing that comes later hides an event that it missed.
	one := st.checker.accounts[0].AppID
	for i, c := range [consumers]struct {
		kind string
		args []string
	}{
		{kindReader, nil}, {kindReader, []string{"-only", one, "-feed", string(kv.FeedWatch)}},
		{kindReader, []string{"-only", one, "-feed", string(kv.FeedDirect)}},
		{kindReader, []string{"-only", one, "-feed", string(kv.FeedRequests)}}, {kindPoller, nil}, {kindPoller, nil},
	} {
		p := &process{name: fmt.Sprintf("%s%d", c.kind, i+1), dir: st.dir, file: self}
		p.args = []string{consumeVerb, "-kind", c.kind, "-name", p.name, "-nats", all, "-checker", st.checkerURL}
		p.args = append(p.args, c.args...)
		st.consumers = append(st.consumers, p)
	}
	for _, p := range append(st.workers, st.consumers...) {
		if err := p.start(st.checker.fail); err != nil {
			return err
		}
		st.closers = append(st.closers, kill(p))
	}
	return await(ctx, "every credential in every consumer", hang, func(context.Context) error {
		return st.checker.allFresh(st.consumers)
	})
}

// watchJetStream records, until ctx ends, when JetStream does not answer. Nothing can be renewed in that time,
// whichever fault causes it.
func (st *stack) watchJetStream(ctx context.Context) {
	end := func() {}
	unavailable := false
	for ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, time.Second)
		err := st.askJetStream(asking)
		cancel()
		switch {
		case err != nil && !unavailable:
			end, unavailable = st.checker.disrupt(effect{unavailable: true}), true
		case err == nil && unavailable:
			end()
			unavailable = false
		}
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
	end()
}

// askJetStream asks the leaders of both buckets for a message that does not exist.
func (st *stack) askJetStream(ctx context.Context) error {
	for _, stream := range []string{recordStream, ledgerStream} {
		request := []byte(`{"last_by_subj":"nothing"}`)
		reply, err := st.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, request)
		if err != nil {
			return err
		}
		var answer struct{ Error *struct{ Code int } }
		switch err := json.Unmarshal(reply.Data, &answer); {
		case err != nil, answer.Error == nil, answer.Error.Code != http.StatusNotFound,
			strings.Contains(string(reply.Data), "stream not found"):
			return fmt.Errorf("%s: %s", stream, reply.Data)
		}
	}
	return nil
}

func kill(p *process) func() {
	return func() { _ = p.end(syscall.SIGKILL) } // an error: it has exited
}

// stop stops everything, in reverse order.
func (st *stack) stop() {
	for i := len(st.closers) - 1; i >= 0; i-- {
		st.closers[i]()
	}
	st.closers = nil
}

// setLinks changes the links of a server: from its clients, to and from the other servers, or both.
func (st *stack) setLinks(server int, s linkState, ofClients, ofServers bool) {
	if ofClients {
		st.clients[server].set(s)
	}
	for k := range servers {
		if k != server && ofServers {
			st.routes[server][k].set(s)
			st.routes[k][server].set(s)
		}
	}
}

// await calls try until it returns no error.
func await(ctx context.Context, what string, within time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		trying, done := context.WithTimeout(ctx, 2*time.Second)
		err := try(trying)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait %s for %s: %w", within, what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// freePorts returns ports below the range from which the kernel takes ports for outgoing connections: a server
// that was ended must find its port free again.
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
