package kv

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

func TestHandleIsAlwaysTheCurrentCredential(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	p := newPublisher(t, srv)
	r := startReader(t, srv, ReaderConfig{})
	h := r.Handle("wx1", messages.AccessToken)
	value, err := h.Value()
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("before the first credential, Value returns %v, want ErrNotFound", err)
	}
	if value != "" {
		t.Errorf("before the first credential, Value returns %q", value)
	}
	for generation := uint64(1); generation <= 3; generation++ {
		want := credential(generation, time.Hour)
		want.Revision = p.publish(want)
		awaitToken(t, r.Reader, generation-1)
		value, err := h.Value()
		if err != nil {
			t.Fatal(err)
		}
		if value != want.Value {
			t.Errorf("Value does not return the value of generation %d", generation)
		}
		got, err := h.Get()
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("Get returns %v, want %v", got, want)
		}
	}
}

// A program with such a mistake would otherwise wait until it is stopped.
func TestCredentialThatCannotExistIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, _, _ := scriptedReader(t, ReaderConfig{AppIDs: []string{"wx1", "wx3"}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		for name, tt := range map[string]struct {
			appid string
			kind  messages.Kind
			text  string
		}{
			"unknown kind":     {"wx1", "nonsense", `"nonsense" is not a kind of credential: use one of [access_token`},
			"no kind":          {"wx1", "", `"" is not a kind of credential`},
			"no AppID":         {"", messages.AccessToken, `"" is not an AppID`},
			"invalid AppID":    {"wx1.access_token", messages.AccessToken, `"wx1.access_token" is not an AppID`},
			"other account":    {"wx2", messages.AccessToken, "does not follow account wx2: add it to ReaderConfig"},
			"a secret as kind": {"wx1", messages.Kind(strings.Repeat("x", 1000)), "is not a kind of credential"},
		} {
			h := r.Handle(tt.appid, tt.kind)
			for method, call := range map[string]func() error{
				"Wait":         func() error { _, err := r.Wait(ctx, tt.appid, tt.kind); return err },
				"WaitNewer":    func() error { _, err := r.WaitNewer(ctx, tt.appid, tt.kind, 1); return err },
				"Get":          func() error { _, err := r.Get(tt.appid, tt.kind); return err },
				"Handle.Value": func() error { _, err := h.Value(); return err },
				"Handle.Get":   func() error { _, err := h.Get(); return err },
			} {
				err := call()
				if !errors.Is(err, ErrNotFound) {
					t.Errorf("%s, %s: %v, want ErrNotFound", name, method, err)
					continue
				}
				if !strings.Contains(err.Error(), tt.text) || len(err.Error()) > 200 {
					t.Errorf("%s, %s: %q, want a short text with %q", name, method, err, tt.text)
				}
			}
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("the methods have waited for %s", waited)
		}
		_, err := r.AccessToken("wx2")
		if text := fmt.Sprint(err); !strings.Contains(text, "does not follow account wx2") {
			t.Errorf("AccessToken returns %s, want that the account is not followed", text)
		}
		_, err = r.Get("wx3", messages.JSAPITicket)
		if text := fmt.Sprint(err); !strings.Contains(text, "no credential was seen yet") {
			t.Errorf("Get of a followed account returns %s, want that no credential was seen yet", text)
		}
	})
}

// At each moment of a credential's life, while the clock runs and after it has stopped, Handle and Get agree to
// the millisecond.
func TestReadsNeverReturnAnExpiredValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, events, stop := scriptedReader(t, ReaderConfig{})
		h := r.Handle("wx1", messages.AccessToken)
		// live reads until after the credential's life, and returns how often the clock of the Reader was
		// sufficient.
		live := func(c messages.Credential) (quick int) {
			for time.Now().Before(c.ExpiresAt.Add(2 * time.Second)) {
				left := time.Until(c.ExpiresAt)
				var wantErr error
				wantValue := c.Value
				if left <= 0 {
					wantErr, wantValue = ErrExpired, ""
				}
				if _, err := r.Get("wx1", messages.AccessToken); !errors.Is(err, wantErr) {
					t.Fatalf("%s before the end, Get returns %v, want %v", left, err, wantErr)
				}
				value, err := h.Value()
				if !errors.Is(err, wantErr) {
					t.Fatalf("%s before the end, the handle returns %v, want %v", left, err, wantErr)
				}
				if value != wantValue {
					t.Fatalf("%s before the end, the handle returns another value", left)
				}
				if r.clock.Load() < c.ExpiresAt.UnixNano() {
					quick++
				}
				sleep(7 * time.Millisecond)
			}
			return quick
		}
		first := credential(1, 5*time.Second)
		events <- recordEvent(t, first)
		synctest.Wait()
		if n := live(first); n < 500 {
			t.Errorf("the clock of the Reader was sufficient only %d times", n)
		}
		second := credential(2, 5*time.Second)
		events <- recordEvent(t, second)
		synctest.Wait()
		stop()
		if n := live(second); n > 0 {
			t.Errorf("after the end of Run, its clock was sufficient %d times", n)
		}
	})
}

// runningClock waits until the clock of a Reader runs.
func runningClock(r *Reader) {
	for r.clock.Load() == never {
		runtime.Gosched()
	}
}

//nolint:paralleltest // it counts the allocations of the whole process
func TestReadingAllocatesNothing(t *testing.T) {
	r, events, _ := scriptedReader(t, ReaderConfig{})
	events <- recordEvent(t, credential(1, time.Hour))
	awaitToken(t, r, 0)
	runningClock(r)
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
			t.Errorf("%s allocates %v times, want 0", name, n)
		}
	}
}

// readBatch is the number of reads in one measurement of BenchmarkRead.
const readBatch = 1_000_000

// The measured loops are functions of their own, so that the three do the same work apart from the read. Within
// the benchmark, the time of the first one doubled when the compiler placed the loop differently.

//go:noinline
func loadPointer(p *atomic.Pointer[messages.Credential]) (failed int) {
	for range readBatch {
		if p.Load() == nil {
			failed++
		}
	}
	return failed
}

//go:noinline
func readHandle(h *Handle) (failed int) {
	for range readBatch {
		if _, err := h.Value(); err != nil {
			failed++
		}
	}
	return failed
}

//go:noinline
func readToken(r *Reader) (failed int) {
	for range readBatch {
		if _, err := r.AccessToken("wx1"); err != nil {
			failed++
		}
	}
	return failed
}

// BenchmarkRead compares the reads of a credential with a bare load of an atomic pointer, in alternating
// batches.
func BenchmarkRead(b *testing.B) {
	r, events, _ := scriptedReader(b, ReaderConfig{})
	c := credential(1, time.Hour)
	events <- recordEvent(b, c)
	awaitToken(b, r, 0)
	runningClock(r)
	var pointer atomic.Pointer[messages.Credential]
	pointer.Store(&c)
	h := r.Handle("wx1", messages.AccessToken)
	failed := 0
	measure := func(total *time.Duration, read func() int) {
		began := time.Now()
		failed += read()
		*total += time.Since(began)
	}
	var bare, handle, token time.Duration
	for b.Loop() {
		measure(&bare, func() int { return loadPointer(&pointer) })
		measure(&handle, func() int { return readHandle(h) })
		measure(&token, func() int { return readToken(r) })
	}
	if failed > 0 {
		b.Fatalf("%d reads failed", failed)
	}
	ns := func(d time.Duration) float64 { return float64(d) / float64(b.N) / readBatch }
	b.ReportMetric(0, "ns/op") // hidden: it would be the time of three million reads
	b.ReportMetric(ns(bare), "bare-ns")
	b.ReportMetric(ns(handle), "handle-ns")
	b.ReportMetric(ns(token), "token-ns")
	b.ReportMetric(ns(handle)/ns(bare), "x")
	b.ReportMetric(ns(token)/ns(bare), "x-token")
}
