package kv

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

// loop ranges over changes in a goroutine, and calls body with each. stop ends the loop.
func loop(t *testing.T, r *Reader, body func(messages.Credential), appids ...string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c := range r.Changes(ctx, appids...) {
			body(c)
		}
	}()
	return func() { cancel(); <-done }
}

func TestChangesYieldWhatIsThereAndThenWhatReplacesIt(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	p := newPublisher(t, srv)
	want := credential(1, time.Hour)
	want.Revision = p.publish(want)
	r := startReader(t, srv, ReaderConfig{})
	for c := range r.Changes(testContext(t)) {
		if c != want {
			t.Fatalf("%v is yielded, want %v", c, want)
		}
		if want.Generation == 4 {
			break
		}
		want = credential(want.Generation+1, time.Hour)
		want.Revision = p.publish(want)
	}
	if want.Generation != 4 {
		t.Errorf("the loop ends at generation %d, want 4", want.Generation)
	}
	r.Reader.mu.Lock()
	defer r.Reader.mu.Unlock()
	if len(r.listeners) != 0 {
		t.Errorf("the loop that was left is still a listener: %v", r.listeners)
	}
}

// The body of the loop hangs in the first change while a thousand others arrive.
func TestSlowLoopOverChangesDelaysNobodyAndMissesNoLatestValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, events, _ := scriptedReader(t, ReaderConfig{})
		hangs, goOn := make(chan struct{}), make(chan struct{})
		slow := map[string][]uint64{}
		stopSlow := loop(t, r, func(c messages.Credential) {
			slow[c.AppID] = append(slow[c.AppID], c.Generation)
			if c.Generation == 1 {
				close(hangs)
				<-goOn
			}
		})
		quick := uint64(0)
		stopQuick := loop(t, r, func(c messages.Credential) { quick = c.Generation }, "wx1")
		events <- recordEvent(t, credential(1, time.Hour))
		<-hangs
		for generation := uint64(2); generation <= 1000; generation++ {
			events <- recordEvent(t, credential(generation, time.Hour)) // it would block if the Reader did
			if generation%100 == 0 {
				other := credential(generation, time.Hour)
				other.AppID = "wx2"
				events <- recordEvent(t, other)
			}
		}
		synctest.Wait()
		checkGeneration(t, r, "while one loop hangs", 1000)
		if quick != 1000 {
			t.Errorf("while one loop hangs, the other loop has generation %d, want 1000", quick)
		}
		close(goOn)
		synctest.Wait()
		stopSlow()
		stopQuick()
		want := map[string][]uint64{"wx1": {1, 1000}, "wx2": {1000}}
		if diff := cmp.Diff(want, slow); diff != "" {
			t.Errorf("the slow loop: %s", diff)
		}
	})
}

func TestChangesAreThoseOfTheNamedAccounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, events, _ := scriptedReader(t, ReaderConfig{})
		var seen []string
		stop := loop(t, r, func(c messages.Credential) { seen = append(seen, c.AppID) }, "wx1", "not.an.AppID", "wx3")
		for i := range 4 {
			c := credential(1, time.Hour)
			c.AppID = fmt.Sprint("wx", i)
			events <- recordEvent(t, c)
			synctest.Wait()
		}
		stop()
		if diff := cmp.Diff([]string{"wx1", "wx3"}, seen); diff != "" {
			t.Error(diff)
		}
	})
}

// A program with such a mistake would otherwise wait until it is stopped.
func TestLoopOverChangesOfAccountsThatCannotHaveAnyEndsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, _, _ := scriptedReader(t, ReaderConfig{AppIDs: []string{"wx1"}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		for c := range r.Changes(ctx, "not.an.AppID", "", "wx2") {
			t.Errorf("%v is yielded", c)
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("the loop ends after %s, want at once", waited)
		}
	})
}

// A ticket is checked often, and WeChat mostly repeats it. After a lost connection all records are delivered
// again.
func TestRecordOfTheSameCredentialIsNoChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, events, _ := scriptedReader(t, ReaderConfig{})
		count := 0
		stop := loop(t, r, func(messages.Credential) { count++ })
		c := credential(1, time.Hour)
		events <- recordEvent(t, c)
		synctest.Wait()
		c.RefreshAt = c.RefreshAt.Add(time.Minute)
		events <- recordEvent(t, c)
		events <- bucket.Event{Reset: true}
		events <- recordEvent(t, c)
		events <- bucket.Event{Ready: true}
		synctest.Wait()
		if count != 1 {
			t.Errorf("%d changes, want 1", count)
		}
		c.ExpiresAt = c.ExpiresAt.Add(time.Minute)
		events <- recordEvent(t, c)
		synctest.Wait()
		stop()
		if count != 2 {
			t.Errorf("with a longer life, %d changes, want 2", count)
		}
	})
}

// The ledger is lost, and the generations begin again while the old value is valid. The new value is a change
// when the old one expires.
func TestWhatReplacesAnExpiredValueIsAChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, events, _ := scriptedReader(t, ReaderConfig{})
		h := r.Handle("wx1", messages.AccessToken)
		yielded := make(chan uint64, 10)
		stop := loop(t, r, func(c messages.Credential) { yielded <- c.Generation })
		expect := func(when string, want uint64) {
			t.Helper()
			synctest.Wait()
			if n := len(yielded); n != 1 {
				t.Fatalf("%s: %d changes, want 1", when, n)
			}
			if got := <-yielded; got != want {
				t.Errorf("%s: generation %d, want %d", when, got, want)
			}
		}
		events <- recordEvent(t, credential(9, time.Minute))
		events <- recordEvent(t, credential(1, time.Hour))
		expect("while generation 9 is valid", 9)
		sleep(2 * time.Minute)
		expect("when generation 9 has expired", 1)
		if h.slot.Quick().Value != credential(1, 1).Value {
			t.Error("the handle does not have the value of generation 1")
		}
		stop()
	})
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	r, _, _ := scriptedReader(t, ReaderConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Wait(ctx, "wx1", messages.AccessToken); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait returns %v, want context.Canceled", err)
	}
	for c := range r.Changes(ctx) {
		t.Errorf("%v is yielded after the end", c)
	}
}
