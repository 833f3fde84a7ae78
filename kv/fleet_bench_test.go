package kv

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

// BenchmarkThousandReaders compares the time from the publication of a credential until the last of 1,000
// Readers holds it with the time from a raw put until the last of 1,000 stock watchers has received it. The two
// alternate. Each of 1,000 connections has one Reader and one watcher.
func BenchmarkThousandReaders(b *testing.B) {
	const readers = 1000
	srv := natstest.Start(b, func(o *server.Options) { o.JetStreamLimits.DefaultMaxConsumers = 2 * readers })
	p := newPublisher(b, srv)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	js, err := jetstream.New(srv.Connect())
	if err != nil {
		b.Fatal(err)
	}
	raw, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "raw", Storage: jetstream.FileStorage})
	if err != nil {
		b.Fatal(err)
	}
	var seen atomic.Int64
	all := make(chan struct{}, 1)
	see := func() {
		if seen.Add(1) == readers {
			all <- struct{}{}
		}
	}
	await := func(what string) {
		select {
		case <-all:
			seen.Store(0)
		case <-time.After(patience):
			b.Fatalf("%d of %d %s", seen.Load(), readers, what)
		}
	}
	conns := make([]*nats.Conn, readers)
	for i := range conns {
		conns[i] = srv.Connect()
		each, err := jetstream.New(conns[i])
		if err != nil {
			b.Fatal(err)
		}
		bucket, err := each.KeyValue(ctx, "raw")
		if err != nil {
			b.Fatal(err)
		}
		w, err := bucket.Watch(ctx, "wx1.*", jetstream.UpdatesOnly())
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			for range w.Updates() {
				see()
			}
		}()
	}
	var counting atomic.Bool
	for i := range conns {
		cfg := ReaderConfig{AppIDs: []string{"wx1"}, Feed: FeedWatch, OnChange: func(c Change) {
			if c.Ready || (counting.Load() && c.Record != nil) {
				see()
			}
		}}
		r, err := NewReader(conns[i], cfg)
		if err != nil {
			b.Fatal(err)
		}
		runReader(b, r)
	}
	await("Readers are ready")
	counting.Store(true)
	body, err := json.Marshal(credential(1, time.Hour))
	if err != nil {
		b.Fatal(err)
	}
	var puts, publications time.Duration
	generation := uint64(0)
	for b.Loop() {
		began := time.Now()
		if _, err := raw.Put(ctx, "wx1.access_token", body); err != nil {
			b.Fatal(err)
		}
		await("watchers have received the put")
		puts += time.Since(began)

		generation++
		l, err := p.Acquire(ctx, "wx1", messages.AccessToken, 15*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		began = time.Now()
		if _, err := l.Publish(ctx, credential(generation, time.Hour)); err != nil {
			b.Fatal(err)
		}
		await("Readers hold the credential")
		publications += time.Since(began)
		l.Release(ctx)
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(b.N) }
	b.ReportMetric(ms(puts), "raw-ms")
	b.ReportMetric(ms(publications), "readers-ms")
	b.ReportMetric(ms(publications)/ms(puts), "x")
}

// BenchmarkReaderMemory compares the memory that a Reader of 30,000 credentials takes with the size of their
// JSON.
func BenchmarkReaderMemory(b *testing.B) {
	const accounts = 10_000
	var held, json float64
	for b.Loop() {
		r := idleReader(b, ReaderConfig{})
		before := heap()
		size := 0
		for i := range accounts {
			for _, kind := range messages.Kinds {
				c := credential(1, time.Hour)
				c.AppID, c.Kind, c.Value = fmt.Sprintf("wx%016d", i), kind, fmt.Sprintf("%0157d", i)
				e := recordEvent(b, c)
				size += len(e.Value)
				r.handle(e)
			}
		}
		held += heap() - before
		json += float64(size)
		if h := r.Health(); h.Valid != accounts*len(messages.Kinds) {
			b.Fatalf("%d credentials are valid", h.Valid)
		}
	}
	const mib = 1 << 20
	b.ReportMetric(held/float64(b.N)/mib, "MiB")
	b.ReportMetric(held/float64(b.N)/accounts/float64(len(messages.Kinds)), "B/credential")
	b.ReportMetric(held/json, "x-JSON")
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
