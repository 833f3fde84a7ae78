package kv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/wxkeeper/wxkeeper/kv/internal/feed"
	"github.com/wxkeeper/wxkeeper/messages"
)

// direct follows some accounts without a JetStream consumer. It hears of changes as core NATS messages, which the bucket
// republishes; and it reads by direct gets what those may have missed, because they are sent at most once: at the
// start, after each reconnection, and now and then.
type direct struct {
	nc             *nats.Conn
	bucket, prefix string
	appids         []string
	emit           func(feed.Event) // called from one goroutine at a time

	marks  marks
	begun  bool  // the first snapshot
	ready  bool  // … is complete
	before error // the connection's last error before the session: what was denied then may be granted by now

	every, beat time.Duration // 0: directEvery, directBeat
}

const (
	directEvery  = 30 * time.Second // between two readings of everything
	directBeat   = time.Second      // between two looks whether the server is there
	directAsk    = 2 * time.Second  // for one answer
	directAtOnce = 16               // gets in flight
)

var (
	errDisconnected = errors.New("kv: not connected to NATS")
	errNoBucket     = errors.New("kv: there is no bucket, or JetStream is away")
)

// run blocks until ctx ends.
func (d *direct) run(ctx context.Context) {
	for retry := watchRetryMin; ctx.Err() == nil; retry = min(2*retry, watchRetryMax) {
		began := time.Now()
		err := d.session(ctx)
		if ctx.Err() != nil {
			return
		}
		d.emit(feed.Event{Down: err})
		if time.Since(began) > watchRetryMax {
			retry = watchRetryMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry/2 + rand.N(retry)): // many readers lose their connections at the same time
		}
	}
}

// session follows the accounts until something goes wrong, and says what.
func (d *direct) session(ctx context.Context) error {
	d.before = d.nc.LastError()
	status := d.nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer d.nc.RemoveStatusListener(status)
	published := make(chan *nats.Msg, 1024) // what does not fit is dropped, and found by the next reading
	for _, id := range d.appids {
		subject := messages.PublishedSubject(d.prefix, id, "*")
		sub, err := d.nc.ChanSubscribe(subject, published)
		if err != nil {
			return fmt.Errorf("kv: subscribing to %s: %w", subject, err)
		}
		defer func() { _ = sub.Unsubscribe() }()
	}
	d.emit(feed.Event{Reset: !d.begun, Anew: d.begun}) // a bucket made anew meanwhile may not look so
	d.begun = true
	// The server has taken the subscriptions before anything is read: no change falls between.
	if err := d.ping(ctx); err != nil {
		return err
	}
	deaf := error(nil)
	for _, id := range d.appids {
		if err := d.denied(messages.PublishedSubject(d.prefix, id, "*")); err != nil {
			deaf = fmt.Errorf("kv: hearing of changes of %s: %w", id, err)
		}
	}
	denied := errors.Join(d.readAll(ctx), deaf) // who may not hear reads all the same
	switch {
	case denied == nil:
		d.emit(feed.Event{Up: true})
	case errors.Is(denied, nats.ErrPermissionViolation): // of one account, say: the others are followed
		d.emit(feed.Event{Down: denied})
	default:
		return denied
	}
	beat, read := time.NewTicker(cmp.Or(d.beat, directBeat)), time.NewTicker(cmp.Or(d.every, directEvery))
	defer beat.Stop()
	defer read.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-status:
			if s == nats.CONNECTED {
				return errReconnected
			}
			return errDisconnected
		case m := <-published:
			d.told(strings.TrimPrefix(m.Subject, d.prefix+".published."), m)
		case <-beat.C:
			err = d.ping(ctx)
		case <-read.C:
			if denied != nil {
				return denied // it may be granted by now
			}
			err = d.readAll(ctx)
		}
		if err != nil {
			return err
		}
	}
}

func (d *direct) ping(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, directAsk)
	defer cancel()
	if err := d.nc.FlushWithContext(asking); err != nil {
		return fmt.Errorf("%w: %w", errDisconnected, err)
	}
	return nil
}

// readAll reads all credentials of the accounts. One that cannot be read does not hold up the others.
func (d *direct) readAll(ctx context.Context) error {
	type answer struct {
		key string
		msg *nats.Msg // nil: there is none
		err error
	}
	answers := make([]answer, 0, len(d.appids)*len(messages.Kinds))
	for _, id := range d.appids {
		for _, kind := range messages.Kinds {
			answers = append(answers, answer{key: messages.Key(id, kind)})
		}
	}
	var reading errgroup.Group
	reading.SetLimit(directAtOnce)
	together, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for i := range answers {
		reading.Go(func() error {
			a := &answers[i]
			a.msg, a.err = d.read(together, a.key)
			if errors.Is(a.err, errDisconnected) {
				cancel(a.err) // the rest would be waited for in vain
			}
			return a.err
		})
	}
	err := reading.Wait()
	for _, a := range answers {
		if a.err == nil {
			d.told(a.key, a.msg)
		}
	}
	if gone := context.Cause(together); gone != nil {
		return gone
	}
	if err == nil && !d.ready {
		d.ready = true
		d.emit(feed.Event{Ready: true})
	}
	return err
}

// read reads one record by a direct get (ADR-31); nil where there is none.
func (d *direct) read(ctx context.Context, key string) (*nats.Msg, error) {
	get := "$JS.API.DIRECT.GET." + streamName(d.bucket) + "." + keyPrefix(d.bucket)
	asking, cancel := context.WithTimeout(ctx, directAsk)
	defer cancel()
	m, err := d.nc.RequestWithContext(asking, get+key, nil)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, errNoBucket
	case err != nil && d.denied(get) != nil: // of this one, or of another that was asked at the same time
		return nil, fmt.Errorf("kv: reading %s: %w", key, d.denied(get))
	case err != nil:
		if gone := d.ping(ctx); gone != nil {
			return nil, gone
		}
		return nil, fmt.Errorf("kv: reading %s: %w", key, err)
	}
	switch status := m.Header.Get("Status"); status {
	case "":
		return m, nil
	case "404":
		return nil, nil //nolint:nilnil // no record is an answer
	default:
		return nil, fmt.Errorf("kv: reading %s: the server answers %s %q", key, status, m.Header.Get("Description"))
	}
}

// denied is the server's word that this user may not use a subject that begins so.
func (d *direct) denied(subject string) error { return denied(d.nc, d.before, subject) }

// told takes a record, read or republished; nil: there is none.
func (d *direct) told(key string, m *nats.Msg) {
	if m == nil {
		if _, was := d.marks[key]; was {
			delete(d.marks, key)
			d.emit(feed.Event{Key: key, Gone: true})
		}
		return
	}
	sequence, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	at, err2 := time.Parse(time.RFC3339Nano, m.Header.Get(jetstream.TimeStampHeaer))
	now := mark{sequence, at.UnixNano()}
	if err != nil || err2 != nil || now == d.marks[key] {
		return
	}
	d.emit(feed.Event{
		Key: key, Value: m.Data, Rev: sequence, Anew: d.marks.next(key, now),
		Gone: m.Header.Get("KV-Operation") != "" || m.Header.Get(jetstream.MarkerReasonHeader) != "",
	})
}

// denied is the server's word, since the connection's last error was before, that this user may not use a subject that begins
// so. It comes apart from what was asked: where a later error of the connection hides it, who asked sees a timeout.
func denied(nc *nats.Conn, before error, subject string) error {
	if err := nc.LastError(); !errors.Is(err, before) && errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), `"`+subject) {
		return err
	}
	return nil
}
