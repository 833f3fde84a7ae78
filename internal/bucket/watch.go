package bucket

import (
	"cmp"
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Watch is a feed of some keys of one bucket, through a JetStream consumer.
//
// It uses a pull consumer with a heartbeat of a second. After any error it creates another consumer, which
// continues at the position where the last one ended; and it compares the stream's creation time. The watch of
// the stock KV client was observed to deliver nothing for 10 to 20 s after a restart, and never again after its
// bucket was recreated. The ordered consumer of nats.go retries with pauses that grow to 10 s, and was observed
// to deliver nothing for 25 s while servers were lost one after another (docs/architecture.md#decision-watch).
type Watch struct {
	JS     jetstream.JetStream
	Bucket string
	Keys   []string    // with wildcards
	Emit   func(Event) // called from one goroutine at a time; must not block for long
	// Narrow avoids STREAM.INFO, for users without permission for it: it shows the AppIDs of all accounts. Each
	// session then begins with a snapshot.
	Narrow bool
	// CheckEvery is the time between two checks of the bucket; 0 is 30 s.
	CheckEvery time.Duration
	// LeaderReads lets the watch continue without a consumer, if it gets none or the server removes it again and
	// again: it then reads the leader of the stream once a second, and tries to get a consumer from time to time. The
	// user needs permission for STREAM.MSG.GET. Keys must have one element, and Narrow must not be set.
	LeaderReads bool
	// Missing is called if the bucket does not exist, before the next session. nil: the watch waits until it
	// exists.
	Missing func(context.Context) error

	// What is known of the stream, from one session to the next.
	created  time.Time
	highest  uint64    // the highest sequence that the stream is known to have had
	checked  uint64    // the stream's last sequence at the last check. Messages do not change it: see isReplaced
	last     uint64    // the sequence of the last message that was delivered; 0: none
	ready    bool      // the snapshot is complete
	alive    time.Time // the time of the last sign of life of the stream
	consumer string    // the consumer of the last session. The next session removes it: see removeConsumer

	withoutConsumer
}

const (
	watchHeartbeat  = time.Second
	watchCheckEvery = 30 * time.Second // detects a recreated or purged bucket, which no error announces
	watchCheckSoon  = 500 * time.Millisecond
	watchRetryMin   = 100 * time.Millisecond
	watchRetryMax   = 3 * time.Second
	watchTimeout    = 2 * time.Second  // of one request to JetStream
	watchRemove     = watchTimeout / 8 // for the removal of a consumer, which is not worth waiting for
	// watchResume is how long after the last sign of life of the stream a session may resume at the position of
	// the last one. It is less than MarkerTTL, because after that an expiry in the meantime leaves no trace.
	watchResume = MarkerTTL - watchCheckEvery/2
	// watchUnanswered is the number of failed checks until the feed counts as down: one check may fail while a
	// leader is elected.
	watchUnanswered = 2
	watchInactive   = 30 * time.Second // after which the server removes a consumer that is not used
)

// MarkerTTL is how long the server keeps the marker of an expired record. A feed that was down for longer does
// not see the marker, and does not need it: the record itself says when it ends.
const MarkerTTL = time.Minute

// Errors that end a session.
var (
	// errRecreated: this is not the stream with which the session began, or the stream went back to an earlier
	// state.
	errRecreated = errors.New("the bucket was recreated, or restored from a backup")
	// errReplaced: no message of the last check is left. The bucket was purged; or it has few keys, all of
	// which were written since, and then a new snapshot does no harm.
	errReplaced = errors.New("all messages of the bucket are new")
	// errReconnected: messages that were in flight when the connection broke are lost, and the server counts
	// them as delivered.
	errReconnected  = errors.New("the connection was lost")
	errDisconnected = errors.New("not connected to NATS")
	errGap          = errors.New("the watch has missed a message")
	errClosed       = errors.New("the watch was closed")
	errNoConsumer   = errors.New("JetStream gives no consumer")
)

// IsRoutine reports whether the reason of an [Event] with Down is part of normal operation and not worth
// logging.
func IsRoutine(down error) bool {
	return errors.Is(down, errReplaced) || errors.Is(down, errReconnected)
}

// Run delivers events until ctx ends. It is called once.
func (w *Watch) Run(ctx context.Context) {
	defer func() {
		removing, cancel := context.WithTimeout(context.WithoutCancel(ctx), watchRemove)
		defer cancel()
		w.removeConsumer(removing)
	}()
	retry := watchRetryMin
	for ctx.Err() == nil {
		began, before := time.Now(), w.JS.Conn().LastError()
		var err error
		if w.readsLeader(began) {
			if err = w.readLeader(ctx); err == nil {
				continue // a consumer is tried again
			}
		} else {
			err = w.session(ctx)
			if refusal := refused(w.JS.Conn(), before, ""); refusal != nil && errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("watch %s: %w: %w", w.Bucket, err, refusal)
			}
			err = w.sessionEnded(err, began)
		}
		if ctx.Err() != nil {
			return
		}
		w.Emit(Event{Down: err})
		if errors.Is(err, jetstream.ErrStreamNotFound) && w.Missing != nil {
			if err := w.Missing(ctx); err != nil {
				w.Emit(Event{Down: err})
			}
		}
		if time.Since(began) > watchRetryMax { // the session worked for a while: this is a new problem
			retry = watchRetryMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(jitter(retry)): // many Readers lose their consumers at the same time
		}
		retry = min(2*retry, watchRetryMax)
	}
}

// session delivers events until something fails, and returns the error.
func (w *Watch) session(ctx context.Context) error {
	status := w.JS.Conn().StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer w.JS.Conn().RemoveStatusListener(status)
	consumer, err := w.open(ctx)
	if err != nil {
		return err
	}
	w.Emit(Event{Up: true})
	msgs := make(chan jetstream.Msg, 256)
	failed := make(chan error, 1)
	stop := make(chan struct{})
	consume, err := consumer.Consume(
		func(m jetstream.Msg) {
			select {
			case msgs <- m:
			case <-stop:
			}
		},
		jetstream.PullHeartbeat(watchHeartbeat), jetstream.PullExpiry(10*time.Second),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			select {
			case failed <- err:
			default:
			}
		}))
	if err != nil {
		return err
	}
	closed := consume.Closed()
	defer func() {
		close(stop)
		consume.Stop()
		<-closed
	}()
	every := cmp.Or(w.CheckEvery, watchCheckEvery)
	check := time.NewTimer(every)
	defer check.Stop()
	behind := false // at the last check, the server had sent messages that have not arrived
	unanswered := 0 // checks without an answer since the last answered one
	for delivered := uint64(0); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-closed:
			return errClosed
		case now := <-status:
			switch now {
			case nats.CONNECTED:
				return errReconnected
			case nats.CLOSED:
				return errDisconnected
			}
			// RECONNECTING: the heartbeats do not report it, and messages in flight may still arrive.
			w.Emit(Event{Down: errDisconnected})
		case err := <-failed: // a missing heartbeat, or a consumer that was lost with its server
			return fmt.Errorf("watch %s: %w", w.Bucket, err)
		case m := <-msgs:
			md, err := m.Metadata()
			if err != nil {
				return err
			}
			if delivered++; md.Sequence.Consumer != delivered {
				return errGap
			}
			w.deliver(m.Subject(), m.Data(), m.Headers(), md.Sequence.Stream)
			w.complete(md.NumPending)
		case <-check.C:
			asking, cancel := context.WithTimeout(ctx, watchTimeout)
			now, err := w.info(asking)
			var own *jetstream.ConsumerInfo
			if err == nil {
				own, err = consumer.Info(asking)
			}
			cancel()
			switch {
			case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrConsumerNotFound):
				return err
			case err != nil: // check again soon: a node that is cut off from the others still sends heartbeats
				if unanswered++; unanswered == watchUnanswered {
					w.Emit(Event{Down: fmt.Errorf("the bucket does not answer: %w", err)})
				}
				check.Reset(watchCheckSoon)
			case now != nil && !w.isSame(now):
				return errRecreated
			case now != nil && w.isReplaced(now):
				return errReplaced
			case own.Delivered.Consumer > delivered && behind:
				return errGap
			case own.Delivered.Consumer > delivered: // it may be about to arrive
				behind = true
				check.Reset(watchCheckSoon)
			default:
				if unanswered >= watchUnanswered {
					w.Emit(Event{Up: true})
				}
				behind, unanswered = false, 0
				w.remember(now)
				w.complete(own.NumPending) // no message announces it if the pending ones were purged
				check.Reset(every)
			}
		}
	}
}

// info asks for the state of the stream. It returns nil if w is narrow.
func (w *Watch) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	if w.Narrow {
		return nil, nil //nolint:nilnil // nothing is known, and nothing is wrong
	}
	st, err := w.JS.Stream(ctx, Stream(w.Bucket))
	if err != nil {
		return nil, err
	}
	return st.CachedInfo(), nil
}

// remember notes the state of the stream at a check. now may be nil.
func (w *Watch) remember(now *jetstream.StreamInfo) {
	if now != nil {
		w.highest, w.checked, w.alive = now.State.LastSeq, now.State.LastSeq, time.Now()
	}
}

// open creates the consumer of a session: after the last message if the stream is still the same, else with a
// snapshot.
func (w *Watch) open(ctx context.Context) (jetstream.Consumer, error) {
	asking, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	info, err := w.info(asking)
	if err != nil {
		return nil, err
	}
	removing, removed := context.WithTimeout(asking, watchRemove)
	w.removeConsumer(removing)
	removed()
	resumes := w.canResume(info)
	cfg := jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, AckPolicy: jetstream.AckNonePolicy,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: watchInactive,
	}
	if resumes {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, w.last+1
	}
	filters := make([]string, len(w.Keys))
	for i, k := range w.Keys {
		filters[i] = Subject(w.Bucket, k)
	}
	if len(filters) == 1 { // nats.go then puts the filter into the request's subject, where a permission can name it
		cfg.FilterSubject = filters[0]
	} else {
		cfg.FilterSubjects = filters
	}
	// The name is chosen here and not by nats.go, so that the consumer can be removed even if the answer to the
	// request that creates it is lost.
	w.consumer = cryptorand.Text()
	cfg.Name = w.consumer
	consumer, err := w.JS.CreateConsumer(asking, Stream(w.Bucket), cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoConsumer, err)
	}
	w.remember(info)
	if !resumes {
		w.reset(info)
	}
	if cached := consumer.CachedInfo(); cached != nil {
		w.complete(cached.NumPending)
	}
	return consumer, nil
}

// canResume reports whether a session may continue after the last message that was delivered. info may be nil.
func (w *Watch) canResume(info *jetstream.StreamInfo) bool {
	return info != nil && w.last > 0 && w.isSame(info) && !w.isReplaced(info) && time.Since(w.alive) < watchResume
}

// reset begins a snapshot. info may be nil.
func (w *Watch) reset(info *jetstream.StreamInfo) {
	if info != nil {
		w.created = info.Created
	}
	w.last, w.ready = 0, false
	w.Emit(Event{Reset: true})
}

// removeConsumer removes the consumer of the last session: consumers that are left behind count against the
// limit of a stream (1,000 by default), and a lost node does not even expire them. It may already be gone with
// its server, or this user may have no permission to remove it; the server then removes it when it was inactive
// for a while.
func (w *Watch) removeConsumer(ctx context.Context) {
	if w.consumer != "" {
		_ = w.JS.DeleteConsumer(ctx, Stream(w.Bucket), w.consumer)
		w.consumer = ""
	}
}

// isSame reports whether the stream is still the stream that the last session followed. It is not if it was
// recreated or went back to an earlier state (a restored backup): a consumer would then wait for sequences that
// do not come.
func (w *Watch) isSame(now *jetstream.StreamInfo) bool {
	return now.Created.Equal(w.created) && now.State.LastSeq >= w.highest
}

// isReplaced reports whether no message of the last check is left. It does not compare with the last message that was
// delivered, because that message may have been written after a purge.
func (w *Watch) isReplaced(now *jetstream.StreamInfo) bool {
	return w.last > 0 && now.State.FirstSeq > w.checked
}

// deliver emits the event of one message of the stream.
func (w *Watch) deliver(subject string, data []byte, h nats.Header, sequence uint64) {
	w.last, w.highest, w.alive = sequence, max(w.highest, sequence), time.Now()
	w.Emit(Event{
		Key: strings.TrimPrefix(subject, keyPrefix(w.Bucket)), Value: data, Revision: sequence, Removed: isRemoval(h),
	})
}

// complete emits that the snapshot is complete, once, when nothing of it is pending.
func (w *Watch) complete(pending uint64) {
	if !w.ready && pending == 0 {
		w.ready = true
		w.Emit(Event{Ready: true})
	}
}
