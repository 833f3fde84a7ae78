package kv

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// awaitHealth waits until a reader's health is as wanted.
func awaitHealth(t *testing.T, r *watchedReader, is func(Health) bool) Health {
	t.Helper()
	ctx := testContext(t)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		h := r.Health()
		if is(h) {
			return h
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the health stays %+v", h)
		}
	}
}

func TestHealthTellsWhetherChangesAreHeard(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			s := newStore(t, srv, "w")
			publish(t, s, credential(1, time.Hour))
			var ahead atomic.Int64
			cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			if r, err := NewReader(srv.Connect(), cfg); err != nil || r.Health().Ready || r.Health().Stale <= 0 {
				t.Errorf("a Reader that does not run has the health %+v, %v", r.Health(), err)
			}
			r := startReader(t, srv, cfg)
			h := awaitHealth(t, r, func(h Health) bool { return h.Stale == 0 })
			if !h.Ready || h.Error != "" || h.Valid != 1 || h.Expired != 0 || time.Until(h.NextEnd) < 59*time.Minute {
				t.Errorf("while all is well: %+v", h)
			}
			srv.Stop()
			h = awaitHealth(t, r, func(h Health) bool { return h.Stale > 0 && h.Error != "" })
			if !h.Ready || h.Valid != 1 {
				t.Errorf("while NATS is away: %+v", h)
			}
			ahead.Store(int64(90 * time.Minute))
			if h := r.Health(); h.Stale < time.Hour || h.Valid != 0 || h.Expired != 1 || !h.NextEnd.IsZero() {
				t.Errorf("one hour and a half later: %+v", h)
			}
			ahead.Store(0)
			srv.Restart()
			awaitHealth(t, r, func(h Health) bool { return h.Stale == 0 && h.Error == "" })
			if body, err := json.Marshal(h); err != nil || strings.Contains(string(body), "VALUE") {
				t.Errorf("%s, %v", body, err)
			}
		})
	}
}

// An account that was removed would be told as a fault for as long as the service runs.
func TestHealthCountsAnExpiredCredentialForAnHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, events, stop := scriptedReader(t, ReaderConfig{})
		defer stop()
		events <- put(t, credential(1, time.Hour))
		synctest.Wait()
		sleep(2 * time.Hour)
		if h := r.Health(); h.Valid != 0 || h.Expired != 1 {
			t.Errorf("an hour after its end: %+v", h)
		}
		sleep(time.Millisecond)
		if h := r.Health(); h.Valid != 0 || h.Expired != 0 {
			t.Errorf("later: %+v", h)
		}
	})
}

func TestHealthSaysThatThereIsNoBucket(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			var trouble atomic.Value
			cfg.OnError = func(err error) { trouble.Store(err.Error()) }
			r := &watchedReader{}
			var err error
			if r.Reader, err = NewReader(srv.Connect(), cfg); err != nil {
				t.Fatal(err)
			}
			runReader(t, r.Reader)
			awaitHealth(t, r, func(h Health) bool { return h.Error != "" })
			if text, _ := trouble.Load().(string); text == "" {
				t.Error("nobody is told of the trouble")
			}
			s := newStore(t, srv, "w")
			publish(t, s, credential(1, time.Hour))
			if _, err := r.Wait(testContext(t), "wx1", messages.AccessToken); err != nil {
				t.Error(err)
			}
			awaitHealth(t, r, func(h Health) bool { return h.Ready && h.Stale == 0 && h.Error == "" })
		})
	}
}

// The server is not gone in good order: nobody can be reached any more.
func TestHealthOfABrokenConnection(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := gated{natstest.Start(t), natstest.NewGate()}
			s := newStore(t, srv.Server, "w")
			publish(t, s, credential(1, time.Hour))
			told := make(chan error, 1000)
			cfg.OnError = func(err error) { told <- err }
			r := startReader(t, srv, cfg)
			awaitHealth(t, r, func(h Health) bool { return h.Stale == 0 })
			srv.gate.Sever()
			awaitHealth(t, r, func(h Health) bool { return h.Stale > 0 && h.Error != "" && h.Valid == 1 })
			select {
			case err := <-told:
				if err == nil {
					t.Error("of no error")
				}
			case <-testContext(t).Done():
				t.Error("nobody is told")
			}
		})
	}
}

// The server tells a refusal apart from what was asked, which just gets no answer.
func TestHealthNamesTheSubjectThatIsRefused(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, _, shop := restricted(t, []string{"nothing"}, nil)
			r := &watchedReader{}
			var err error
			if r.Reader, err = NewReader(srv.Connect(shop), cfg); err != nil {
				t.Fatal(err)
			}
			runReader(t, r.Reader)
			awaitHealth(t, r, func(h Health) bool { return strings.Contains(h.Error, `Permissions Violation for`) })
			transport := r.Transport("wx1")
			transport.Patience = time.Millisecond
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, apiURL, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := transport.RoundTrip(req)
			if err == nil {
				resp.Body.Close()
			}
			if !errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), `Permissions Violation for`) {
				t.Errorf("a request fails with %v", err)
			}
		})
	}
}

// A service that closes its connection, or loses it for good, has its credentials to their end.
func TestReaderServesAfterItsConnectionWasClosed(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			s := newStore(t, srv, "w")
			publish(t, s, credential(1, time.Hour))
			nc := srv.Connect()
			r := &watchedReader{}
			var err error
			if r.Reader, err = NewReader(nc, cfg); err != nil {
				t.Fatal(err)
			}
			stop := runReader(t, r.Reader)
			if _, err := r.Wait(testContext(t), "wx1", messages.AccessToken); err != nil {
				t.Fatal(err)
			}
			h := r.Handle("wx1", messages.AccessToken)
			nc.Close()
			awaitHealth(t, r, func(h Health) bool { return h.Stale > 0 && h.Error != "" && h.Valid == 1 })
			for _, when := range []string{"while it runs", "after its end"} {
				if v, err := h.Value(); err != nil || v != credential(1, 1).Value {
					t.Errorf("%s: %v", when, err)
				}
				stop()
			}
		})
	}
}
