package bucket

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// withoutConsumer is the state of a [Watch] with LeaderReads: whether it gets consumers. A server allows only so
// many consumers for a stream, and whoever knows the name of a consumer can remove it. The watch of a worker must
// not depend on that.
type withoutConsumer struct {
	lost  int           // consumers in a row that were lost soon
	pause time.Duration // until the next try to get a consumer; 0: the last one lived long
	until time.Time     // when the pause ends
}

const (
	leaderEvery    = time.Second
	leaderPauseMin = 30 * time.Second
	leaderPauseMax = 5 * time.Minute
	consumerLives  = 30 * time.Second // a consumer that was lost earlier counts as lost soon
	consumersLost  = 2                // a single one may be lost with its server
)

// readsLeader reports whether the watch reads the leader now, and does without a consumer.
func (w *Watch) readsLeader(now time.Time) bool { return w.LeaderReads && now.Before(w.until) }

// sessionEnded notes why a session with a consumer has ended, and returns the error to emit.
func (w *Watch) sessionEnded(err error, began time.Time) error {
	if !w.LeaderReads {
		return err
	}
	var refusal *jetstream.APIError
	switch {
	case time.Since(began) >= consumerLives:
		w.lost, w.pause = 0, 0
		return err
	case errors.Is(err, errNoConsumer) && (errors.As(err, &refusal) || errors.Is(err, nats.ErrPermissionViolation)):
		w.lost = consumersLost // asking again would not help
	case errors.Is(err, errNoConsumer), errors.Is(err, jetstream.ErrConsumerDeleted),
		errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, jetstream.ErrNoHeartbeat):
		w.lost++
	}
	if w.lost < consumersLost {
		return err
	}
	w.lost = 0
	w.pause = min(max(2*w.pause, leaderPauseMin), leaderPauseMax)
	w.until = time.Now().Add(w.pause)
	return fmt.Errorf("%w; for the next %s the leader is read every %s", err, w.pause, leaderEvery)
}

// readLeader delivers events without a consumer, until it is time to try to get one. It returns an error if the
// leader cannot be read, or if the bucket is not the same any more.
func (w *Watch) readLeader(ctx context.Context) error {
	info, err := w.timedInfo(ctx)
	if err != nil {
		return err
	}
	if !w.canResume(info) {
		w.reset(info)
	}
	w.remember(info)
	end := time.NewTimer(time.Until(w.until))
	defer end.Stop()
	read := time.NewTicker(leaderEvery)
	defer read.Stop()
	check := time.NewTicker(cmp.Or(w.CheckEvery, watchCheckEvery))
	defer check.Stop()
	for up := false; ; {
		if err := w.readChanges(ctx); err != nil {
			return err
		}
		if !up {
			up = true
			w.Emit(Event{Up: true})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return nil
		case <-read.C:
		case <-check.C:
			info, err := w.timedInfo(ctx)
			switch {
			case err != nil:
				return err
			case !w.isSame(info):
				return errRecreated
			case w.isReplaced(info):
				return errReplaced
			}
			w.remember(info)
		}
	}
}

// timedInfo is info within watchTimeout.
func (w *Watch) timedInfo(ctx context.Context) (*jetstream.StreamInfo, error) {
	asking, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	return w.info(asking)
}

// readChanges delivers all messages after the last one that was delivered. Each key has one message, so after a
// reset that is a snapshot.
func (w *Watch) readChanges(ctx context.Context) error {
	for {
		m, err := w.next(ctx)
		switch {
		case err != nil:
			return err
		case m == nil:
			w.complete(0)
			return nil
		}
		var h nats.Header
		if len(m.Headers) > 0 {
			if h, err = nats.DecodeHeadersMsg(m.Headers); err != nil {
				return fmt.Errorf("read the headers of message %d: %w", m.Sequence, err)
			}
		}
		w.deliver(m.Subject, m.Data, h, m.Sequence)
	}
}

// Stored is a message of a stream, as STREAM.MSG.GET returns it.
type Stored struct {
	Subject  string `json:"subject"`
	Sequence uint64 `json:"seq"`
	Data     []byte `json:"data"`
	Headers  []byte `json:"hdrs"`
}

// errCodeNoMessage is the server's answer if there is no such message.
const errCodeNoMessage = 10037

// ReadLeader reads a message of a bucket from the leader of its stream; nil: there is none. query is the body of
// STREAM.MSG.GET. (Get of the KV client and GetMsg of the jetstream package would send a direct get, which any
// replica may answer with an old value.) An answer of the server that is an error is a *jetstream.APIError.
func ReadLeader(ctx context.Context, js jetstream.JetStream, bucket string, query any) (*Stored, error) {
	body, err := json.Marshal(query)
	if err != nil {
		return nil, err
	}
	subject := InDomain(js.Options().Domain, StreamAPI("MSG.GET", bucket))
	m, err := js.Conn().RequestWithContext(ctx, subject, body)
	if err != nil {
		return nil, err
	}
	var reply struct {
		Error   *jetstream.APIError `json:"error"`
		Message *Stored             `json:"message"`
	}
	switch err := json.Unmarshal(m.Data, &reply); {
	case err != nil, reply.Error == nil && reply.Message == nil:
		return nil, errors.New("the answer has no message")
	case reply.Error == nil:
		return reply.Message, nil
	case reply.Error.ErrorCode == errCodeNoMessage:
		return nil, nil //nolint:nilnil // no message is an answer
	default:
		return nil, reply.Error
	}
}

// next reads the first message of the keys after the last one that was delivered, from the leader; nil: there is
// none.
func (w *Watch) next(ctx context.Context) (*Stored, error) {
	asking, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	m, err := ReadLeader(asking, w.JS, w.Bucket,
		map[string]any{"seq": w.last + 1, "next_by_subj": Subject(w.Bucket, w.Keys[0])})
	if err != nil {
		return nil, fmt.Errorf("read the leader of %s: %w", w.Bucket, err)
	}
	return m, nil
}
