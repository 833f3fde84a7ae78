package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

type natsOptions = nats.Options

// watchedReader is a running Reader whose changes a test can observe.
type watchedReader struct {
	*Reader
	mu  sync.Mutex
	out chan<- Change
}

// observe sends the changes that come from now on.
func (w *watchedReader) observe(out chan<- Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = out
}

// runReader runs a reader, and returns a function that ends it; the end of the test does, too.
func runReader(tb testing.TB, r *Reader) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.Run(ctx) }()
	stop = func() { cancel(); <-done }
	tb.Cleanup(stop)
	return stop
}

func startReader(tb testing.TB, s interface {
	Connect(...nats.Option) *nats.Conn
}, cfg ReaderConfig) *watchedReader {
	tb.Helper()
	w := new(watchedReader)
	told := make(chan struct{}) // of the end of the first snapshot, so that who observes then sees what comes after it
	once := sync.Once{}
	cfg.OnChange = func(c Change) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if c.Ready {
			once.Do(func() { close(told) })
		}
		if w.out != nil {
			w.out <- c
		}
	}
	r, err := NewReader(s.Connect(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	w.Reader = r
	runReader(tb, r)
	tb.Cleanup(func() { w.observe(nil) })
	select {
	case <-told:
	case <-time.After(patience):
		tb.Fatal("the reader has no snapshot")
	}
	return w
}

// awaitChange waits for a change that a reader tells; otherwise says what is wrong where it does not come.
func awaitChange(t *testing.T, changes <-chan Change, otherwise string, is func(Change) bool) {
	t.Helper()
	for ctx := testContext(t); ; {
		select {
		case c := <-changes:
			if is(c) {
				return
			}
		case <-ctx.Done():
			t.Fatal(otherwise)
		}
	}
}

// feeds are a Reader of all accounts, and those that need fewer permissions.
func feeds() map[string]ReaderConfig {
	return map[string]ReaderConfig{
		"watch of all": {}, "watch of one": {AppIDs: []string{"wx1"}}, "direct": {AppIDs: []string{"wx1"}, Direct: true},
	}
}

func TestReaderSeesWhatIsThereAndWhatComes(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			s := newStore(t, srv, "w")
			publish(t, s, credential(1, time.Hour))
			r := startReader(t, srv, cfg)
			if got, err := r.AccessToken("wx1"); err != nil || got != credential(1, 1).Value {
				t.Fatalf("the snapshot has no credential: %v", err)
			}
			rev := publish(t, s, credential(2, time.Hour))
			c, err := r.WaitNewer(testContext(t), "wx1", messages.AccessToken, 1)
			if err != nil || c.Revision != rev || c.Generation != 2 {
				t.Errorf("%v, %v; want generation 2, revision %d", c, err, rev)
			}
		})
	}
}

func TestReaderNeverReturnsAnExpiredValue(t *testing.T) {
	t.Parallel()
	r, err := NewReader(natstest.Start(t).Connect(), ReaderConfig{Now: func() time.Time { return time.Now().Add(2 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	r.Apply(credential(1, time.Hour))
	if c, err := r.Get("wx1", messages.AccessToken); !errors.Is(err, ErrExpired) || c.Value != "" {
		t.Errorf("%v, want ErrExpired", err)
	}
	if _, err := r.Get("wx2", messages.AccessToken); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
	if _, err := r.Get("wx1", "nonsense"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
}

func TestReaderNeverGoesBackToALowerGeneration(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s := newStore(t, srv, "w")
	r := startReader(t, srv, ReaderConfig{})
	changes := make(chan Change, 10)
	r.observe(changes)
	publish(t, s, credential(5, time.Hour))
	<-changes
	publish(t, s, credential(4, time.Hour))
	if c := <-changes; c.Record == nil || c.Record.Generation != 4 {
		t.Errorf("the change tells %v, want what is in the bucket", c.Record)
	}
	if c, err := r.Get("wx1", messages.AccessToken); err != nil || c.Generation != 5 {
		t.Errorf("the reader went to %v, %v", c, err)
	}
}

// Where all memory of the generations was lost, a value that begins again at 1 is better than none. Found by chaos.
func TestReaderTakesALowerGenerationWhenItsOwnHasEnded(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s := newStore(t, srv, "w")
	var ahead atomic.Int64
	r := startReader(t, srv, ReaderConfig{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	changes := make(chan Change, 10)
	r.observe(changes)
	publish(t, s, credential(5, time.Hour))
	<-changes
	publish(t, s, credential(1, 3*time.Hour))
	<-changes
	for _, tt := range []struct {
		ahead      time.Duration
		generation uint64
		err        error
	}{{0, 5, nil}, {2 * time.Hour, 1, nil}, {4 * time.Hour, 0, ErrExpired}} {
		ahead.Store(int64(tt.ahead))
		if c, err := r.Get("wx1", messages.AccessToken); c.Generation != tt.generation || !errors.Is(err, tt.err) {
			t.Errorf("%s later: generation %d, %v; want %d, %v", tt.ahead, c.Generation, err, tt.generation, tt.err)
		}
	}
}

func TestReaderFollowsOnlyItsAccounts(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s := newStore(t, srv, "w")
	for i := 1; i <= 3; i++ {
		c := credential(1, time.Hour)
		c.AppID = fmt.Sprint("wx", i)
		publish(t, s, c)
	}
	r := startReader(t, srv, ReaderConfig{AppIDs: []string{"wx1", "wx3", "wx1"}})
	for appid, want := range map[string]bool{"wx1": true, "wx2": false, "wx3": true} {
		if _, err := r.AccessToken(appid); (err == nil) != want {
			t.Errorf("%s: %v", appid, err)
		}
	}
}

func TestReaderServesThroughARestartAndSeesWhatComesAfterIt(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			s := newStore(t, srv, "w")
			r := startReader(t, srv, cfg)
			publish(t, s, credential(1, time.Hour))
			ctx := testContext(t)
			if _, err := r.Wait(ctx, "wx1", messages.AccessToken); err != nil {
				t.Fatal(err)
			}
			srv.Stop()
			if _, err := r.AccessToken("wx1"); err != nil {
				t.Errorf("while NATS is away: %v", err)
			}
			srv.Restart()
			publishSoon(t, s, credential(2, time.Hour))
			if _, err := r.WaitNewer(ctx, "wx1", messages.AccessToken, 1); err != nil {
				t.Error(err)
			}
		})
	}
}

// publishSoon publishes as soon as the server takes it.
func publishSoon(tb testing.TB, s *store.Store, c messages.Credential) (revision uint64) {
	tb.Helper()
	ctx := testContext(tb)
	for {
		l, err := s.Acquire(ctx, c.AppID, c.Kind, 5*time.Second)
		if err == nil {
			defer l.Release(ctx)
			if revision, err = l.Publish(ctx, c); err == nil {
				return revision
			}
		}
		if ctx.Err() != nil {
			tb.Fatal(err)
		}
	}
}

func TestReaderNoticesABucketMadeAnew(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			s := newStore(t, srv, "w")
			for g := uint64(1); g <= 5; g++ { // so that the new bucket's revisions are lower
				publish(t, s, credential(g, time.Hour))
			}
			r := startReader(t, srv, cfg)
			changes := make(chan Change, 10)
			r.observe(changes)
			ctx := testContext(t)
			if err := s.js.DeleteKeyValue(ctx, "wechat"); err != nil {
				t.Fatal(err)
			}
			for ctx.Err() == nil && s.Ensure(ctx) != nil { // a create right after a delete may fail for a moment
				continue
			}
			if !cfg.Direct { // it would see that at its next reading
				awaitChange(t, changes, "the snapshot of the new bucket does not tell that the record is lost", func(c Change) bool {
					return c.AppID == "wx1" && c.Record == nil
				})
			}
			if _, err := r.AccessToken("wx1"); err != nil {
				t.Errorf("what was valid is no longer served: %v", err)
			}
			publish(t, s, credential(6, time.Hour))
			if _, err := r.WaitNewer(ctx, "wx1", messages.AccessToken, 5); err != nil {
				t.Error(err)
			}
			// With the ledger lost too, the workers begin again. What was obtained before is a late one all the same.
			if err := s.js.DeleteKeyValue(ctx, "wechat"); err != nil {
				t.Fatal(err)
			}
			for ctx.Err() == nil && s.Ensure(ctx) != nil {
				continue
			}
			late, later := credential(1, time.Hour), credential(2, time.Hour)
			late.ObtainedAt = late.ObtainedAt.Add(-time.Minute)
			later.ObtainedAt = later.ObtainedAt.Add(time.Minute)
			for i, c := range []messages.Credential{late, later} {
				rev := publish(t, s, c)
				for change := range changes {
					if change.Revision == rev && change.Record != nil && change.Record.Generation == c.Generation {
						break
					}
				}
				want := []uint64{6, 2}[i]
				if got, err := r.Get("wx1", messages.AccessToken); err != nil || got.Generation != want {
					t.Errorf("generation %d is shown, %v; want %d", got.Generation, err, want)
				}
			}
		})
	}
}

func TestReaderIgnoresWhatIsNotACredential(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s := newStore(t, srv, "w")
	r := startReader(t, srv, ReaderConfig{})
	changes := make(chan Change, 10)
	r.observe(changes)
	publish(t, s, credential(1, time.Hour))
	<-changes
	ctx := testContext(t)
	for _, garbage := range []string{"", "{", "null", `{"appid":"wx9","kind":"access_token"}`, strings.Repeat("x", 1000)} {
		if _, err := s.creds.Put(ctx, "wx1.access_token", []byte(garbage)); err != nil {
			t.Fatal(err)
		}
		if c := <-changes; c.Record != nil {
			t.Errorf("%.20q was taken for %v", garbage, c.Record)
		}
		if _, err := r.AccessToken("wx1"); err != nil {
			t.Errorf("after %.20q: %v", garbage, err)
		}
	}
}

// Found by chaos: each change left a goroutine behind.
//
//nolint:paralleltest // it counts the goroutines of the process
func TestChangesLeaveNothingBehind(t *testing.T) {
	s := natstest.Start(t)
	store := newStore(t, s, "w1")
	r := startReader(t, s, ReaderConfig{})
	change := func(generation uint64) {
		publish(t, store, credential(generation, time.Hour))
		if _, err := r.WaitNewer(testContext(t), "wx1", messages.AccessToken, generation-1); err != nil {
			t.Fatal(err)
		}
	}
	change(1)
	before := runtime.NumGoroutine()
	const changes = 50
	for generation := uint64(2); generation < 2+changes; generation++ {
		change(generation)
	}
	if after := runtime.NumGoroutine(); after > before+changes/2 {
		t.Errorf("%d goroutines before %d changes, %d after", before, changes, after)
	}
}

func TestCredentialNeverShowsItsValue(t *testing.T) {
	t.Parallel()
	c := credential(1, time.Hour)
	c.Value = "CANARY-VALUE"
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "credential", c, "pointer", &c)
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s", c, &c, c, &c), log.String()} {
		if strings.Contains(s, "CANARY") {
			t.Errorf("the value shows in %s", s)
		}
	}
}

// A restored backup: the stream's birth date is the same, its sequences are lower.
func TestReaderNoticesABucketThatWentBackInTime(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			s := newStore(t, srv, "w")
			publish(t, s, credential(1, time.Hour))
			srv.Stop()
			restore := srv.Save()
			srv.Restart()
			r := startReader(t, srv, cfg)
			for g := uint64(2); g <= 6; g++ {
				publishSoon(t, s, credential(g, time.Hour))
			}
			ctx := testContext(t)
			if _, err := r.WaitNewer(ctx, "wx1", messages.AccessToken, 5); err != nil {
				t.Fatal(err)
			}
			changes := make(chan Change, 100)
			r.observe(changes)
			srv.Stop()
			restore()
			srv.Restart()
			awaitChange(t, changes, "what was restored is not told", func(c Change) bool { return c.Record != nil && c.Record.Generation == 1 })
			publishSoon(t, s, credential(7, time.Hour))
			if _, err := r.WaitNewer(ctx, "wx1", messages.AccessToken, 6); err != nil {
				t.Errorf("what is published after it is not seen: %v", err)
			}
		})
	}
}

func TestReaderNoticesAPurgedBucket(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	s := newStore(t, srv, "w")
	publish(t, s, credential(1, time.Hour))
	r := startReader(t, srv, ReaderConfig{})
	changes := make(chan Change, 100)
	r.observe(changes)
	st, err := s.js.Stream(testContext(t), "KV_wechat")
	if err == nil {
		err = st.Purge(testContext(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	// What comes after the purge does not hide it. Found by chaos.
	later := credential(1, time.Hour)
	later.AppID = "wx2"
	publish(t, s, later)
	awaitChange(t, changes, "the record of after the purge does not come", func(c Change) bool { return c.AppID == "wx2" && c.Record != nil })
	srv.Stop() // so that the watch looks at once and not when its half minute is over
	srv.Restart()
	awaitChange(t, changes, "the purge is not noticed", func(c Change) bool { return c.AppID == "wx1" && c.Record == nil })
}
