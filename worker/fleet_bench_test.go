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
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// BenchmarkManyAccounts: 10,000 accounts with three credentials each, on one worker (design §8). It reports the cold
// start (an upstream that takes 20 ms), the warm start, which makes no upstream call, and what a second of idleness
// costs the whole process, the NATS server and the simulated WeChat included.
func BenchmarkManyAccounts(b *testing.B) {
	const n = 10_000
	for b.Loop() {
		var known []wechattest.Account
		var list []Account
		for i := range n {
			id, secret := fmt.Sprintf("wx%016x", i), fmt.Sprint("secret-", i)
			known = append(known, wechattest.Account{AppID: id, Secret: secret})
			list = append(list, Account{AppID: id, Secret: Secret(secret), Tickets: []messages.Kind{messages.JSAPITicket, messages.WXCardTicket}})
		}
		s := newStage(b, wechattest.Config{Accounts: known, Latency: 20 * time.Millisecond})
		configure := func(c *Config) { c.Accounts = list }

		began := time.Now()
		w := s.worker(configure)
		w.awaitFresh(3 * n)
		b.ReportMetric(time.Since(began).Seconds(), "cold-s")
		calls := s.wechat.Calls("", "")
		b.ReportMetric(float64(calls)/(3*n), "calls/credential")
		b.ReportMetric(float64(s.wechat.MaxConcurrent("", "")), "at-once/account")
		w.stop()
		w = nil

		began = time.Now()
		w = s.worker(configure)
		w.awaitFresh(3 * n)
		b.ReportMetric(time.Since(began).Seconds(), "warm-s")
		b.ReportMetric(float64(s.wechat.Calls("", "")-calls), "warm-calls")

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

// awaitFresh waits until n credentials are fresh. It looks four times a second: a look at 30,000 is not for nothing.
func (a *actor) awaitFresh(n int) {
	a.Helper()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Minute); ; <-tick.C {
		fresh, now := 0, time.Now()
		a.scheduler.each(func(it *item) {
			if state(now, a.reader.Held(it.account.AppID, it.kind), it.ledger) == messages.StateFresh {
				fresh++
			}
		})
		switch {
		case fresh == n:
			return
		case now.After(end):
			a.Fatalf("%d of %d are fresh", fresh, n)
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

// BenchmarkFleetCalls: the upstream calls of 10 workers over those of 1 (design §8, row 5), for 100 accounts with three
// credentials each that live for 12 s, in the same 30 s. Half of the accounts have classic tokens.
func BenchmarkFleetCalls(b *testing.B) {
	const n, life = 100, 12 * time.Second
	var known []wechattest.Account
	var list []Account
	for i := range n {
		id := fmt.Sprintf("wx%016x", i)
		known = append(known, wechattest.Account{AppID: id, Secret: secret})
		list = append(list, Account{AppID: id, Secret: secret, Tickets: []messages.Kind{messages.JSAPITicket, messages.WXCardTicket}})
		if i%2 == 0 {
			list[i].TokenAPI = messages.SourceToken
		}
	}
	cfg := wechattest.Config{Accounts: known, TokenLife: life, TicketLife: life, Latency: 20 * time.Millisecond}
	for b.Loop() {
		var calls [2]int
		var fleets sync.WaitGroup
		for i, workers := range []int{1, 10} {
			s := newStage(b, cfg)
			var all []*actor
			for k := range workers {
				all = append(all, s.worker(func(c *Config) {
					c.Name = fmt.Sprint("w", k)
					c.Accounts = list
					c.WeChat.Timeout = 500 * time.Millisecond
				}))
			}
			all[workers-1].awaitFresh(3 * n)
			fleets.Go(func() {
				before := s.wechat.Calls("", "")
				<-time.After(30 * time.Second)
				calls[i] = s.wechat.Calls("", "") - before
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

// BenchmarkReports: 10,000 simultaneous reports of one dead token, to three workers (design §8, row 6). An operation is
// all of them, from the first question to the last answer.
func BenchmarkReports(b *testing.B) {
	const reports = 10_000
	s := newStage(b, wechattest.Config{Latency: 20 * time.Millisecond})
	var w *actor
	for k := range 3 {
		w = s.worker(func(c *Config) { c.Name = fmt.Sprint("w", k); classic(c); c.WeChat.Timeout = 5 * time.Second })
	}
	c := w.await(messages.AccessToken, 0)
	for range 2 {
		if _, err := s.wechat.ForeignRefresh(appid, "token"); err != nil {
			b.Fatal(err)
		}
	}
	before := s.wechat.Calls("", "token")
	began := time.Now()
	for b.Loop() { // with -benchtime=1x: a second refresh within a minute is throttled, and costs no call
		var wg sync.WaitGroup
		for range reports {
			wg.Go(func() {
				if _, err := w.report(messages.RefreshCredentialRequest{ValueSHA256: messages.ValueSHA256(c.Value)}); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(b.N)*reports/time.Since(began).Seconds(), "reports/s")
	b.ReportMetric(float64(s.wechat.Calls("", "token")-before), "refreshes")
}

// BenchmarkResolveFleet: the throughput of code.resolve for 1, 2 and 4 workers on one upstream that takes 20 ms, and 128
// callers for each worker. The metric x is the throughput over that of one worker.
func BenchmarkResolveFleet(b *testing.B) {
	var one float64
	for _, workers := range []int{1, 2, 4} {
		b.Run(fmt.Sprint("workers=", workers), func(b *testing.B) {
			s := newStage(b, wechattest.Config{AnyCode: true, Latency: 20 * time.Millisecond})
			var last *actor
			for k := range workers {
				last = s.worker(func(c *Config) { c.Name = fmt.Sprint("w", k); c.WeChat = wechat.Config{URLs: []string{s.wechat.URL}} })
				last.await(messages.AccessToken, 0)
			}
			bn := &bench{actor: last}
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
