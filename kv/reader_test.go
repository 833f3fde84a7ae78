package kv

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

// credentials opens the bucket of a publisher, to do to it what workers do not.
func (p *publisher) credentials() (jetstream.KeyValue, jetstream.Stream) {
	p.tb.Helper()
	js, err := jetstream.New(p.nc)
	if err != nil {
		p.tb.Fatal(err)
	}
	kv, err := js.KeyValue(testContext(p.tb), messages.DefaultBucket)
	if err != nil {
		p.tb.Fatal(err)
	}
	stream, err := js.Stream(testContext(p.tb), bucket.Stream(messages.DefaultBucket))
	if err != nil {
		p.tb.Fatal(err)
	}
	return kv, stream
}

// recreate deletes the credential bucket, and creates it again.
func (p *publisher) recreate() {
	p.tb.Helper()
	js, err := jetstream.New(p.nc)
	if err == nil {
		err = js.DeleteKeyValue(testContext(p.tb), messages.DefaultBucket)
	}
	if err != nil {
		p.tb.Fatal(err)
	}
	p.ensure()
}

// purge removes all messages of the credential bucket.
func (p *publisher) purge() {
	p.tb.Helper()
	_, stream := p.credentials()
	if err := stream.Purge(testContext(p.tb)); err != nil {
		p.tb.Fatal(err)
	}
}

func TestReaderSeesWhatIsThereAndWhatComes(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			p := newPublisher(t, srv)
			p.publish(credential(1, time.Hour))
			r := startReader(t, srv, cfg)
			value, err := r.AccessToken("wx1")
			if err != nil {
				t.Fatal(err)
			}
			if value != credential(1, 1).Value {
				t.Error("the value of the snapshot is not the published one")
			}
			want := credential(2, time.Hour)
			want.Revision = p.publish(want)
			if got := awaitToken(t, r.Reader, 1); got != want {
				t.Errorf("%v arrives, want %v", got, want)
			}
		})
	}
}

func TestSecondCallOfRunReturnsAnError(t *testing.T) {
	t.Parallel()
	r, events, stop := scriptedReader(t, ReaderConfig{})
	events <- recordEvent(t, credential(1, time.Hour))           // it is taken by the running Reader
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // only a Run that runs would need it
	defer cancel()
	if err := r.Run(ctx); !errors.Is(err, ErrRunning) {
		t.Errorf("while Run runs, a second call returns %v, want ErrRunning", err)
	}
	events <- recordEvent(t, credential(2, time.Hour))
	awaitToken(t, r, 1) // the first call still runs
	stop()
	if err := r.Run(ctx); !errors.Is(err, ErrRunning) {
		t.Errorf("after Run has returned, a second call returns %v, want ErrRunning", err)
	}
}

func TestRunReturnsTheErrorOfItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := idleReader(t, ReaderConfig{}).Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}

func TestReaderNeverReturnsAnExpiredValue(t *testing.T) {
	t.Parallel()
	r := idleReader(t, ReaderConfig{Now: func() time.Time { return time.Now().Add(2 * time.Hour) }})
	put(t, r, credential(1, time.Hour))
	c, err := r.Get("wx1", messages.AccessToken)
	if !errors.Is(err, ErrExpired) {
		t.Errorf("Get returns %v, want ErrExpired", err)
	}
	if c.Value != "" {
		t.Error("Get returns the expired value")
	}
	if _, err := r.Get("wx2", messages.AccessToken); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of another account returns %v, want ErrNotFound", err)
	}
}

func TestReaderNeverGoesBackToALowerGeneration(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	p := newPublisher(t, srv)
	r := startReader(t, srv, ReaderConfig{})
	changes := r.observe()
	awaitRevision(t, changes, p.publish(credential(5, time.Hour)))
	lower := credential(4, time.Hour)
	lower.ObtainedAt = lower.ObtainedAt.Add(-time.Minute)
	c := awaitRevision(t, changes, p.publish(lower))
	checkRecord(t, c, 4) // which the bucket has
	checkGeneration(t, r.Reader, "after the lower generation", 5)
}

// If the workers have forgotten all generations, a value that begins again at generation 1 is better than no
// value, even if a clock that is behind says that it was obtained earlier. Found by chaos.
func TestReaderTakesALowerGenerationWhenItsOwnHasEnded(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	p := newPublisher(t, srv)
	var ahead atomic.Int64
	r := startReader(t, srv, ReaderConfig{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	changes := r.observe()
	awaitRevision(t, changes, p.publish(credential(5, time.Hour)))
	lower := credential(1, 3*time.Hour)
	lower.ObtainedAt = lower.ObtainedAt.Add(-time.Minute)
	awaitRevision(t, changes, p.publish(lower))
	checkGeneration(t, r.Reader, "while generation 5 is valid", 5)
	ahead.Store(int64(2 * time.Hour))
	checkGeneration(t, r.Reader, "when generation 5 has expired", 1)
	ahead.Store(int64(4 * time.Hour))
	if _, err := r.Get("wx1", messages.AccessToken); !errors.Is(err, ErrExpired) {
		t.Errorf("when generation 1 has expired, Get returns %v, want ErrExpired", err)
	}
}

func TestReaderFollowsOnlyItsAccounts(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	p := newPublisher(t, srv)
	for i := 1; i <= 3; i++ {
		c := credential(1, time.Hour)
		c.AppID = fmt.Sprint("wx", i)
		p.publish(c)
	}
	r := startReader(t, srv, ReaderConfig{AppIDs: []string{"wx1", "wx3", "wx1"}, Feed: FeedWatch})
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
			p := newPublisher(t, srv)
			r := startReader(t, srv, cfg)
			p.publish(credential(1, time.Hour))
			awaitToken(t, r.Reader, 0)
			srv.Stop()
			checkGeneration(t, r.Reader, "while NATS is not available", 1)
			srv.Restart()
			p.publish(credential(2, time.Hour))
			awaitToken(t, r.Reader, 1)
		})
	}
}

func TestReaderNoticesARecreatedBucket(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			p := newPublisher(t, srv)
			for generation := uint64(1); generation <= 5; generation++ { // so that the new bucket has lower revisions
				p.publish(credential(generation, time.Hour))
			}
			r := startReader(t, srv, cfg)
			changes := r.observe()
			p.recreate()
			if cfg.Feed == FeedWatch { // with the other feeds the next read would show it
				awaitChange(t, changes, "the snapshot of the new bucket does not show the loss", func(c Change) bool {
					return c.AppID == "wx1" && c.Record == nil
				})
			}
			checkGeneration(t, r.Reader, "after the loss", 5)
			p.publish(credential(6, time.Hour))
			awaitToken(t, r.Reader, 5)

			// If the ledger is lost too, the workers begin again at generation 1. A value that was obtained
			// earlier must not replace a valid one all the same.
			p.recreate()
			for _, step := range []struct {
				generation uint64
				obtained   time.Duration // relative to generation 6
				want       uint64
			}{{1, -time.Minute, 6}, {2, time.Minute, 2}} {
				c := credential(step.generation, time.Hour)
				c.ObtainedAt = c.ObtainedAt.Add(step.obtained)
				revision := p.publish(c)
				awaitChange(t, changes, "the record is not delivered", func(c Change) bool {
					return c.Revision == revision && c.Record != nil && c.Record.Generation == step.generation
				})
				when := fmt.Sprintf("after generation %d of the new bucket", step.generation)
				checkGeneration(t, r.Reader, when, step.want)
			}
		})
	}
}

func TestReaderIgnoresWhatIsNotACredential(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	p := newPublisher(t, srv)
	r := startReader(t, srv, ReaderConfig{})
	changes := r.observe()
	awaitRevision(t, changes, p.publish(credential(1, time.Hour)))
	kv, _ := p.credentials()
	otherKey := `{"appid":"wx9","kind":"access_token"}`
	for _, junk := range []string{"", "{", "null", otherKey, strings.Repeat("x", 1000)} {
		revision, err := kv.Put(testContext(t), "wx1.access_token", []byte(junk))
		if err != nil {
			t.Fatal(err)
		}
		if c := awaitRevision(t, changes, revision); c.Record != nil {
			t.Errorf("%.20q counts as the record %v", junk, c.Record)
		}
		checkGeneration(t, r.Reader, fmt.Sprintf("after %.20q", junk), 1)
	}
}

// Found by chaos: each change left a goroutine behind.
//
//nolint:paralleltest // it counts the goroutines of the process
func TestChangesLeaveNothingBehind(t *testing.T) {
	srv := natstest.Start(t)
	p := newPublisher(t, srv)
	r := startReader(t, srv, ReaderConfig{})
	change := func(generation uint64) {
		p.publish(credential(generation, time.Hour))
		awaitToken(t, r.Reader, generation-1)
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

// After a backup was restored, the stream's creation time is still the same, and its sequences are lower.
func TestReaderNoticesABucketThatWentBackInTime(t *testing.T) {
	t.Parallel()
	for name, cfg := range feeds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := natstest.Start(t)
			p := newPublisher(t, srv)
			p.publish(credential(1, time.Hour))
			srv.Stop()
			restore := srv.Save()
			srv.Restart()
			r := startReader(t, srv, cfg)
			for generation := uint64(2); generation <= 6; generation++ {
				p.publish(credential(generation, time.Hour))
			}
			awaitToken(t, r.Reader, 5)
			changes := r.observe()
			srv.Stop()
			restore()
			srv.Restart()
			awaitChange(t, changes, "the restored record is not delivered", func(c Change) bool {
				return c.Record != nil && c.Record.Generation == 1
			})
			p.publish(credential(7, time.Hour))
			awaitToken(t, r.Reader, 6)
		})
	}
}

func TestReaderNoticesAPurgedBucket(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	p := newPublisher(t, srv)
	p.publish(credential(1, time.Hour))
	r := startReader(t, srv, ReaderConfig{})
	changes := r.observe()
	p.purge()
	// A record that follows does not hide the purge. Found by chaos.
	later := credential(1, time.Hour)
	later.AppID = "wx2"
	p.publish(later)
	awaitChange(t, changes, "the record after the purge is not delivered", func(c Change) bool {
		return c.AppID == "wx2" && c.Record != nil
	})
	srv.Stop() // so that the watch checks the bucket at once, and not within half a minute
	srv.Restart()
	awaitChange(t, changes, "the purge is not noticed", func(c Change) bool {
		return c.AppID == "wx1" && c.Record == nil
	})
}
