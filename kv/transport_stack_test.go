package kv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

const stackAppID = "wx0123456789abcdef"

// stack is what a service runs beside: NATS, one worker that fetches classic tokens, and a simulated WeChat.
type stack struct {
	natsURL    string
	wechatHost string // host:port
	*wechattest.Simulator
	close func()
}

func startStack() *stack {
	dir, err := os.MkdirTemp("", "wxkeeper-test-")
	must(err)
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true,
	})
	must(err)
	srv.Start()
	if !srv.ReadyForConnections(time.Minute) {
		panic("nats-server is not ready")
	}
	account := wechattest.Account{AppID: stackAppID, Secret: "CANARY-SECRET-0123456789"}
	sim := wechattest.New(wechattest.Config{Accounts: []wechattest.Account{account}})
	api := httptest.NewServer(sim)
	nc, err := nats.Connect(srv.ClientURL(), nats.ReconnectBufSize(-1))
	must(err)
	w, err := worker.New(nc, worker.Config{
		Accounts: []worker.Account{{AppID: account.AppID, Secret: worker.Secret(account.Secret), TokenAPI: "token"}},
		WeChat:   wechat.Config{URLs: []string{api.URL}},
	})
	must(err)
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { defer close(stopped); must(w.Run(ctx)) }()
	return &stack{
		natsURL: srv.ClientURL(), wechatHost: strings.TrimPrefix(api.URL, "http://"), Simulator: sim,
		close: func() {
			stop()
			<-stopped
			nc.Close()
			api.Close()
			srv.Shutdown()
			srv.WaitForShutdown()
			_ = os.RemoveAll(dir)
		},
	}
}

// killToken has another system fetch classic tokens until the current one is dead.
func (s *stack) killToken() {
	for range 2 { // after the first fetch, WeChat accepts the current token for some minutes
		_, err := s.ForeignRefresh(stackAppID, "token")
		must(err)
	}
}

// must panics, because an example cannot fail in another way.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// A thousand calls of two Transports meet the dead token at once.
func TestTransportsCallersNeverNoticeThatAForeignSystemKilledTheToken(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // only against a hang
	defer cancel()
	s := startStack()
	defer s.close()
	nc, err := nats.Connect(s.natsURL)
	must(err)
	defer nc.Close()
	r, err := kv.NewReader(nc, kv.ReaderConfig{AppIDs: []string{stackAppID}})
	must(err)
	following, stop := context.WithCancel(ctx)
	stopped := make(chan struct{})
	go func() { defer close(stopped); _ = r.Run(following) }()
	defer func() { stop(); <-stopped }()
	_, err = r.Wait(ctx, stackAppID, messages.AccessToken)
	must(err)
	s.killToken()
	fetched := s.Calls(stackAppID, "token")
	reports := count(t, nc, "wechat.credential.refresh.>")

	// With few connections, a request that waits for the new token must not keep one.
	base := &http.Transport{MaxConnsPerHost: 32, MaxIdleConnsPerHost: 32}
	defer base.CloseIdleConnections()
	var clients [2]*http.Client
	for i := range clients {
		transport := r.Transport(stackAppID)
		transport.Base, transport.Hosts = base, []string{s.wechatHost}
		clients[i] = &http.Client{Transport: transport}
	}
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			if err := callWeChat(ctx, clients[i%2], "http://"+s.wechatHost, i%3 == 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := s.Calls(stackAppID, "token") - fetched; n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}
	if n := reports(); n != 1 {
		t.Errorf("%d reports, want 1", n)
	}
}

// count counts the messages on a subject. The returned function returns how many have arrived.
func count(tb testing.TB, nc *nats.Conn, subject string) func() int64 {
	tb.Helper()
	var n atomic.Int64
	_, err := nc.Subscribe(subject, func(*nats.Msg) { n.Add(1) })
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return func() int64 {
		if err := nc.Flush(); err != nil {
			tb.Error(err)
		}
		return n.Load()
	}
}

// callWeChat resolves a code, or asks for WeChat's IP addresses.
func callWeChat(ctx context.Context, client *http.Client, base string, resolves bool) error {
	method, url, body := http.MethodGet, base+"/cgi-bin/get_api_domain_ip", io.Reader(http.NoBody)
	if resolves {
		method, url = http.MethodPost, base+"/intp/marketcode/tickettocode"
		// The example of docs/wechat-api.md#tickettocode.
		body = bytes.NewReader([]byte(
			`{"openid":"oiV2luCau8Cx0TMOy9lvZSLqRcKc","code_ticket":"6cb4bc95e1f1abc97034cbe8fd484989"}`))
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Errcode int      `json:"errcode"`
		Code    string   `json:"code"`
		IPs     []string `json:"ip_list"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return err
	}
	if answer.Errcode != 0 {
		return fmt.Errorf("WeChat answers %s", b)
	}
	if resolves == (answer.Code == "") || resolves == (len(answer.IPs) > 0) {
		return fmt.Errorf("WeChat answers something else: %s", b)
	}
	return nil
}
