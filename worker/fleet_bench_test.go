//go:build unix

package worker

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

var bothTickets = []messages.Kind{messages.JSAPITicket, messages.WXCardTicket}

// BenchmarkManyAccounts measures one worker with 10,000 accounts of three credentials each
// (docs/architecture.md#numbers-7). It reports the cold start (with a WeChat that takes 20 ms), the warm start,
// which makes no call of WeChat, and the processor time of an idle second of the whole process, which includes
// the NATS server and the simulated WeChat.
func BenchmarkManyAccounts(b *testing.B) {
	const n = 10_000
	for b.Loop() {
		var known []wechattest.Account
		var list []Account
		for i := range n {
			id := fmt.Sprintf("wx%016x", i)
			known = append(known, wechattest.Account{AppID: id, Secret: secret})
			list = append(list, Account{AppID: id, Secret: secret, Tickets: bothTickets})
		}
		f := newFixture(b, wechattest.Config{Accounts: known, Latency: 20 * time.Millisecond})
		configure := func(c *Config) { c.Accounts = list }

		began := time.Now()
		w := f.worker(configure)
		w.awaitFresh(3 * n)
		b.ReportMetric(time.Since(began).Seconds(), "cold-s")
		calls := f.wechat.Calls("", "")
		b.ReportMetric(float64(calls)/(3*n), "calls/credential")
		b.ReportMetric(float64(f.wechat.MaxConcurrent("", "")), "at-once/account")
		w.stop()
		w = nil

		began = time.Now()
		w = f.worker(configure)
		w.awaitFresh(3 * n)
		b.ReportMetric(time.Since(began).Seconds(), "warm-s")
		b.ReportMetric(float64(f.wechat.Calls("", "")-calls), "warm-calls")

		runtime.GC()
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		b.ReportMetric(float64(mem.HeapAlloc)/(1<<20), "heap-MiB")
		spent, at := cpu(b), time.Now()
		<-time.After(10 * time.Second)
		b.ReportMetric(100*float64(cpu(b)-spent)/float64(time.Since(at)), "idle-%core")
		w.stop()
	}
}

// awaitFresh waits until n credentials are fresh. It checks them four times a second, because checking 30,000
// takes time.
func (w *testWorker) awaitFresh(n int) {
	w.Helper()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Minute); ; <-tick.C {
		fresh, now := 0, time.Now()
		for _, c := range w.scheduler.snapshot("") {
			ledger := w.memory.ledger(messages.Key(c.account.AppID, c.kind))
			if policy.StateOf(now, w.memory.held(c.account.AppID, c.kind), ledger) == messages.StateFresh {
				fresh++
			}
		}
		switch {
		case fresh == n:
			return
		case now.After(end):
			w.Fatalf("%d of %d are fresh", fresh, n)
		}
	}
}

// cpu is the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFleetCalls measures the calls of WeChat of 10 workers over the calls of one worker
// (docs/architecture.md#numbers-5), for 100 accounts with three credentials each that live for 12 s, in the same
// 30 s. Half of the accounts have classic tokens.
func BenchmarkFleetCalls(b *testing.B) {
	const n, life = 100, 12 * time.Second
	var known []wechattest.Account
	var list []Account
	for i := range n {
		id := fmt.Sprintf("wx%016x", i)
		known = append(known, wechattest.Account{AppID: id, Secret: secret})
		list = append(list, Account{AppID: id, Secret: secret, Tickets: bothTickets})
		if i%2 == 0 {
			list[i].TokenAPI = messages.SourceToken
		}
	}
	cfg := wechattest.Config{Accounts: known, TokenLife: life, TicketLife: life, Latency: 20 * time.Millisecond}
	for b.Loop() {
		var calls [2]int
		var fleets sync.WaitGroup
		for i, workers := range []int{1, 10} {
			f := newFixture(b, cfg)
			var all []*testWorker
			for k := range workers {
				all = append(all, f.worker(func(c *Config) {
					c.Name = fmt.Sprint("w", k)
					c.Accounts = list
					c.WeChat.Timeout = 500 * time.Millisecond
				}))
			}
			all[workers-1].awaitFresh(3 * n)
			fleets.Go(func() {
				before := f.wechat.Calls("", "")
				<-time.After(30 * time.Second)
				calls[i] = f.wechat.Calls("", "") - before
				for _, w := range all {
					w.stop()
				}
			})
		}
		fleets.Wait()
		b.ReportMetric(float64(calls[0]), "calls-of-1")
		b.ReportMetric(float64(calls[1]), "calls-of-10")
		b.ReportMetric(float64(calls[1])/float64(calls[0]), "x")
	}
}

// BenchmarkReports measures 10,000 simultaneous reports of one dead token, to three workers
// (docs/architecture.md#numbers-6). One operation is all of them, from the first report to the last reply.
func BenchmarkReports(b *testing.B) {
	const reports = 10_000
	f := newFixture(b, wechattest.Config{Latency: 20 * time.Millisecond})
	var w *testWorker
	for k := range 3 {
		w = f.worker(func(c *Config) { c.Name = fmt.Sprint("w", k); classic(c) })
	}
	c := w.await(messages.AccessToken, 0)
	f.killToken()
	before := f.wechat.Calls("", "token")
	began := time.Now()
	for b.Loop() { // with -benchtime=1x: a second refresh within a minute is throttled, and costs no call
		var wg sync.WaitGroup
		for range reports {
			wg.Go(func() {
				report := messages.RefreshCredentialRequest{ValueSHA256: messages.ValueSHA256(c.Value)}
				if _, err := w.report(report); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(b.N)*reports/time.Since(began).Seconds(), "reports/s")
	b.ReportMetric(float64(f.wechat.Calls("", "token")-before), "refreshes")
}

// BenchmarkResolveFleet measures the throughput of code.resolve of 1, 2 and 4 workers with one WeChat that takes
// 20 ms, and 128 callers for each worker. The metric x is the throughput over the throughput of one worker.
func BenchmarkResolveFleet(b *testing.B) {
	var one float64
	for _, workers := range []int{1, 2, 4} {
		b.Run(fmt.Sprint("workers=", workers), func(b *testing.B) {
			f := newFixture(b, wechattest.Config{AnyCode: true, Latency: 20 * time.Millisecond})
			var last *testWorker
			for k := range workers {
				last = f.worker(func(c *Config) {
					c.Name, c.WeChat = fmt.Sprint("w", k), wechat.Config{URLs: []string{f.wechat.URL}}
				})
				last.await(messages.AccessToken, 0)
			}
			bn := &bench{testWorker: last}
			const batch = 4096
			var spent time.Duration
			for b.Loop() {
				var left atomic.Int64
				left.Store(batch)
				var callers sync.WaitGroup
				began := time.Now()
				for range 128 * workers {
					callers.Go(func() {
						for left.Add(-1) >= 0 {
							if err := bn.viaWorker(); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				callers.Wait()
				spent += time.Since(began)
			}
			rate := float64(b.N) * batch / spent.Seconds()
			if workers == 1 {
				one = rate
			}
			b.ReportMetric(rate, "resolve/s")
			b.ReportMetric(rate/one, "x")
		})
	}
}
