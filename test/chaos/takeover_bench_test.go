package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// BenchmarkTakeover: a worker is killed or frozen while WeChat has its call; an operation is the time until another one
// has published (design §8, last row). All are processes of their own. The metric x is that time over the TTL of a lease,
// which is 3 s here; consumers have a valid value all the time, or the benchmark fails.
func BenchmarkTakeover(b *testing.B) {
	dir := binaries(b)
	for _, how := range []struct {
		name string
		hit  func(*process) error
	}{
		{"kill-9", func(p *process) error { return p.end(syscall.SIGKILL, time.Second) }},
		{"SIGSTOP", func(p *process) error { p.freeze(); return nil }},
	} {
		b.Run(how.name, func(b *testing.B) {
			const lease = 3 * time.Second // of a call timeout of 500 ms
			var sum, longest time.Duration
			for b.Loop() {
				took := takeover(b, dir, how.hit)
				sum += took
				longest = max(longest, took)
			}
			b.ReportMetric(sum.Seconds()/float64(b.N), "takeover-s")
			b.ReportMetric(longest.Seconds(), "longest-s")
			b.ReportMetric(float64(sum)/float64(b.N)/float64(lease), "x")
		})
	}
}

// takeover builds a fleet, hits the worker that holds the lease while its call hangs, and returns how long it took until
// another worker has published.
func takeover(b *testing.B, bins string, hit func(*process) error) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const appid, secret = "wx0", "0123456789abcdef0123456789abcdef"
	wechat := wechattest.Start(b, wechattest.Config{
		Accounts: []wechattest.Account{{AppID: appid, Secret: secret}}, TokenLife: 18 * time.Second, Latency: wechatTakes,
	})
	url := startNATS(b, bins)
	workers := map[string]*process{}
	for range 3 {
		p := &process{file: filepath.Join(bins, "wxkeeper"), args: []string{"run"}, env: []string{
			"NATS_URL=" + url, "WECHAT_API_URL=" + wechat.URL, "WECHAT_APPID=" + appid, "WECHAT_SECRET=" + secret, "WECHAT_TOKEN_API=token",
			"WECHAT_TICKETS=none", "WECHAT_HTTP_TIMEOUT=500ms", "WXKEEPER_HTTP_ADDR=none", "WXKEEPER_LOG_FORMAT=json",
		}}
		p.name = fmt.Sprint("worker", len(workers)+1)
		begin(b, p)
		host, err := os.Hostname()
		if err != nil {
			b.Fatal(err)
		}
		workers[fmt.Sprintf("%s-%d", host, p.life.cmd.Process.Pid)] = p
	}
	nc, err := nats.Connect(url, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	reader, err := kv.NewReader(nc, kv.ReaderConfig{})
	if err != nil {
		b.Fatal(err)
	}
	reading, stopReading := context.WithCancel(ctx)
	read := make(chan struct{})
	go func() { defer close(read); _ = reader.Run(reading) }()
	defer func() { stopReading(); <-read }()
	first, err := reader.Wait(ctx, appid, messages.AccessToken)
	if err != nil {
		b.Fatal(err)
	}

	wechat.Inject(wechattest.Fault{Endpoint: "token", Times: 1, Hang: true})
	before := wechat.Calls(appid, "token")
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	valid := func() {
		if c, err := reader.Get(appid, messages.AccessToken); err != nil || wechat.Judge(appid, "access_token", c.Value) != wechattest.Valid {
			b.Fatalf("a consumer has no good value: %v", err)
		}
	}
	for wechat.Calls(appid, "token") == before {
		valid()
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.Fatal("nobody renews")
		}
	}
	holder, err := leaseHolder(ctx, nc, appid)
	if err != nil {
		b.Fatal(err)
	}
	p := workers[holder]
	if p == nil {
		b.Fatalf("the lease is held by %q", holder)
	}
	began := time.Now()
	if err := hit(p); err != nil {
		b.Fatal(err)
	}
	for {
		if c, err := reader.Get(appid, messages.AccessToken); err == nil && c.Generation > first.Generation {
			if c.Worker == holder {
				b.Fatal("the worker that was hit has published")
			}
			return time.Since(began)
		}
		valid()
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.Fatal("nobody takes over")
		}
	}
}

// binaries builds what runs in processes of their own.
func binaries(b *testing.B) (dir string) {
	b.Helper()
	dir = b.TempDir()
	for name, pkg := range map[string]string{"wxkeeper": "../../cmd/wxkeeper", "nats-server": "github.com/nats-io/nats-server/v2"} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg).CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
	}
	return dir
}

// begin starts a process that ends with the benchmark.
func begin(b *testing.B, p *process) {
	b.Helper()
	p.dir = b.TempDir()
	if err := p.start(func(what string) { b.Error(what) }); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.end(syscall.SIGKILL, time.Second) }) // it may have ended
}

// startNATS starts a server with JetStream and returns its URL.
func startNATS(b *testing.B, bins string) string {
	b.Helper()
	ports, err := freePorts(1)
	if err != nil {
		b.Fatal(err)
	}
	begin(b, &process{name: "nats", file: filepath.Join(bins, "nats-server"), args: []string{"-a", "127.0.0.1", "-p", fmt.Sprint(ports[0]), "-js", "-sd", b.TempDir()}})
	return fmt.Sprintf("nats://127.0.0.1:%d", ports[0])
}

// leaseHolder is the worker whose name stands in the lease.
func leaseHolder(ctx context.Context, nc *nats.Conn, appid string) (string, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return "", err
	}
	s, err := js.Stream(ctx, "KV_wechat")
	if err != nil {
		return "", err
	}
	m, err := s.GetLastMsgForSubject(ctx, "$KV.wechat.lease."+appid+".access_token")
	if err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(string(m.Data), " ") // what follows marks the attempt
	return name, nil
}
