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
	"github.com/wxkeeper/wxkeeper/worker/store"
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
				s := newScene(t, refreshed) // but the Reader does not hear of it
				s.wechat.kill(s.apply(1))
				s.Patience = c.patience
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if c.deadline > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
				}
				defer cancel()
				began := time.Now()
				got, err := s.get(ctx, nil)
				if waited := time.Since(began); err != nil || got != deadAnswer || waited != c.want {
					t.Errorf("%s, %v after %s; want WeChat's answer after %s", got, err, waited, c.want)
				}
				sleep(messages.DefaultTimeout) // the report ends too, or the bubble says what is left
			})
		})
	}
}

func TestTransportLeavesAnHTTPClientTheTimeForWeChatsAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, refreshed) // but the Reader does not hear of it
		s.wechat.kill(s.apply(1))
		client := &http.Client{Transport: s.Transport, Timeout: 20 * time.Second / 9}
		began := time.Now()
		resp, err := client.Get(apiURL)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != deadAnswer || time.Since(began).Round(time.Millisecond) != 2*time.Second {
			t.Errorf("%s, %v after %s", b, err, time.Since(began))
		}
		sleep(messages.DefaultTimeout) // the report ends too
	})
}

func TestTransportsCallerWhoGoesAwayHarmsNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s *scene
		s = newScene(t, func(ctx context.Context) (messages.Refreshed, error) {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return messages.Refreshed{}, ctx.Err()
			}
			s.apply(2)
			return refreshed(ctx)
		})
		s.wechat.kill(s.apply(1))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			began := time.Now()
			_, _ = s.get(ctx, nil) // the first to meet it, so it makes the report
			if waited := time.Since(began); waited != 500*time.Millisecond {
				t.Errorf("the one that went away waited %s", waited)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if got, err := s.get(t.Context(), nil); err != nil || got != `{"echo":""}` {
				t.Errorf("%s, %v", got, err)
			}
		})
		sleep(500 * time.Millisecond)
		cancel()
		wg.Wait()
		if n := s.fleet.reports(); n != 1 {
			t.Errorf("%d reports", n)
		}
	})
}

func TestTransportWaitsForTheFirstToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, refreshed)
		began := time.Now()
		time.AfterFunc(4*time.Second, func() { s.apply(1) })
		if got, err := s.get(t.Context(), strings.NewReader("x")); err != nil || got != `{"echo":"x"}` {
			t.Errorf("%s, %v", got, err)
		}
		if waited := time.Since(began); waited != 4*time.Second {
			t.Errorf("it waited %s", waited)
		}
	})
}

// The moment at which the patience ends and a token comes is one.
func TestTransportLooksOnceMoreBeforeItGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, refreshed)
		looks, began := 0, time.Now()
		s.reader.cfg.Now = func() time.Time {
			if time.Since(began) == defaultPatience && looks == 0 {
				looks++
				s.apply(1) // it is there when this look has the time
			}
			return time.Now()
		}
		if got, err := s.get(t.Context(), nil); err != nil || got != `{"echo":""}` || looks != 1 {
			t.Errorf("%s, %v after %d looks", got, err, looks)
		}
	})
}

func TestTransportSaysThatThereIsNoToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, refreshed)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		body := &closing{Reader: strings.NewReader("x")}
		if _, err := s.get(ctx, body); !errors.Is(err, store.ErrNotFound) || errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 900*time.Millisecond {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		if !body.closed {
			t.Error("the body was not closed")
		}
		s.reader.Apply(credential(1, time.Second))
		sleep(time.Second)
		began = time.Now()
		if _, err := s.get(t.Context(), nil); !errors.Is(err, ErrExpired) || time.Since(began) != 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.get(gone, nil); !errors.Is(err, ErrExpired) || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want ErrExpired and Canceled", err)
		}
		if n := len(s.wechat.called()); n != 0 {
			t.Errorf("%d calls were sent without a token", n)
		}
	})
}
