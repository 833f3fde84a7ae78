package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/bench/proc"
	"github.com/wxkeeper/wxkeeper/bench/service"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// holder is the processes that have the tokens of many accounts.
type holder struct {
	r      *runner
	name   string
	n      int
	add    func(what, unit string, value float64)
	dir    string
	wechat *weChat
	worker *member
	nats   *member // nil: embedded, or not wxkeeper
	page   string  // URL of the worker's metrics
	server string  // URL of nats-server's own pages
}

func (r *runner) newHolder(name string, n int) (*holder, error) {
	dir, err := os.MkdirTemp(r.dir, "accounts-")
	if err != nil {
		return nil, err
	}
	c := wechattest.Config{Latency: weChatLatency, StablePerMinute: -1}
	for _, a := range accountsOf(n) {
		c.Accounts = append(c.Accounts, wechattest.Account(a))
	}
	h := &holder{r: r, n: n, name: name, dir: dir}
	h.wechat, err = startWeChat(c, 1)
	return h, err
}

// startTwice starts a worker without tokens, and again with those it has published.
func (h *holder) startTwice(ctx context.Context) error {
	if err := h.prepare(ctx); err != nil {
		return err
	}
	cold, err := h.startWorker(ctx)
	if err != nil {
		return err
	}
	h.add("all tokens from WeChat", "s", cold.Seconds())
	if h.nats != nil {
		if err := h.messages(ctx); err != nil {
			return err
		}
	}
	h.worker.process.Stop()
	calls := h.wechat.tokenCalls()
	warm, err := h.startWorker(ctx)
	if err != nil {
		return err
	}
	h.add("restart with tokens that live", "s", warm.Seconds())
	h.add("calls of WeChat at the restart", "", float64(h.wechat.tokenCalls()-calls))
	return nil
}

// prepare starts nats-server, unless it is embedded, and makes the configuration of the worker.
func (h *holder) prepare(ctx context.Context) error {
	port, err := proc.FreePort()
	if err != nil {
		return err
	}
	h.page = "http://" + address(port) + "/metrics"
	type account struct {
		AppID  string `json:"appid"`
		Secret string `json:"secret"`
	}
	var list []account
	for _, a := range accountsOf(h.n) {
		list = append(list, account(a))
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	file := filepath.Join(h.dir, "accounts.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	env := []string{
		"WECHAT_API_URL=" + h.wechat.plain, "WECHAT_ACCOUNTS_FILE=" + file, "WECHAT_TICKETS=none",
		"WXKEEPER_HTTP_ADDR=" + address(port), "WXKEEPER_LOG_FORMAT=json", "WXKEEPER_LOG_LEVEL=warn",
		"WXKEEPER_DUMPABLE=true",
	}
	if h.name == embedded {
		natsPort, err := proc.FreePort()
		if err != nil {
			return err
		}
		env = append(env, "WXKEEPER_NATS_LISTEN="+address(natsPort), "WXKEEPER_DATA_DIR="+filepath.Join(h.dir, "data"))
	} else {
		m, url, pages, err := natsServer(h.r.bins, h.dir)
		if err != nil {
			return err
		}
		h.server = pages
		if m.process, err = proc.Start(m.config); err != nil {
			return err
		}
		h.nats = m
		if err := awaitURL(ctx, url); err != nil {
			return err
		}
		env = append(env, "NATS_URL="+url)
	}
	h.worker = &member{config: proc.Config{
		Name: "worker", File: h.r.bins.wxkeeper, Dir: h.dir, Args: []string{"run"}, Env: env,
	}}
	return nil
}

// startWorker starts the worker, and returns how long it took until every credential was fresh.
func (h *holder) startWorker(ctx context.Context) (took time.Duration, err error) {
	began := time.Now()
	if h.worker.process, err = proc.Start(h.worker.config); err != nil {
		return 0, err
	}
	pause := 20 * time.Millisecond
	if h.n >= 1000 {
		pause = 200 * time.Millisecond // counting the accounts is work too
	}
	err = proc.Await(ctx, "fresh tokens", 30*time.Minute, func(ctx context.Context) error {
		fresh, err := h.fresh(ctx)
		if err == nil && fresh < h.n {
			err = fmt.Errorf("%d of %d are fresh: see %s", fresh, h.n, h.dir)
		}
		if err == nil {
			took = time.Since(began)
			return nil
		}
		if ended := wait(ctx, pause); ended != nil {
			return ended
		}
		return err
	})
	return took, err
}

var freshInMetrics = regexp.MustCompile(`(?m)^wxkeeper_credentials\{[^}]*state="fresh"[^}]*\} (\d+)$`)

// fresh returns how many credentials are fresh.
func (h *holder) fresh(ctx context.Context) (n int, err error) {
	text, err := page(ctx, h.page)
	if err != nil {
		return 0, err
	}
	for _, g := range freshInMetrics.FindAllSubmatch(text, -1) {
		v, err := strconv.Atoi(string(g[1]))
		if err != nil {
			return 0, err
		}
		n += v
	}
	return n, nil
}

// messages measures what the tokens cost nats-server, from the start until all are there.
func (h *holder) messages(ctx context.Context) error {
	in, err := received(ctx, h.server)
	if err != nil {
		return err
	}
	text, err := page(ctx, h.server+"/jsz")
	if err != nil {
		return err
	}
	var stored struct{ Bytes int }
	if err := json.Unmarshal(text, &stored); err != nil {
		return fmt.Errorf("nats-server's /jsz: %w", err)
	}
	h.add("messages to NATS, for each token", "", float64(in)/float64(h.n))
	h.add("stored by JetStream, for each token", "B", float64(stored.Bytes)/float64(h.n))
	return nil
}

var pages = &http.Client{Timeout: 30 * time.Second}

func page(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := pages.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// startSDK starts one process with the SDK. It tells how long it took until it had all tokens.
func (h *holder) startSDK(ctx context.Context) (err error) {
	lines := make(chan string, 1)
	h.worker = &member{config: proc.Config{
		Name: "sdk", File: h.r.bins.self, Dir: h.dir,
		Args: []string{"hold", "-api", h.wechat.fast, "-accounts", strconv.Itoa(h.n)},
		Line: func(line string) { lines <- line },
	}}
	if h.worker.process, err = proc.Start(h.worker.config); err != nil {
		return err
	}
	select {
	case line := <-lines:
		seconds, err := strconv.ParseFloat(strings.TrimPrefix(line, service.Ready+" "), 64)
		if err == nil {
			h.add("all tokens from WeChat", "s", seconds)
		}
		return err
	case <-h.worker.process.Exited():
		return fmt.Errorf("the process has exited: see %s", h.dir)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *holder) usage() (cpu time.Duration, resident int64, err error) {
	for _, m := range []*member{h.worker, h.nats} {
		if m == nil {
			continue
		}
		c, err := proc.CPU(m.process.PID())
		if err != nil {
			return 0, 0, err
		}
		b, err := proc.Resident(m.process.PID())
		if err != nil {
			return 0, 0, err
		}
		cpu, resident = cpu+c, resident+b
	}
	return cpu, resident, nil
}

func (h *holder) stop() {
	for _, m := range []*member{h.worker, h.nats} {
		if m != nil && m.process != nil {
			m.process.Stop()
		}
	}
	h.wechat.close()
}
