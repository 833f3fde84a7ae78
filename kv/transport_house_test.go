package kv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

const (
	houseAppID  = "wx0123456789abcdef"
	houseSecret = "CANARY-SECRET-0123456789"
	// patience bounds waits for events that must come; it is not a claim about speed.
	patience = 30 * time.Second
)

// run runs something for the length of a test.
func run(tb testing.TB, what func(context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = what(ctx) }()
	tb.Cleanup(func() { cancel(); <-done })
}

// Another system fetches classic tokens until ours is dead. A thousand calls meet it at once, of two Transports, and
// some cannot be the first to know.
func TestTransportsCallersNeverNoticeThatAForeignSystemKilledTheToken(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	srv := natstest.Start(t)
	wx := wechattest.Start(t, wechattest.Config{Accounts: []wechattest.Account{{AppID: houseAppID, Secret: houseSecret}}})
	w, err := worker.New(srv.Connect(), worker.Config{
		Name: "w", Accounts: []worker.Account{{AppID: houseAppID, Secret: houseSecret, TokenAPI: "token"}},
		WeChat: wechat.Config{URLs: []string{wx.URL}},
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, w.Run)
	r, err := kv.NewReader(srv.Connect(), kv.ReaderConfig{AppIDs: []string{houseAppID}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, r.Run)
	if _, err := r.Wait(ctx, houseAppID, kv.AccessToken); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first leaves ours alive for minutes, the second does not
		if _, err := wx.ForeignRefresh(houseAppID, "token"); err != nil {
			t.Fatal(err)
		}
	}
	minted := wx.Calls(houseAppID, "token")
	reports := count(t, srv.Connect(), "wechat.credential.refresh.>")

	// Few connections: who waits for the new token must not keep one.
	base := &http.Transport{MaxConnsPerHost: 32, MaxIdleConnsPerHost: 32}
	defer base.CloseIdleConnections()
	var clients [2]*http.Client
	for i := range clients {
		transport := r.Transport(houseAppID)
		transport.Base, transport.Hosts = base, []string{strings.TrimPrefix(wx.URL, "http://")}
		clients[i] = &http.Client{Transport: transport}
	}
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			if err := callWeChat(ctx, clients[i%2], wx.URL, i%3 == 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := wx.Calls(houseAppID, "token") - minted; n != 1 {
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
