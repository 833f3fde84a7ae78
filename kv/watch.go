package kv

import (
	"cmp"
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/kv/internal/feed"
)

// watch follows the keys of one bucket for as long as its run lasts.
//
// It stands on a pull consumer with a heartbeat of a second, which it makes anew, from where the last one ended, after
// any trouble; and it looks at the stream's birth date. The watch of the stock KV client can be blind for 10 to 20 s
// after a restart, and for ever after its bucket was made anew; the ordered consumer of nats.go retries with pauses that
// grow to 10 s, and was seen blind for 25 s where servers were lost one after another.
type watch struct {
	js     jetstream.JetStream
	bucket string
	keys   []string
	// narrow: it never asks the stream about itself, because who may do that sees the AppIDs of all accounts. Then each
	// session begins with a snapshot.
	narrow bool
	emit   func(feed.Event) // called from one goroutine at a time; must not block for long
	every  time.Duration    // between two looks at the bucket; 0: watchCheckEvery, or watchCheckOwner
	// missing is called when the bucket is not there; nil: wait for it.
	missing func(context.Context) error

	// What the sessions know of the stream, from one to the next.
	born  time.Time
	seen  uint64    // the highest sequence that it is known to have had
	asked uint64    // its last sequence when it was asked about itself: not that of messages, which may be of after a purge
	last  uint64    // the sequence of the last message that was delivered; 0: none
	ready bool      // the snapshot is complete
	alive time.Time // when the stream was last heard of
	// consumer is the one of the last session. The next removes it: those that are left behind count against the 1,000
	// that a server allows for a stream, and on a lost node they are not even forgotten.
	consumer string
	begun    bool // the first session
}

const (
	watchHeartbeat  = time.Second
	watchCheckEvery = 30 * time.Second // catches a bucket made anew or purged, which no error announces
	watchCheckOwner = 5 * time.Second  // the same for the few who put back what was lost
	watchCheckSoon  = 500 * time.Millisecond
	watchRetryMin   = 100 * time.Millisecond
	watchRetryMax   = 3 * time.Second
	watchAsk        = 2 * time.Second // for one answer of JetStream
	watchRemove     = watchAsk / 8    // for the removal of a consumer, which nobody needs to wait for
	// watchResume is how long after the last word of the stream a session may go on where the last one ended. It is less
	// than markerTTL, because after that what expired meanwhile leaves no trace.
	watchResume    = markerTTL - watchCheckEvery/2
	watchDeaf      = 2                // looks without an answer: one may be lost with a leader
	watchForgotten = 30 * time.Second // after which the server removes a consumer that nobody asks
)

// run blocks until ctx ends.
func (w *watch) run(ctx context.Context) {
	defer func() {
		removing, cancel := context.WithTimeout(context.WithoutCancel(ctx), watchRemove)
		defer cancel()
		w.removeConsumer(removing)
	}()
	retry := watchRetryMin
	for ctx.Err() == nil {
		began, before := time.Now(), w.js.Conn().LastError()
		err := w.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if refusal := denied(w.js.Conn(), before, ""); refusal != nil && errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("kv: watching %s: %w", w.bucket, refusal)
		}
		w.emit(feed.Event{Down: err})
		if errors.Is(err, jetstream.ErrStreamNotFound) && w.missing != nil {
			if err := w.missing(ctx); err != nil {
				w.emit(feed.Event{Down: err})
			}
		}
		if time.Since(began) > watchRetryMax { // the session worked for a while: its end is news, not a refrain
			retry = watchRetryMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry/2 + rand.N(retry)): // many readers lose their consumers at the same time
		}
		retry = min(2*retry, watchRetryMax)
	}
}

var (
	// errRecreated ends a session when the bucket is not the one that the consumer began with.
	errRecreated = errors.New("kv: the bucket was made anew, or went back in time")
	// errTurnover: nothing that was there at the last look is there any more. It was purged; or, in a bucket of a few
	// keys, all of them were written since, and starting over does no harm.
	errTurnover = errors.New("kv: all messages of the bucket are new")
	// errReconnected: what was on its way when the connection broke is lost, and the server does not know it.
	errReconnected = errors.New("kv: the connection was lost")
	errGap         = errors.New("kv: the watch has missed a message")
	errClosed      = errors.New("kv: the watch was closed")
)

// isTurn says whether a session ended for a reason that is no trouble.
func isTurn(err error) bool { return errors.Is(err, errTurnover) || errors.Is(err, errReconnected) }

// session follows the stream until something goes wrong, and says what.
func (w *watch) session(ctx context.Context) error {
	status := w.js.Conn().StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer w.js.Conn().RemoveStatusListener(status)
	consumer, err := w.open(ctx)
	if err != nil {
		return err
	}
	w.emit(feed.Event{Up: true})
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
	every := cmp.Or(w.every, watchCheckEvery)
	if w.every == 0 && w.missing != nil {
		every = watchCheckOwner
	}
	check := time.NewTimer(every)
	defer check.Stop()
	behind := false // at the last look, the server had sent what has not arrived
	unanswered := 0 // looks, since the last one that was answered
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
			w.emit(feed.Event{Down: errDisconnected}) // nobody misses a heartbeat meanwhile; what is on its way may still come
		case err := <-failed: // a heartbeat that did not come, a consumer that has gone with its server
			return fmt.Errorf("kv: watching %s: %w", w.bucket, err)
		case m := <-msgs:
			md, err := m.Metadata()
			if err != nil {
				return err
			}
			if delivered++; md.Sequence.Consumer != delivered {
				return errGap
			}
			w.told(m, md)
		case <-check.C:
			asking, cancel := context.WithTimeout(ctx, watchAsk)
			now, err := w.info(asking)
			var own *jetstream.ConsumerInfo
			if err == nil {
				own, err = consumer.Info(asking)
			}
			cancel()
			switch {
			case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrConsumerNotFound):
				return err
			case err != nil: // nobody answers now: ask again soon. A node that was cut off from the others still sends heartbeats
				if unanswered++; unanswered == watchDeaf {
					w.emit(feed.Event{Down: fmt.Errorf("kv: the bucket does not answer: %w", err)})
				}
				check.Reset(watchCheckSoon)
			case now != nil && !w.same(now):
				return errRecreated
			case now != nil && w.turnedOver(now):
				return errTurnover
			case own.Delivered.Consumer > delivered && behind:
				return errGap
			case own.Delivered.Consumer > delivered: // or it is just arriving
				behind = true
				check.Reset(watchCheckSoon)
			default:
				if unanswered >= watchDeaf {
					w.emit(feed.Event{Up: true})
				}
				behind, unanswered = false, 0
				w.looked(now)
				w.complete(own.NumPending) // where what was pending was purged, no message tells it
				check.Reset(every)
			}
		}
	}
}

// info asks the stream about itself; nil where this watch must not.
func (w *watch) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	if w.narrow {
		return nil, nil //nolint:nilnil // nothing is known, and nothing is wrong
	}
	st, err := w.js.Stream(ctx, w.stream())
	if err != nil {
		return nil, err
	}
	return st.CachedInfo(), nil
}

// looked remembers what the stream said of itself.
func (w *watch) looked(now *jetstream.StreamInfo) {
	if now != nil {
		w.seen, w.asked, w.alive = now.State.LastSeq, now.State.LastSeq, time.Now()
	}
}

// open makes the consumer of a session: from after the last message where the stream is still the same, else with a
// snapshot.
func (w *watch) open(ctx context.Context) (jetstream.Consumer, error) {
	asking, cancel := context.WithTimeout(ctx, watchAsk)
	defer cancel()
	info, err := w.info(asking)
	if err != nil {
		return nil, err
	}
	removing, removed := context.WithTimeout(asking, watchRemove)
	w.removeConsumer(removing)
	removed()
	resumes := info != nil && w.last > 0 && w.same(info) && !w.turnedOver(info) && time.Since(w.alive) < watchResume
	cfg := jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, AckPolicy: jetstream.AckNonePolicy,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: watchForgotten,
	}
	if resumes {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, w.last+1
	}
	filters := make([]string, len(w.keys))
	for i, k := range w.keys {
		filters[i] = w.prefix() + k
	}
	if len(filters) == 1 { // then it stands in the subject of the request too, and a permission can name it
		cfg.FilterSubject = filters[0]
	} else {
		cfg.FilterSubjects = filters
	}
	// Its name is chosen here and not by nats.go: a consumer may be made by a request whose answer is lost.
	w.consumer = cryptorand.Text()
	cfg.Name = w.consumer
	consumer, err := w.js.CreateConsumer(asking, w.stream(), cfg)
	if err != nil {
		return nil, err
	}
	w.looked(info)
	if !resumes {
		anew := w.begun // it may be, and a narrow watch cannot know
		if info != nil {
			anew = w.begun && !info.Created.Equal(w.born)
			w.born = info.Created
		}
		w.begun, w.last, w.ready = true, 0, false
		w.emit(feed.Event{Reset: true, Anew: anew})
	}
	if made := consumer.CachedInfo(); made != nil {
		w.complete(made.NumPending)
	}
	return consumer, nil
}

// removeConsumer removes the consumer of the last session. It may have gone with its server, or may not be removed by this
// user: then the server does so itself.
func (w *watch) removeConsumer(ctx context.Context) {
	if w.consumer != "" {
		_ = w.js.DeleteConsumer(ctx, w.stream(), w.consumer)
		w.consumer = ""
	}
}

// same says whether the stream is still the one that was followed. It is not where it was made anew, or has gone back to
// an earlier state (a restored backup): the consumer would wait for sequences that do not come.
func (w *watch) same(now *jetstream.StreamInfo) bool {
	return now.Created.Equal(w.born) && now.State.LastSeq >= w.seen
}

// turnedOver says whether nothing is left of what was there at the last look.
func (w *watch) turnedOver(now *jetstream.StreamInfo) bool {
	return w.last > 0 && now.State.FirstSeq > w.asked
}

func (w *watch) prefix() string { return keyPrefix(w.bucket) }

func (w *watch) stream() string { return streamName(w.bucket) }

// told takes one message.
func (w *watch) told(m jetstream.Msg, md *jetstream.MsgMetadata) {
	w.last, w.seen, w.alive = md.Sequence.Stream, max(w.seen, md.Sequence.Stream), time.Now()
	h := m.Headers()
	w.emit(feed.Event{
		Key: strings.TrimPrefix(m.Subject(), w.prefix()), Value: m.Data(), Rev: md.Sequence.Stream,
		Gone: h.Get("KV-Operation") != "" || h.Get(jetstream.MarkerReasonHeader) != "",
	})
	w.complete(md.NumPending)
}

// complete tells that the snapshot is complete, once.
func (w *watch) complete(pending uint64) {
	if !w.ready && pending == 0 {
		w.ready = true
		w.emit(feed.Event{Ready: true})
	}
}
