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

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

const houseAppID = "wx0123456789abcdef"

// house is what a consumer finds: NATS, one worker with classic tokens, and a simulated WeChat.
type house struct {
	natsURL    string
	wechatHost string // host:port
	*wechattest.Simulator
	close func()
}

func openHouse() *house {
	dir, err := os.MkdirTemp("", "wxkeeper-test-")
	check(err)
	srv, err := embedded.Start(context.Background(), embedded.Config{Listen: "127.0.0.1:0", DataDir: dir})
	check(err)
	account := wechattest.Account{AppID: houseAppID, Secret: "CANARY-SECRET-0123456789"}
	sim := wechattest.New(wechattest.Config{Accounts: []wechattest.Account{account}})
	api := httptest.NewServer(sim)
	nc, err := nats.Connect(srv.URL(), nats.ReconnectBufSize(-1))
	check(err)
	w, err := worker.New(nc, worker.Config{
		Accounts: []worker.Account{{AppID: account.AppID, Secret: worker.Secret(account.Secret), TokenAPI: "token"}},
		WeChat:   wechat.Config{URLs: []string{api.URL}},
	})
	check(err)
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { defer close(stopped); check(w.Run(ctx)) }()
	return &house{
		natsURL: srv.URL(), wechatHost: strings.TrimPrefix(api.URL, "http://"), Simulator: sim,
		close: func() {
			stop()
			<-stopped
			nc.Close()
			api.Close()
			srv.Shutdown()
			_ = os.RemoveAll(dir)
		},
	}
}

// killToken has another system fetch classic tokens until the current one is dead.
func (h *house) killToken() {
	for range 2 { // the first leaves ours alive for minutes, the second does not
		_, err := h.ForeignRefresh(houseAppID, "token")
		check(err)
	}
}

// check panics, because an example has no other way to fail.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

// A thousand calls meet the dead token at once, through two Transports.
func TestTransportsCallersNeverNoticeThatAForeignSystemKilledTheToken(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // no claim about speed
	defer cancel()
	h := openHouse()
	defer h.close()
	nc, err := nats.Connect(h.natsURL)
	check(err)
	defer nc.Close()
	r, err := kv.NewReader(nc, kv.ReaderConfig{AppIDs: []string{houseAppID}})
	check(err)
	following, stop := context.WithCancel(ctx)
	stopped := make(chan struct{})
	go func() { defer close(stopped); _ = r.Run(following) }()
	defer func() { stop(); <-stopped }()
	_, err = r.Wait(ctx, houseAppID, messages.AccessToken)
	check(err)
	h.killToken()
	fetched := h.Calls(houseAppID, "token")
	reports := count(t, nc, "wechat.credential.refresh.>")

	// Few connections: who waits for the new token must not keep one.
	base := &http.Transport{MaxConnsPerHost: 32, MaxIdleConnsPerHost: 32}
	defer base.CloseIdleConnections()
	var clients [2]*http.Client
	for i := range clients {
		transport := r.Transport(houseAppID)
		transport.Base, transport.Hosts = base, []string{h.wechatHost}
		clients[i] = &http.Client{Transport: transport}
	}
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			if err := callWeChat(ctx, clients[i%2], "http://"+h.wechatHost, i%3 == 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := h.Calls(houseAppID, "token") - fetched; n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}
	if n := reports(); n != 1 {
		t.Errorf("%d reports, want 1", n)
	}
}

// count counts the messages on a subject from now on.
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

// callWeChat resolves a code, or asks for WeChat's addresses.
func callWeChat(ctx context.Context, client *http.Client, base string, resolves bool) error {
	method, url, body := http.MethodGet, base+"/cgi-bin/get_api_domain_ip", io.Reader(http.NoBody)
	if resolves {
		method, url = http.MethodPost, base+"/intp/marketcode/tickettocode"
		// The sample of tickettocode.txt.
		body = bytes.NewReader([]byte(`{"openid":"oiV2luCau8Cx0TMOy9lvZSLqRcKc","code_ticket":"6cb4bc95e1f1abc97034cbe8fd484989"}`))
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
	if answer.Errcode != 0 || answer.Code == "" && len(answer.IPs) == 0 {
		return fmt.Errorf("WeChat answered %s", b)
	}
	return nil
}
