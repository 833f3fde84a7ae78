package kv

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

// awaitHealth waits until the health of a Reader is as it should be.
func awaitHealth(t *testing.T, r *Reader, is func(Health) bool) Health {
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
			t.Fatalf("the health is still %+v", h)
		}
	}
}

func isReceiving(h Health) bool { return h.Stale == 0 && h.Error == "" }

func isStale(h Health) bool { return h.Stale > 0 && h.Error != "" }

func TestHealthShowsWhetherChangesAreReceived(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			p := newPublisher(t, srv)
			want := credential(1, time.Hour)
			p.publish(want)
			var ahead atomic.Int64
			cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			expect := func(when string, want, got Health) {
				t.Helper()
				got.Stale, got.Error = 0, "" // they vary, and are checked by awaitHealth
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: %s", when, diff)
				}
			}
			idle, err := NewReader(srv.Connect(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if h := idle.Health(); h.Stale <= 0 {
				t.Error("a Reader that does not run is not stale")
			} else {
				expect("a Reader that does not run", Health{}, h)
			}

			r := startReader(t, srv, cfg).Reader
			valid := Health{Ready: true, Valid: 1, NextEnd: want.ExpiresAt}
			expect("while changes are received", valid, awaitHealth(t, r, isReceiving))
			srv.Stop()
			expect("while NATS is not available", valid, awaitHealth(t, r, isStale))

			ahead.Store(int64(90 * time.Minute))
			h := r.Health()
			if h.Stale < time.Hour {
				t.Errorf("stale for %s, want more than an hour", h.Stale)
			}
			expect("half an hour after the end", Health{Ready: true, Expired: 1}, h)

			ahead.Store(0)
			srv.Restart()
			h = awaitHealth(t, r, isReceiving)
			body, err := json.Marshal(h)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(body), "VALUE") {
				t.Errorf("the health shows a value: %s", body)
			}
		})
	}
}

// An account that was removed would otherwise count as a fault for as long as the service runs.
func TestHealthCountsAnExpiredCredentialForAnHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, events, stop := scriptedReader(t, ReaderConfig{})
		defer stop()
		expect := func(when string, want Health) {
			t.Helper()
			got := r.Health()
			got.Stale = 0 // the source never says that it works
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s", when, diff)
			}
		}
		events <- recordEvent(t, credential(1, time.Hour))
		synctest.Wait()
		sleep(2 * time.Hour)
		expect("an hour after its end", Health{Expired: 1})
		sleep(time.Millisecond)
		expect("later", Health{})
	})
}

func TestHealthSaysThatThereIsNoBucket(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			var problems atomic.Int32
			cfg.OnError = func(error) { problems.Add(1) }
			r, err := NewReader(srv.Connect(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			runReader(t, r)
			awaitHealth(t, r, isStale)
			if problems.Load() == 0 {
				t.Error("OnError was not called")
			}
			newPublisher(t, srv).publish(credential(1, time.Hour))
			awaitToken(t, r, 0)
			awaitHealth(t, r, func(h Health) bool { return h.Ready && isReceiving(h) })
		})
	}
}

// The connection breaks without an error of the server, and cannot be made again.
func TestHealthOfABrokenConnection(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := startGated(t)
			newPublisher(t, srv.Server).publish(credential(1, time.Hour))
			problems := make(chan error, 1000)
			cfg.OnError = func(err error) { problems <- err }
			r := startReader(t, srv, cfg).Reader
			awaitHealth(t, r, isReceiving)
			srv.gate.Sever()
			if h := awaitHealth(t, r, isStale); h.Valid != 1 {
				t.Errorf("%d credentials are valid, want 1", h.Valid)
			}
			select {
			case err := <-problems:
				if err == nil {
					t.Error("OnError was called with nil")
				}
			case <-testContext(t).Done():
				t.Error("OnError was not called")
			}
		})
	}
}

// The server sends a refusal asynchronously: the refused request only gets no answer.
func TestHealthNamesTheSubjectThatIsRefused(t *testing.T) {
	t.Parallel()
	const refusal = "Permissions Violation for"
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, worker, shop := natstest.StartRestricted(t, []string{"nothing"}, nil)
			newPublisher(t, srv, worker)
			r, err := NewReader(srv.Connect(shop), cfg)
			if err != nil {
				t.Fatal(err)
			}
			runReader(t, r)
			awaitHealth(t, r, func(h Health) bool { return strings.Contains(h.Error, refusal) })
			transport := r.Transport("wx1")
			transport.Patience = time.Millisecond
			resp, err := (&http.Client{Transport: transport}).Get(apiURL)
			if err == nil {
				resp.Body.Close()
				t.Fatal("the request was sent without a token")
			}
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("the request fails with %v, want ErrNotFound", err)
			}
			if !strings.Contains(err.Error(), refusal) {
				t.Errorf("the request fails with %v, which does not name the refused subject", err)
			}
		})
	}
}

// A service that closes its connection, or loses it permanently, has its credentials until they expire.
func TestReaderServesAfterItsConnectionWasClosed(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			newPublisher(t, srv).publish(credential(1, time.Hour))
			nc := srv.Connect()
			r, err := NewReader(nc, cfg)
			if err != nil {
				t.Fatal(err)
			}
			stop := runReader(t, r)
			awaitToken(t, r, 0)
			h := r.Handle("wx1", messages.AccessToken)
			check := func(when string) {
				t.Helper()
				checkGeneration(t, r, when, 1)
				if _, err := h.Value(); err != nil {
					t.Errorf("%s, the handle returns %v", when, err)
				}
			}
			nc.Close()
			awaitHealth(t, r, isStale)
			check("while the Reader runs")
			stop()
			check("after Run has returned")
		})
	}
}

// events is a source that emits some events.
type events []bucket.Event

func (e events) Run(ctx context.Context, emit func(bucket.Event)) {
	for _, event := range e {
		emit(event)
	}
	<-ctx.Done()
}

func (events) Report(context.Context, messages.RefreshCredentialRequest) (messages.Refreshed, error) {
	return messages.Refreshed{}, errors.New("it sends no reports")
}

func TestOnErrorIsCalledOnceForEachReasonAndWhenItIsOver(t *testing.T) {
	t.Parallel()
	away, refused := errors.New("NATS is away"), errors.New("refused")
	var got []string
	r, err := NewReader(nil, ReaderConfig{
		Source: events{
			{Up: true}, {Down: away}, {Down: errors.New("NATS is away")}, {Down: refused}, {Down: refused},
			{Up: true}, {Up: true}, {Down: refused}, {Up: true}, {Ready: true},
		},
		OnError: func(err error) { got = append(got, err.Error()) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = r.Run(ctx) }()
	<-r.Ready()
	cancel()
	<-ended
	want := []string{
		"kv: NATS is away", "kv: refused", "kv: " + ErrRecovered.Error(), "kv: refused", "kv: " + ErrRecovered.Error(),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("OnError was called with (-want +got):\n%s", diff)
	}
}
