package bucket

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

// unanswered is a JetStream that loses the first answers to the creation of a consumer.
type unanswered struct {
	jetstream.JetStream
	lost int
}

func (u *unanswered) CreateConsumer(
	ctx context.Context, stream string, cfg jetstream.ConsumerConfig,
) (jetstream.Consumer, error) {
	c, err := u.JetStream.CreateConsumer(ctx, stream, cfg)
	if u.lost > 0 {
		u.lost--
		return nil, context.DeadlineExceeded
	}
	return c, err
}

// The next session knows the name of the consumer that it must remove, although it never saw the consumer.
func TestWatchRemovesAConsumerWhoseCreationWasNotAnswered(t *testing.T) {
	t.Parallel()
	f := newFixture(t, natstest.Start(t).Connect())
	events := followWatch(t, &Watch{
		JS: &unanswered{f.js, 3}, Bucket: messages.DefaultBucket, Keys: []string{AccountKeys("wx1")}, Narrow: true,
	})
	awaitEvent(t, events, "the watch does not start", isUp)
	if n := f.consumers(); n != 1 {
		t.Errorf("one watch has %d consumers, want 1", n)
	}
}

// silent is a JetStream whose bucket does not answer while it is silent.
type silent struct {
	jetstream.JetStream
	on atomic.Bool
}

func (s *silent) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	if s.on.Load() {
		return nil, context.DeadlineExceeded
	}
	return s.JetStream.Stream(ctx, name)
}

// A node that is cut off from the other nodes still sends heartbeats, and knows nothing of the bucket.
func TestWatchIsDownWhileTheBucketDoesNotAnswer(t *testing.T) {
	t.Parallel()
	f := newFixture(t, natstest.Start(t).Connect())
	js := &silent{JetStream: f.js}
	events := followWatch(t, &Watch{
		JS: js, Bucket: messages.DefaultBucket, Keys: []string{AllKeys}, CheckEvery: 50 * time.Millisecond,
	})
	// On a busy machine the session may end before.
	for down := ""; !strings.Contains(down, "the bucket does not answer"); {
		awaitEvent(t, events, "the watch does not start", isUp)
		js.on.Store(true)
		down = awaitEvent(t, events, "the watch is not down", isDown).Down.Error()
		js.on.Store(false)
	}
	e := awaitEvent(t, events, "the watch does not come up again", func(e Event) bool {
		return e.Up || e.Reset || e.Down != nil
	})
	if e.Reset {
		t.Error("the session has ended, although the bucket answers again")
	}
}

// In a bucket of one key, each write replaces all messages. A new snapshot does no harm then, and is not an
// error.
func TestReplacedMessagesOfABucketOfOneKeyAreRoutine(t *testing.T) {
	t.Parallel()
	f := newFixture(t, natstest.Start(t).Connect())
	f.publish(credential(1, time.Hour))
	events := followWatch(t, &Watch{
		JS: f.js, Bucket: messages.DefaultBucket, Keys: []string{AllKeys}, CheckEvery: 50 * time.Millisecond,
	})
	isReady := func(e Event) bool { return e.Ready }
	awaitEvent(t, events, "the first snapshot does not become complete", isReady)
	f.publish(credential(2, time.Hour))
	e := awaitEvent(t, events, "the check does not end the session", func(e Event) bool {
		return errors.Is(e.Down, errReplaced)
	})
	if !IsRoutine(e.Down) {
		t.Errorf("%q does not count as routine", e.Down)
	}
	awaitEvent(t, events, "the second snapshot does not become complete", isReady)
}

func TestBucketIsReplacedOnlyIfNoMessageOfTheLastCheckIsLeft(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		delivered, checked uint64 // the last sequences
		first, last        uint64 // of the stream now
		want               bool
	}{
		"nothing has changed":             {1, 1, 1, 1, false},
		"one more message":                {1, 1, 1, 2, false},
		"all messages are newer":          {1, 1, 2, 2, true},
		"one of two messages is newer":    {2, 2, 2, 3, false},
		"nothing was ever delivered":      {0, 1, 2, 2, false},
		"purged, and nothing was written": {1, 1, 2, 1, true},
	} {
		w := Watch{last: tt.delivered, checked: tt.checked}
		now := &jetstream.StreamInfo{State: jetstream.StreamState{FirstSeq: tt.first, LastSeq: tt.last}}
		if got := w.isReplaced(now); got != tt.want {
			t.Errorf("%s: replaced is %t, want %t", name, got, tt.want)
		}
	}
}

// purging is a JetStream that purges the stream between the creation of the first consumer and its first
// delivery.
type purging struct {
	jetstream.JetStream
	done bool
}

func (p *purging) CreateConsumer(
	ctx context.Context, stream string, cfg jetstream.ConsumerConfig,
) (jetstream.Consumer, error) {
	c, err := p.JetStream.CreateConsumer(ctx, stream, cfg)
	if err == nil && !p.done {
		p.done = true
		var st jetstream.Stream
		if st, err = p.Stream(ctx, stream); err == nil {
			err = st.Purge(ctx)
		}
	}
	return c, err
}

// No message arrives then, so no message's number of pending messages shows that the snapshot is complete.
func TestSnapshotOfABucketThatIsPurgedMeanwhileBecomesComplete(t *testing.T) {
	t.Parallel()
	f := newFixture(t, natstest.Start(t).Connect())
	f.publish(credential(1, time.Hour))
	events := followWatch(t, &Watch{
		JS: &purging{JetStream: f.js}, Bucket: messages.DefaultBucket, Keys: []string{AllKeys},
		CheckEvery: 50 * time.Millisecond,
	})
	awaitEvent(t, events, "the snapshot does not become complete", func(e Event) bool { return e.Ready })
}
