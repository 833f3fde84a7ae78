package kv

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// event is one thing that a watch tells.
type event struct {
	reset bool   // a snapshot begins: the first one, one after a loss, or that of a bucket made anew
	ready bool   // the snapshot is complete
	key   string // otherwise: an entry
	value []byte
	rev   uint64
	gone  bool // deleted, purged or expired
}

// watch follows the keys of one bucket for as long as its run lasts.
//
// It stands on an ordered pull consumer with a heartbeat of a second and looks at the stream's birth date, because the
// watch of the stock KV client can be blind for 10 to 20 s after a restart, and for ever after its bucket was made anew.
type watch struct {
	js     jetstream.JetStream
	bucket string
	keys   []string
	emit   func(event) // called from one goroutine at a time; must not block for long
	// missing is called when the bucket is not there; nil: wait for it.
	missing func(context.Context) error
	// trouble is told why the watch had to start over; nil: nobody is told.
	trouble func(error)
}

const (
	watchHeartbeat  = time.Second
	watchCheckEvery = 30 * time.Second // catches a bucket made anew that no error announced
	watchCheckSoon  = 500 * time.Millisecond
	watchRetryMin   = 100 * time.Millisecond
	watchRetryMax   = 5 * time.Second
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
		if err != nil && w.trouble != nil {
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
		case <-time.After(retry):
		}
		retry = min(2*retry, watchRetryMax)
	}
}

// errRecreated ends a session when the bucket is not the one that the consumer began with.
var errRecreated = errors.New("kv: the bucket was made anew, purged, or went back in time")

func (w *watch) session(ctx context.Context) error {
	stream := "KV_" + w.bucket
	prefix := "$KV." + w.bucket + "."
	filters := make([]string, len(w.keys))
	for i, k := range w.keys {
		filters[i] = prefix + k
	}
	st, err := w.js.Stream(ctx, stream)
	if err != nil {
		return err
	}
	born := st.CachedInfo().Created
	seen := st.CachedInfo().State.LastSeq // the highest sequence that the stream is known to have had
	consumer, err := w.js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{
		FilterSubjects: filters, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
	})
	if err != nil {
		return err
	}
	info := consumer.CachedInfo()
	msgs := make(chan jetstream.Msg, 256)
	suspect := make(chan struct{}, 1)
	stop := make(chan struct{})
	consume, err := consumer.Consume(
		func(m jetstream.Msg) {
			select {
			case msgs <- m:
			case <-stop:
			}
		},
		jetstream.PullHeartbeat(watchHeartbeat), jetstream.PullExpiry(10*time.Second),
		jetstream.ConsumeErrHandler(func(jetstream.ConsumeContext, error) {
			select {
			case suspect <- struct{}{}:
			default:
			}
		}))
	if err != nil {
		return err
	}
	closed := consume.Closed() // once: each call starts a goroutine that lasts as long as the subscription
	defer func() {
		close(stop)
		consume.Stop()
		<-closed
	}()

	w.emit(event{reset: true})
	delivered := false // an empty stream's first sequence lies behind its last
	ready := info != nil && info.NumPending == 0
	if ready {
		w.emit(event{ready: true})
	}
	check := time.NewTimer(watchCheckEvery)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-closed:
			return errors.New("kv: the watch was closed")
		case m := <-msgs:
			md, err := m.Metadata()
			if err != nil {
				continue
			}
			seen, delivered = max(seen, md.Sequence.Stream), true
			h := m.Headers()
			w.emit(event{
				key: strings.TrimPrefix(m.Subject(), prefix), value: m.Data(), rev: md.Sequence.Stream,
				gone: h.Get("KV-Operation") != "" || h.Get(jetstream.MarkerReasonHeader) != "",
			})
			if !ready && md.NumPending == 0 {
				ready = true
				w.emit(event{ready: true})
			}
			continue
		case <-suspect:
		case <-check.C:
		}
		asking, cancel := context.WithTimeout(ctx, 2*time.Second)
		now, err := st.Info(asking)
		cancel()
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			return err
		case err != nil: // nobody answers now: ask again soon
			check.Reset(watchCheckSoon)
		case !now.Created.Equal(born), now.State.LastSeq < seen, delivered && now.State.FirstSeq > seen:
			// Made anew, gone back to an earlier state (a restored backup), or purged: the consumer would wait for
			// sequences that do not come. Where all messages are merely newer than seen, starting over does no harm.
			return errRecreated
		default:
			seen = now.State.LastSeq
			check.Reset(watchCheckEvery)
		}
	}
}
