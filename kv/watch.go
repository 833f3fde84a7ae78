package kv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// event is one thing that a watch tells.
type event struct {
	reset bool   // a snapshot begins: the first one, one after a loss, or that of a bucket made anew
	anew  bool   // with reset: it is another bucket than before
	ready bool   // the snapshot is complete
	key   string // otherwise: an entry
	value []byte
	rev   uint64
	gone  bool // deleted, purged or expired
}

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
	emit   func(event) // called from one goroutine at a time; must not block for long
	// missing is called when the bucket is not there; nil: wait for it.
	missing func(context.Context) error
	// trouble is told why the watch had to start over; nil: nobody is told.
	trouble func(error)

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
}

const (
	watchHeartbeat  = time.Second
	watchCheckEvery = 30 * time.Second // catches a bucket made anew or purged, which no error announces
	watchCheckOwner = 5 * time.Second  // the same for the few who put back what was lost
	watchCheckSoon  = 500 * time.Millisecond
	watchRetryMin   = 100 * time.Millisecond
	watchRetryMax   = 3 * time.Second
	watchAsk        = 2 * time.Second // for one answer of JetStream
	// watchResume is how long after the last word of the stream a session may go on where the last one ended. It is less
	// than markerTTL, because after that what expired meanwhile leaves no trace.
	watchResume    = markerTTL - watchCheckEvery/2
	watchForgotten = 30 * time.Second // after which the server removes a consumer that nobody asks
)

// run blocks until ctx ends.
func (w *watch) run(ctx context.Context) {
	retry := watchRetryMin
	for ctx.Err() == nil {
		began := time.Now()
		err := w.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && w.trouble != nil && !errors.Is(err, errTurnover) && !errors.Is(err, errReconnected) {
			w.trouble(err)
		}
		if errors.Is(err, jetstream.ErrStreamNotFound) && w.missing != nil {
			if err := w.missing(ctx); err != nil && w.trouble != nil {
				w.trouble(err)
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

// session follows the stream until something goes wrong, and says what.
func (w *watch) session(ctx context.Context) error {
	connected := w.js.Conn().StatusChanged(nats.CONNECTED)
	defer w.js.Conn().RemoveStatusListener(connected)
	st, consumer, err := w.open(ctx)
	if err != nil {
		return err
	}
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
	every := watchCheckEvery
	if w.missing != nil {
		every = watchCheckOwner
	}
	check := time.NewTimer(every)
	defer check.Stop()
	behind := false // at the last look, the server had sent what has not arrived
	for delivered := uint64(0); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-closed:
			return errClosed
		case <-connected:
			return errReconnected
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
			now, err := st.Info(asking)
			var own *jetstream.ConsumerInfo
			if err == nil {
				own, err = consumer.Info(asking)
			}
			cancel()
			switch {
			case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrConsumerNotFound):
				return err
			case err != nil: // nobody answers now: ask again soon
				check.Reset(watchCheckSoon)
			case !w.same(now):
				return errRecreated
			case w.turnedOver(now):
				return errTurnover
			case own.Delivered.Consumer > delivered && behind:
				return errGap
			case own.Delivered.Consumer > delivered: // or it is just arriving
				behind = true
				check.Reset(watchCheckSoon)
			default:
				behind = false
				w.seen, w.asked, w.alive = now.State.LastSeq, now.State.LastSeq, time.Now()
				check.Reset(every)
			}
		}
	}
}

// open makes the consumer of a session: from after the last message where the stream is still the same, else with a
// snapshot.
func (w *watch) open(ctx context.Context) (jetstream.Stream, jetstream.Consumer, error) {
	stream := "KV_" + w.bucket
	asking, cancel := context.WithTimeout(ctx, watchAsk)
	defer cancel()
	st, err := w.js.Stream(asking, stream)
	if err != nil {
		return nil, nil, err
	}
	if w.consumer != "" {
		removing, removed := context.WithTimeout(asking, watchAsk/8)
		_ = w.js.DeleteConsumer(removing, stream, w.consumer) // it may have gone with its server, or may not be removed by this user
		removed()
		w.consumer = ""
	}
	info := st.CachedInfo()
	resumes := w.last > 0 && w.same(info) && !w.turnedOver(info) && time.Since(w.alive) < watchResume
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
	consumer, err := w.js.CreateConsumer(asking, stream, cfg)
	if err != nil {
		return nil, nil, err
	}
	w.seen, w.asked, w.alive = info.State.LastSeq, info.State.LastSeq, time.Now()
	if !resumes {
		anew := !w.born.IsZero() && !info.Created.Equal(w.born)
		w.born, w.last, w.ready = info.Created, 0, false
		w.emit(event{reset: true, anew: anew})
	}
	if made := consumer.CachedInfo(); made != nil {
		w.consumer = made.Name
		w.complete(made.NumPending)
	}
	return st, consumer, nil
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

func (w *watch) prefix() string { return "$KV." + w.bucket + "." }

// told takes one message.
func (w *watch) told(m jetstream.Msg, md *jetstream.MsgMetadata) {
	w.last, w.seen, w.alive = md.Sequence.Stream, max(w.seen, md.Sequence.Stream), time.Now()
	h := m.Headers()
	w.emit(event{
		key: strings.TrimPrefix(m.Subject(), w.prefix()), value: m.Data(), rev: md.Sequence.Stream,
		gone: h.Get("KV-Operation") != "" || h.Get(jetstream.MarkerReasonHeader) != "",
	})
	w.complete(md.NumPending)
}

// complete tells that the snapshot is complete, once.
func (w *watch) complete(pending uint64) {
	if !w.ready && pending == 0 {
		w.ready = true
		w.emit(event{ready: true})
	}
}
