//go:build unix

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

// BenchmarkTakeover kills or freezes a worker during its call of WeChat, and measures the time until another
// worker has published. All of them are processes of their own. The metric x is that time divided by the TTL of a
// lease, which is 3 s here. The benchmark fails if the consumer has no valid value at any time. See
// docs/performance.md.
func BenchmarkTakeover(b *testing.B) {
	dir := binaries(b)
	for _, how := range []struct {
		name string
		hit  func(*process) error
	}{
		{"kill-9", func(p *process) error { return p.end(syscall.SIGKILL) }},
		{"SIGSTOP", func(p *process) error { p.freeze(); return nil }},
	} {
		b.Run(how.name, func(b *testing.B) {
			const lease = 3 * time.Second // for a call timeout of 500 ms
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

// takeover starts a fleet, hits the worker that holds the lease while its call hangs, and returns how long it
// took until another worker had published.
func takeover(b *testing.B, bins string, hit func(*process) error) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	const appid, secret = "wx0", "0123456789abcdef0123456789abcdef"
	wechat := wechattest.Start(b, wechattest.Config{
		Accounts:  []wechattest.Account{{AppID: appid, Secret: secret}},
		TokenLife: 18 * time.Second, Latency: wechatLatency,
	})
	url := startNATS(b, bins)
	workers := map[string]*process{}
	for range 3 {
		p := &process{file: filepath.Join(bins, "wxkeeper"), args: []string{"run"}, env: []string{
			"NATS_URL=" + url, "WECHAT_API_URL=" + wechat.URL, "WECHAT_APPID=" + appid, "WECHAT_SECRET=" + secret,
			"WECHAT_TOKEN_API=token", "WECHAT_TICKETS=none", "WECHAT_HTTP_TIMEOUT=500ms",
			"WXKEEPER_HTTP_ADDR=none", "WXKEEPER_LOG_FORMAT=json",
		}}
		p.name = fmt.Sprint("worker", len(workers)+1)
		startProcess(b, p)
		host, err := os.Hostname()
		if err != nil {
			b.Fatal(err)
		}
		workers[fmt.Sprintf("%s-%d", host, p.current.cmd.Process.Pid)] = p
	}
	nc, err := nats.Connect(url, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(100*time.Millisecond))
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
	mustBeValid := func() {
		c, err := reader.Get(appid, messages.AccessToken)
		if err != nil {
			b.Fatalf("the consumer has no value: %v", err)
		}
		if v := wechat.Validity(appid, "access_token", c.Value); v != wechattest.Valid {
			b.Fatalf("the consumer has a value that is %s", v)
		}
	}
	for wechat.Calls(appid, "token") == before {
		mustBeValid()
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.Fatal("no worker renews the token")
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
		mustBeValid()
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.Fatal("no worker takes over")
		}
	}
}

// binaries builds the programs that run as processes.
func binaries(b *testing.B) (dir string) {
	b.Helper()
	dir = b.TempDir()
	for name, pkg := range map[string]string{
		"wxkeeper": "../../cmd/wxkeeper", "nats-server": "github.com/nats-io/nats-server/v2",
	} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg).CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
	}
	return dir
}

// startProcess starts a process that is killed at the end of the benchmark.
func startProcess(b *testing.B, p *process) {
	b.Helper()
	p.dir = b.TempDir()
	if err := p.start(func(violation string) { b.Error(violation) }); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(kill(p))
}

// startNATS starts a server with JetStream and returns its URL.
func startNATS(b *testing.B, bins string) string {
	b.Helper()
	ports, err := freePorts(1)
	if err != nil {
		b.Fatal(err)
	}
	startProcess(b, &process{
		name: "nats", file: filepath.Join(bins, "nats-server"),
		args: []string{"-a", "127.0.0.1", "-p", fmt.Sprint(ports[0]), "-js", "-sd", b.TempDir()},
	})
	return fmt.Sprintf("nats://127.0.0.1:%d", ports[0])
}

// leaseHolder returns the name of the worker that is stored in the lease.
func leaseHolder(ctx context.Context, nc *nats.Conn, appid string) (string, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return "", err
	}
	s, err := js.Stream(ctx, recordStream)
	if err != nil {
		return "", err
	}
	m, err := s.GetLastMsgForSubject(ctx, "$KV.wechat.lease."+appid+".access_token")
	if err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(string(m.Data), " ") // after the name follows the attempt
	return name, nil
}
