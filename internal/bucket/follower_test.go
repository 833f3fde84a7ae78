package bucket

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/messages"
)

// counted answers reads with revisions, in virtual time.
type counted struct {
	revision func() uint64
	reads    []time.Time
}

func (c *counted) asks() string { return "" }

func (c *counted) read(context.Context, Name) (answer, error) {
	c.reads = append(c.reads, time.Now())
	return answer{[]byte("record"), c.revision()}, nil
}

// since is the number of reads from a time on.
func (c *counted) since(began time.Time) (n int) {
	for _, at := range c.reads {
		if !at.Before(began) {
			n++
		}
	}
	return n
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
	sleep(2 * time.Minute)
	if n := len(records.reads); n != 1+settleReads {
		t.Errorf("%d reads at the start, want %d", n, 1+settleReads)
	}
	records.reads = nil
	return f.hints
}

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
		if n := records.since(began); n < 30 || n > 60+hintsAtOnce+2 {
			t.Errorf("60,000 hints in a minute cause %d reads, want about one a second", n)
		}
	})
}

// A worker, or a replica, may answer before it has received what the hint is about.
func TestRecordOfAHintIsReadUntilItIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		arrives := time.Now().Add(time.Hour)
		records := &counted{revision: func() uint64 {
			if time.Now().Before(arrives) {
				return 1
			}
			return 7
		}}
		hints := followCounted(t, records)
		began := time.Now()
		arrives = began.Add(500 * time.Millisecond)
		sendHint(hints, header("7"))
		sleep(time.Minute)
		last := records.reads[len(records.reads)-1].Sub(began)
		if last < 500*time.Millisecond || last > 3*time.Second {
			t.Errorf("the last read is after %s, want that it is the first one with the record", last)
		}
	})
}

// The first answer is of the bucket before it was recreated: its revision is higher.
func TestRecordOfARecreatedBucketIsReadUntilItIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		revision := uint64(100)
		records := &counted{revision: func() uint64 { return revision }}
		hints := followCounted(t, records)
		sendHint(hints, header("2"))
		synctest.Wait()
		revision = 2
		sleep(time.Minute)
		if n := len(records.reads); n != 2 {
			t.Errorf("%d reads, want the one of the hint, and the one that has the record", n)
		}
	})
}

func TestHintThatIsNeverShownCausesFewReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		records := &counted{revision: func() uint64 { return 1 }}
		hints := followCounted(t, records)
		began := time.Now()
		sendHint(hints, header("99"))
		sleep(time.Minute)
		if n, want := records.since(began), 1+hintTries; n != want {
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
		if n := len(records.reads); n != 1 {
			t.Errorf("%d reads, want 1", n)
		}
	})
}
