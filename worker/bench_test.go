package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// bench has what code.resolve is compared with, in one process and one run: a raw NATS echo, and a direct HTTP
// call of the same simulated WeChat.
type bench struct {
	*testWorker
	http  *http.Client
	url   string
	asked atomic.Uint64
}

func newBench(b *testing.B) *bench {
	b.Helper()
	f := newFixture(b, wechattest.Config{AnyCode: true})
	w := f.worker(nil)
	c := w.await(messages.AccessToken, 0)
	echo := f.nats.Connect()
	if _, err := echo.Subscribe("echo", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		b.Fatal(err)
	}
	if err := echo.Flush(); err != nil {
		b.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 256
	b.Cleanup(transport.CloseIdleConnections)
	url := f.wechat.URL + "/intp/marketcode/tickettocode?access_token=" + c.Value
	bn := &bench{testWorker: w, http: &http.Client{Transport: transport}, url: url}
	// The least that any worker must do: receive the message, call WeChat, send the answer.
	if _, err := echo.Subscribe("relay", func(m *nats.Msg) {
		go func() {
			if err := bn.direct(); err == nil {
				_ = m.Respond(m.Data)
			}
		}()
	}); err != nil {
		b.Fatal(err)
	}
	if err := echo.Flush(); err != nil {
		b.Fatal(err)
	}
	return bn
}

// body is a request with a ticket of its own, because resolutions of one ticket share one call.
func (b *bench) body() []byte {
	return fmt.Appendf(nil, `{"openid":"%s","code_ticket":"ticket-%d"}`, openid, b.asked.Add(1))
}

func (b *bench) echo() error {
	_, err := b.nc.Request("echo", b.body(), patience)
	return err
}

func (b *bench) relay() error {
	_, err := b.nc.Request("relay", b.body(), patience)
	return err
}

func (b *bench) direct() error {
	resp, err := b.http.Post(b.url, "application/json", bytes.NewReader(b.body()))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return checkCode(io.ReadAll(resp.Body))
}

func (b *bench) viaWorker() error {
	m, err := b.nc.Request("wechat.code.resolve", b.body(), patience)
	if err != nil {
		return err
	}
	return checkCode(m.Data, nil)
}

// checkCode makes sure that a benchmark measures successes.
func checkCode(body []byte, err error) error {
	var code struct {
		Errcode int    `json:"errcode"`
		Code    string `json:"code"`
	}
	if err == nil {
		err = json.Unmarshal(body, &code)
	}
	if err == nil && (code.Errcode != 0 || code.Code == "") {
		err = fmt.Errorf("not a code: %s", body)
	}
	return err
}

// BenchmarkResolveOneAtATime measures code.resolve, one request at a time (docs/architecture.md#numbers-2). The
// metric x is its time over the time of NATS echo + direct HTTP.
func BenchmarkResolveOneAtATime(tb *testing.B) {
	b := newBench(tb)
	var spent [4]time.Duration
	ways := [4]func() error{b.echo, b.direct, b.viaWorker, b.relay}
	round := func() {
		for i, way := range ways { // alternating, so that noise meets all of them alike
			began := time.Now()
			if err := way(); err != nil {
				tb.Fatal(err)
			}
			spent[i] += time.Since(began)
		}
	}
	for range 500 {
		round()
	}
	spent = [4]time.Duration{}
	tb.ReportAllocs()
	for tb.Loop() {
		round()
	}
	us := func(i int) float64 { return float64(spent[i].Microseconds()) / float64(tb.N) }
	tb.ReportMetric(us(0), "echo-µs")
	tb.ReportMetric(us(1), "direct-µs")
	tb.ReportMetric(us(2), "resolve-µs")
	tb.ReportMetric(us(3), "relay-µs")
	tb.ReportMetric(us(2)/(us(0)+us(1)), "x")
	tb.ReportMetric(us(2)/us(3), "x-relay")
}

// BenchmarkResolveSaturated measures code.resolve with many requests at once (docs/architecture.md#numbers-3).
// The metric x is its throughput over the throughput of direct HTTP calls from the same cores at the same
// concurrency.
func BenchmarkResolveSaturated(tb *testing.B) {
	const concurrency, batch = 64, 4096
	b := newBench(tb)
	run := func(way func() error) time.Duration {
		var left atomic.Int64
		left.Store(batch)
		var wg sync.WaitGroup
		began := time.Now()
		for range concurrency {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					if err := way(); err != nil {
						tb.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return time.Since(began)
	}
	run(b.direct)
	run(b.viaWorker)
	var echo, relay, direct, resolve time.Duration
	for tb.Loop() {
		echo += run(b.echo)
		relay += run(b.relay)
		direct += run(b.direct)
		resolve += run(b.viaWorker)
	}
	perSecond := func(d time.Duration) float64 { return float64(tb.N) * batch / d.Seconds() }
	tb.ReportMetric(perSecond(echo), "echo/s")
	tb.ReportMetric(perSecond(direct), "direct/s")
	tb.ReportMetric(perSecond(resolve), "resolve/s")
	tb.ReportMetric(perSecond(relay), "relay/s")
	tb.ReportMetric(perSecond(resolve)/perSecond(direct), "x")
	tb.ReportMetric(perSecond(resolve)/perSecond(relay), "x-relay")
}

// BenchmarkResolver measures the worker's own part of a resolution, without NATS: for allocations and profiles.
func BenchmarkResolver(tb *testing.B) {
	b := newBench(tb)
	a := b.accounts.get(appid)
	tb.ReportAllocs()
	for tb.Loop() {
		ticket := fmt.Sprint("t", b.asked.Add(1))
		if _, err := b.service.resolver.resolve(context.Background(), a, openid, ticket); err != nil {
			tb.Fatal(err)
		}
	}
}
