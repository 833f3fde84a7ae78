//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// BenchmarkWorkerProcess runs one worker with 10,000 accounts of three credentials each, beside a nats-server
// process and a simulated WeChat that takes 20 ms. The worker is a process of its own; its metrics give the
// memory, the processor time while it is idle, and the time until everything is fresh. See docs/performance.md.
func BenchmarkWorkerProcess(b *testing.B) {
	const n = 10_000
	bins := binaries(b)
	for b.Loop() {
		var known []wechattest.Account
		var list []account
		for i := range n {
			a := account{
				AppID: fmt.Sprintf("wx%016x", i), Secret: fmt.Sprintf("%032x", i), TokenAPI: "stable_token",
				Tickets: []string{"jsapi", "wx_card"},
			}
			list = append(list, a)
			known = append(known, wechattest.Account{AppID: a.AppID, Secret: a.Secret})
		}
		wechat := wechattest.Start(b, wechattest.Config{Accounts: known, Latency: wechatLatency})
		file := filepath.Join(b.TempDir(), "accounts.json")
		text, err := json.Marshal(list)
		if err == nil {
			err = os.WriteFile(file, text, 0o600)
		}
		if err != nil {
			b.Fatal(err)
		}
		w := &process{name: "worker", file: filepath.Join(bins, "wxkeeper"), args: []string{"run"}, env: []string{
			"NATS_URL=" + startNATS(b, bins), "WECHAT_API_URL=" + wechat.URL, "WECHAT_ACCOUNTS_FILE=" + file,
			"WXKEEPER_HTTP_ADDR=127.0.0.1:0", "WXKEEPER_LOG_FORMAT=json", "WXKEEPER_LOG_LEVEL=info",
		}}
		startProcess(b, w)
		b.ReportMetric(awaitFresh(b, w, 3*n).Seconds(), "cold-s")
		calls := wechat.Calls("", "")
		if err := w.end(syscall.SIGTERM); err != nil {
			b.Fatal(err)
		}
		startProcess(b, w)
		b.ReportMetric(awaitFresh(b, w, 3*n).Seconds(), "warm-s")
		b.ReportMetric(float64(wechat.Calls("", "")-calls), "warm-calls")
		began, before := time.Now(), cpuSeconds(b, w)
		<-time.After(20 * time.Second)
		b.ReportMetric(100*(cpuSeconds(b, w)-before)/time.Since(began).Seconds(), "idle-%core")
		s, err := measure(context.Background(), w)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(s.bytes)/(1<<20), "resident-MiB")
		if err := w.end(syscall.SIGTERM); err != nil {
			b.Fatal(err)
		}
	}
}

var freshInMetrics = regexp.MustCompile(`(?m)^wxkeeper_credentials\{[^}]*state="fresh"[^}]*\} (\d+)$`)

// awaitFresh waits until n credentials are fresh, and returns how long that took since the start of the worker.
func awaitFresh(b *testing.B, w *process, n int) time.Duration {
	b.Helper()
	err := await(context.Background(), "fresh credentials", 10*time.Minute, func(ctx context.Context) error {
		text, err := page(ctx, w, "/metrics")
		if err != nil {
			return err
		}
		fresh := 0
		for _, g := range freshInMetrics.FindAllStringSubmatch(text, -1) {
			v, err := strconv.Atoi(g[1])
			if err != nil {
				return err
			}
			fresh += v
		}
		if fresh != n {
			return fmt.Errorf("%d of %d are fresh", fresh, n)
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(w.current.began)
}

var cpuInMetrics = regexp.MustCompile(`(?m)^process_cpu_seconds_total (\S+)$`)

func cpuSeconds(b *testing.B, w *process) float64 {
	b.Helper()
	text, err := page(context.Background(), w, "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	g := cpuInMetrics.FindStringSubmatch(text)
	if g == nil {
		b.Fatal("no process_cpu_seconds_total")
	}
	v, err := strconv.ParseFloat(g[1], 64)
	if err != nil {
		b.Fatal(err)
	}
	return v
}
