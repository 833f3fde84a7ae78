package kv

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

func TestChangesTellWhatIsThereAndThenWhatTakesItsPlace(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s := newStore(t, srv, "w")
	publish(t, s, credential(1, time.Hour))
	r := startReader(t, srv, ReaderConfig{})
	generation := uint64(1)
	for c := range r.Changes(testContext(t)) {
		if c.Generation != generation || c.Value == "" {
			t.Fatalf("%v comes, want generation %d", c, generation)
		}
		if generation++; generation > 4 {
			break
		}
		publish(t, s, credential(generation, time.Hour))
	}
	if generation != 5 {
		t.Errorf("the changes end with generation %d: %v", generation-1, testContext(t).Err())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.listeners) != 0 {
		t.Errorf("who has left is still told: %v", r.listeners)
	}
}

// The loop hangs in its first change while a thousand others come.
func TestSlowLoopOverChangesDelaysNobodyAndMissesNoLatestValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, events, _ := scriptedReader(t, ReaderConfig{})
		begun, goOn := make(chan struct{}), make(chan struct{})
		seen := map[string][]uint64{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for c := range r.Changes(ctx) {
				seen[c.AppID] = append(seen[c.AppID], c.Generation)
				if c.Generation == 1 {
					close(begun)
					<-goOn
				}
			}
		}()
		quick := uint64(0)
		go func() {
			for c := range r.Changes(ctx, "wx1") {
				quick = c.Generation
			}
		}()
		events <- put(t, credential(1, time.Hour))
		<-begun
		for generation := uint64(2); generation <= 1000; generation++ {
			events <- put(t, credential(generation, time.Hour)) // blocks where the Reader does
			if generation%100 == 0 {
				other := credential(generation, time.Hour)
				other.AppID = "wx2"
				events <- put(t, other)
			}
		}
		synctest.Wait()
		if c, err := r.Get("wx1", messages.AccessToken); err != nil || c.Generation != 1000 || quick != 1000 {
			t.Errorf("while one loop hangs, Get has generation %d, %v, and another loop %d; want 1000", c.Generation, err, quick)
		}
		close(goOn)
		synctest.Wait()
		cancel()
		<-done
		if got := fmt.Sprint(seen); got != "map[wx1:[1 1000] wx2:[1000]]" {
			t.Errorf("the slow loop has seen %s, want the newest of each alone", got)
		}
	})
}

func TestChangesAreThoseOfTheNamedAccounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, events, _ := scriptedReader(t, ReaderConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		var seen []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			for c := range r.Changes(ctx, "wx1", "wx3") {
				seen = append(seen, c.AppID)
			}
		}()
		for i := range 4 {
			c := credential(1, time.Hour)
			c.AppID = fmt.Sprint("wx", i)
			events <- put(t, c)
			synctest.Wait()
		}
		cancel()
		<-done
		if fmt.Sprint(seen) != "[wx1 wx3]" {
			t.Errorf("changes of %v, want those of wx1 and wx3", seen)
		}
	})
}

// A ticket is looked at often, and mostly comes back the same; after a lost connection all records are told again.
func TestWhatIsStillTheSameIsNoChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, events, _ := scriptedReader(t, ReaderConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		count := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range r.Changes(ctx) {
				count++
			}
		}()
		c := credential(1, time.Hour)
		events <- put(t, c)
		synctest.Wait()
		c.RefreshAt = c.RefreshAt.Add(time.Minute)
		events <- put(t, c)
		events <- bucket.Event{Reset: true}
		events <- put(t, c)
		events <- bucket.Event{Ready: true}
		synctest.Wait()
		if count != 1 {
			t.Errorf("%d changes, want 1", count)
		}
		c.ExpiresAt = c.ExpiresAt.Add(time.Minute)
		events <- put(t, c)
		synctest.Wait()
		cancel()
		<-done
		if count != 2 {
			t.Errorf("%d changes, want 2: a longer life is one", count)
		}
	})
}

// The ledger is lost, and the generations begin again while the old value lives: what comes after it is told when it ends.
func TestWhatTakesThePlaceOfAnEndedValueIsAChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, events, _ := scriptedReader(t, ReaderConfig{})
		h := r.Handle("wx1", messages.AccessToken)
		ctx, cancel := context.WithCancel(t.Context())
		told := make(chan uint64, 10)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for c := range r.Changes(ctx) {
				told <- c.Generation
			}
		}()
		events <- put(t, credential(9, time.Minute))
		events <- put(t, credential(1, time.Hour))
		synctest.Wait()
		if g := <-told; g != 9 || len(told) > 0 {
			t.Errorf("at first generation %d is told, and %d more; want 9 alone", g, len(told))
		}
		<-time.After(2 * time.Minute)
		synctest.Wait()
		if len(told) != 1 || h.slot.quick.Load().value != credential(1, 1).Value {
			t.Errorf("after the end of generation 9 there are %d changes, want 1, and the handle has %s", len(told), h.slot.quick.Load().value)
		}
		cancel()
		<-done
	})
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	r, _, _ := scriptedReader(t, ReaderConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Wait(ctx, "wx1", messages.AccessToken); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	for range r.Changes(ctx) {
		t.Error("a change after the end")
	}
}
