package kv

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
)

func TestTransportStaysWithinTheDeadlineAndThenReturnsWeChatsAnswer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ deadline, patience, want time.Duration }{
		"a short deadline":          {time.Second, 0, 900 * time.Millisecond},
		"a long deadline":           {9 * time.Second, time.Second, 8100 * time.Millisecond},
		"no deadline":               {0, 0, 5 * time.Second},
		"no deadline, but patience": {0, 2 * time.Second, 2 * time.Second},
		"a second is enough":        {10500 * time.Millisecond, 0, 9500 * time.Millisecond},
		"longer than a report":      {time.Minute, 0, messages.DefaultTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newTransportFixture(t, refreshed) // but the new token does not arrive
				f.publishDead(1)
				f.Patience = c.patience
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if c.deadline > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
				}
				defer cancel()
				began := time.Now()
				f.expect(ctx, nil, deadAnswer)
				checkWaited(t, began, c.want)
				sleep(messages.DefaultTimeout) // the report ends too; otherwise the bubble fails
			})
		})
	}
}

func TestTransportLeavesAnHTTPClientTheTimeForWeChatsAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransportFixture(t, refreshed) // but the new token does not arrive
		f.publishDead(1)
		client := &http.Client{Transport: f.Transport, Timeout: 20 * time.Second / 9}
		began := time.Now()
		resp, err := client.Get(apiURL)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		f.check(string(b), err, deadAnswer)
		if waited := time.Since(began).Round(time.Millisecond); waited != 2*time.Second {
			t.Errorf("the request waited for %s, want 2s", waited)
		}
		sleep(messages.DefaultTimeout) // the report ends too
	})
}

func TestCancelledRequestOfATransportHarmsNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f *transportFixture
		f = newTransportFixture(t, func(ctx context.Context) (messages.Refreshed, error) {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return messages.Refreshed{}, ctx.Err()
			}
			f.publish(2)
			return refreshed(ctx)
		})
		f.publishDead(1)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			began := time.Now()
			_, _ = f.post(ctx, nil) // the first request that is refused makes the report
			checkWaited(t, began, 500*time.Millisecond)
		})
		synctest.Wait()
		wg.Go(func() { f.expect(t.Context(), nil, echo("")) })
		sleep(500 * time.Millisecond)
		cancel()
		wg.Wait()
		f.checkReports(1)
	})
}

func TestTransportWaitsForTheFirstToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransportFixture(t, refreshed)
		began := time.Now()
		time.AfterFunc(4*time.Second, func() { f.publish(1) })
		f.expect(t.Context(), strings.NewReader("x"), echo("x"))
		checkWaited(t, began, 4*time.Second)
	})
}

// The token arrives at the moment at which the patience ends.
func TestTransportReadsOnceMoreBeforeItGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransportFixture(t, refreshed)
		reads, began := 0, time.Now()
		f.reader.cfg.Now = func() time.Time {
			if time.Since(began) == defaultPatience && reads == 0 {
				reads++
				f.publish(1) // this read of the time is before the read of the token
			}
			return time.Now()
		}
		f.expect(t.Context(), nil, echo(""))
		if reads != 1 {
			t.Errorf("%d reads when the patience ended, want 1", reads)
		}
	})
}

func TestTransportSaysThatThereIsNoToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newTransportFixture(t, refreshed)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		body := &onlyOnce{Reader: strings.NewReader("x")}
		_, err := f.post(ctx, body)
		checkWaited(t, began, 900*time.Millisecond)
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%v, want ErrNotFound", err)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, although the deadline has not passed", err)
		}
		if !body.closed {
			t.Error("the body was not closed")
		}

		put(t, f.reader, credential(1, time.Second))
		sleep(time.Second)
		began = time.Now()
		_, err = f.post(t.Context(), nil)
		checkWaited(t, began, 5*time.Second)
		if !errors.Is(err, ErrExpired) {
			t.Errorf("%v, want ErrExpired", err)
		}

		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = f.post(cancelled, nil)
		for _, want := range []error{ErrExpired, context.Canceled} {
			if !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
		f.checkCounts(0, 0)
	})
}
