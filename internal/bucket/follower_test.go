package bucket

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/messages"
)

// counted answers reads with revisions, in virtual time.
type counted struct {
	revision func() uint64

	mu    sync.Mutex
	reads []time.Time
}

func (c *counted) asks() []string { return nil }

func (c *counted) read(context.Context, Name) (answer, error) {
	c.mu.Lock()
	c.reads = append(c.reads, time.Now())
	c.mu.Unlock()
	return answer{[]byte("record"), c.revision()}, nil
}

// take returns the reads since the last call.
func (c *counted) take() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	reads := c.reads
	c.reads = nil
	return reads
}

// followCounted runs a follower, whose first reads are over, until the test ends.
func followCounted(t *testing.T, records *counted) (hints chan uint64) {
	t.Helper()
	outcomes := make(chan outcome)
	f := follower{
		Poll: &Poll{Records: records, ReadEvery: time.Hour}, name: Name{"wx1", messages.AccessToken},
		hints: make(chan uint64, 1), slots: make(chan struct{}, 1), outcomes: outcomes,
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for range outcomes {
		}
	}()
	done := make(chan struct{})
	go func() { defer close(done); f.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; close(outcomes) })
	sleep(settling)
	if n := len(records.take()); n != 1+settleReads {
		t.Errorf("%d reads at the start, want %d", n, 1+settleReads)
	}
	return f.hints
}

const settling = 2 * time.Minute // longer than the first reads take

func header(sequence string) nats.Header { return nats.Header{"Nats-Sequence": {sequence}} }

func sleep(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // virtual time

func TestFloodOfHintsCausesFewReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		records := &counted{revision: func() uint64 { return 1 }}
		hints := followCounted(t, records)
		began := time.Now()
		for time.Since(began) < time.Minute {
			sendHint(hints, header("18446744073709551615"))
			sleep(time.Millisecond)
		}
		if n := len(records.take()); n < 30 || n > 60+hintsAtOnce+2 {
			t.Errorf("60,000 hints in a minute cause %d reads, want about one a second", n)
		}
	})
}

// A worker, or a replica, may answer before it has received what the hint is about.
func TestRecordOfAHintIsReadUntilItIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		arrives := time.Now().Add(settling + 500*time.Millisecond)
		records := &counted{revision: func() uint64 {
			if time.Now().Before(arrives) {
				return 1
			}
			return 7
		}}
		hints := followCounted(t, records)
		sendHint(hints, header("7"))
		sleep(time.Minute)
		reads := records.take()
		for i, at := range reads {
			if isLast := i == len(reads)-1; isLast == at.Before(arrives) {
				t.Errorf("reads at %v, want that only the last one is after %s", reads, arrives)
			}
		}
	})
}

// The first answer is of the bucket before it was recreated: its revision is higher.
func TestRecordOfARecreatedBucketIsReadUntilItIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var revision atomic.Uint64
		revision.Store(100)
		records := &counted{revision: revision.Load}
		hints := followCounted(t, records)
		sendHint(hints, header("2"))
		synctest.Wait()
		revision.Store(2)
		sleep(time.Minute)
		if n := len(records.take()); n != 2 {
			t.Errorf("%d reads, want the one of the hint, and the one that has the record", n)
		}
	})
}

func TestHintThatIsNeverShownCausesFewReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		records := &counted{revision: func() uint64 { return 1 }}
		hints := followCounted(t, records)
		sendHint(hints, header("99"))
		sleep(time.Minute)
		if n, want := len(records.take()), 1+hintTries; n != want {
			t.Errorf("a hint of a revision that does not come causes %d reads, want %d", n, want)
		}
	})
}

func TestHintOfARemovalCausesOneRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		records := &counted{revision: func() uint64 { return 1 }}
		hints := followCounted(t, records)
		removal := header("2")
		removal.Set("Nats-Marker-Reason", "MaxAge")
		sendHint(hints, removal)
		sleep(time.Minute)
		if n := len(records.take()); n != 1 {
			t.Errorf("%d reads, want 1", n)
		}
	})
}
