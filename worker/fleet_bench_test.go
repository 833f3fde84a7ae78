package worker

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
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
			list = append(list, Account{AppID: id, Secret: secret, Tickets: []kv.Kind{kv.JSAPITicket, kv.WXCardTicket}})
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
