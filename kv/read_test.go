package kv

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

func TestHandleIsAlwaysTheCurrentCredential(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s := newStore(t, srv, "w")
	r := startReader(t, srv, ReaderConfig{})
	h := r.Handle("wx1", messages.AccessToken)
	if v, err := h.Value(); !errors.Is(err, store.ErrNotFound) || v != "" {
		t.Errorf("before there is one: %v, want ErrNotFound", err)
	}
	for generation := uint64(1); generation <= 3; generation++ {
		c := credential(generation, time.Hour)
		publish(t, s, c)
		if _, err := r.WaitNewer(testContext(t), "wx1", messages.AccessToken, generation-1); err != nil {
			t.Fatal(err)
		}
		if v, err := h.Value(); err != nil || v != c.Value {
			t.Errorf("generation %d: another value, %v", generation, err)
		}
		if got, err := h.Get(); err != nil || got.Generation != generation {
			t.Errorf("generation %d, %v; want %d", got.Generation, err, generation)
		}
	}
	for _, nonsense := range []*Handle{r.Handle("wx1", "nonsense"), r.Handle("", messages.AccessToken), r.Handle("wx2", messages.AccessToken)} {
		if _, err := nonsense.Value(); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", messages.Key(nonsense.appid, nonsense.kind), err)
		}
	}
}

// At each moment of a life, while the clock is turned and after that, Handle and Get agree to the millisecond.
func TestReadsNeverReturnAnExpiredValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, events, stop := scriptedReader(t, ReaderConfig{})
		h := r.Handle("wx1", messages.AccessToken)
		quick := 0
		live := func(c messages.Credential) {
			for time.Now().Before(c.ExpiresAt.Add(2 * time.Second)) {
				var want error
				if !time.Now().Before(c.ExpiresAt) {
					want = ErrExpired
				}
				_, get := r.Get("wx1", messages.AccessToken)
				value, handle := h.Value()
				if !errors.Is(get, want) || !errors.Is(handle, want) || (value == c.Value) != (want == nil) {
					t.Fatalf("%s before its end: Get says %v, Handle %v; want %v", time.Until(c.ExpiresAt), get, handle, want)
				}
				if r.clock.Load() < c.ExpiresAt.UnixNano() {
					quick++
				}
				<-time.After(7 * time.Millisecond)
			}
		}
		first := credential(1, 5*time.Second)
		events <- put(t, first)
		synctest.Wait()
		live(first)
		if quick < 500 {
			t.Errorf("the clock of the Reader answered %d times only", quick)
		}
		second := credential(2, 5*time.Second)
		events <- put(t, second)
		synctest.Wait()
		stop()
		quick = 0
		live(second)
		if quick > 0 {
			t.Errorf("after the end of Run its clock answered %d times", quick)
		}
	})
}

//nolint:paralleltest // it counts the allocations of the whole process
func TestReadingAllocatesNothing(t *testing.T) {
	r, _, _ := scriptedReader(t, ReaderConfig{})
	r.Apply(credential(1, time.Hour))
	for r.clock.Load() == never {
		runtime.Gosched()
	}
	h := r.Handle("wx1", messages.AccessToken)
	for name, read := range map[string]func() error{
		"AccessToken":  func() error { _, err := r.AccessToken("wx1"); return err },
		"Get":          func() error { _, err := r.Get("wx1", messages.AccessToken); return err },
		"Handle.Value": func() error { _, err := h.Value(); return err },
		"Handle.Get":   func() error { _, err := h.Get(); return err },
	} {
		if n := testing.AllocsPerRun(1000, func() {
			if err := read(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations a read, want none", name, n)
		}
	}
}

// BenchmarkRead compares the reads of a credential with a bare load of an atomic pointer, in turns of a million.
func BenchmarkRead(b *testing.B) {
	const batch = 1_000_000
	r, _, _ := scriptedReader(b, ReaderConfig{})
	c := credential(1, time.Hour)
	r.Apply(c)
	for r.clock.Load() == never {
		runtime.Gosched()
	}
	var pointer atomic.Pointer[messages.Credential]
	pointer.Store(&c)
	h := r.Handle("wx1", messages.AccessToken)
	failed := 0
	var bare, handle, token time.Duration
	for b.Loop() {
		began := time.Now()
		for range batch {
			if pointer.Load() == nil {
				failed++
			}
		}
		bare += time.Since(began)
		began = time.Now()
		for range batch {
			if _, err := h.Value(); err != nil {
				failed++
			}
		}
		handle += time.Since(began)
		began = time.Now()
		for range batch {
			if _, err := r.AccessToken("wx1"); err != nil {
				failed++
			}
		}
		token += time.Since(began)
	}
	if failed > 0 {
		b.Fatalf("%d reads failed", failed)
	}
	ns := func(d time.Duration) float64 { return float64(d) / float64(b.N) / batch }
	b.ReportMetric(0, "ns/op") // of three million reads: it says nothing
	b.ReportMetric(ns(bare), "bare-ns")
	b.ReportMetric(ns(handle), "handle-ns")
	b.ReportMetric(ns(token), "token-ns")
	b.ReportMetric(ns(handle)/ns(bare), "x")
	b.ReportMetric(ns(token)/ns(bare), "x-token")
}
