package bucket

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

	"github.com/wxkeeper/wxkeeper/messages"
)

// Direct is a feed of some accounts without a JetStream consumer. It receives changes as the core NATS messages
// that the server republishes (see [Republish]). Because such a message is delivered at most once, Direct also
// reads all records by direct gets: at the start, after each reconnection, and every half minute.
type Direct struct {
	NC             *nats.Conn
	Bucket, Prefix string
	AppIDs         []string
	Emit           func(Event) // called from one goroutine at a time

	// ReadEvery is the time between two reads of all records; 0 is 30 s. PingEvery is the time between two pings of
	// the server; 0 is 1 s.
	ReadEvery, PingEvery time.Duration

	positions positions
	begun     bool // there was a session
	ready     bool // the first snapshot is complete
	// before is the connection's last error before the session. It does not count: a permission that was
	// missing then may have been granted since.
	before error
}

const (
	directReadEvery   = 30 * time.Second
	directPingEvery   = time.Second
	directTimeout     = 2 * time.Second // of one request
	directConcurrency = 16              // gets in flight
)

var errNoBucket = errors.New("the bucket does not exist, or JetStream is not available")

// Run delivers events until ctx ends. It is called once.
func (d *Direct) Run(ctx context.Context) {
	for retry := watchRetryMin; ctx.Err() == nil; retry = min(2*retry, watchRetryMax) {
		began := time.Now()
		err := d.session(ctx)
		if ctx.Err() != nil {
			return
		}
		d.Emit(Event{Down: err})
		if time.Since(began) > watchRetryMax {
			retry = watchRetryMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry/2 + rand.N(retry)): // jitter: many Readers lose their connections at the same time
		}
	}
}

// session delivers events until something fails, and returns the error.
func (d *Direct) session(ctx context.Context) error {
	d.before = d.NC.LastError()
	status := d.NC.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer d.NC.RemoveStatusListener(status)
	published := make(chan *nats.Msg, 1024) // a message that does not fit is dropped; the next read finds its record
	for _, id := range d.AppIDs {
		subject := messages.PublishedSubject(d.Prefix, id, "*")
		sub, err := d.NC.ChanSubscribe(subject, published)
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		defer func() { _ = sub.Unsubscribe() }()
	}
	d.Emit(Event{Reset: !d.begun, Recreated: d.begun}) // the positions do not always show that a bucket was recreated
	d.begun = true
	// The answer to the ping shows that the server has the subscriptions, so no change is lost before the first
	// read.
	if err := d.ping(ctx); err != nil {
		return err
	}
	var unsubscribed error // the session continues, because it can still read
	for _, id := range d.AppIDs {
		if err := d.refused(messages.PublishedSubject(d.Prefix, id, "*")); err != nil {
			unsubscribed = fmt.Errorf("subscribe to changes of %s: %w", id, err)
		}
	}
	problem := errors.Join(d.readAll(ctx), unsubscribed)
	switch {
	case problem == nil:
		d.Emit(Event{Up: true})
	case errors.Is(problem, nats.ErrPermissionViolation): // maybe of one account: the other accounts are still followed
		d.Emit(Event{Down: problem})
	default:
		return problem
	}
	ping := time.NewTicker(cmp.Or(d.PingEvery, directPingEvery))
	read := time.NewTicker(cmp.Or(d.ReadEvery, directReadEvery))
	defer ping.Stop()
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
			d.deliver(strings.TrimPrefix(m.Subject, publishedPrefix(d.Prefix)), m)
		case <-ping.C:
			err = d.ping(ctx)
		case <-read.C:
			if problem != nil {
				return problem // the next session tries again: the permission may have been granted
			}
			err = d.readAll(ctx)
		}
		if err != nil {
			return err
		}
	}
}

func (d *Direct) ping(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, directTimeout)
	defer cancel()
	if err := d.NC.FlushWithContext(asking); err != nil {
		return fmt.Errorf("%w: %w", errDisconnected, err)
	}
	return nil
}

// readAll reads all records of the accounts. A record that cannot be read does not delay the others.
func (d *Direct) readAll(ctx context.Context) error {
	type answer struct {
		key string
		msg *nats.Msg // nil: there is no record
		err error
	}
	answers := make([]answer, 0, len(d.AppIDs)*len(messages.Kinds))
	for _, id := range d.AppIDs {
		for _, kind := range messages.Kinds {
			answers = append(answers, answer{key: messages.Key(id, kind)})
		}
	}
	var reading errgroup.Group
	reading.SetLimit(directConcurrency)
	together, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for i := range answers {
		reading.Go(func() error {
			a := &answers[i]
			a.msg, a.err = d.read(together, a.key)
			if errors.Is(a.err, errDisconnected) {
				cancel(a.err) // the other reads would only time out
			}
			return a.err
		})
	}
	err := reading.Wait()
	for _, a := range answers {
		if a.err == nil {
			d.deliver(a.key, a.msg)
		}
	}
	if disconnected := context.Cause(together); disconnected != nil {
		return disconnected
	}
	if err == nil && !d.ready {
		d.ready = true
		d.Emit(Event{Ready: true})
	}
	return err
}

// read reads one record by a direct get (NATS ADR-31). It returns nil if there is no record.
func (d *Direct) read(ctx context.Context, key string) (*nats.Msg, error) {
	subject := DirectGetAPI(d.Bucket, key)
	asking, cancel := context.WithTimeout(ctx, directTimeout)
	defer cancel()
	m, err := d.NC.RequestWithContext(asking, subject, nil)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, errNoBucket
	case err != nil:
		// The refusal may belong to another record that was requested at the same time.
		if refusal := d.refused(DirectGetAPI(d.Bucket, "")); refusal != nil {
			return nil, fmt.Errorf("read %s: %w", key, refusal)
		}
		if disconnected := d.ping(ctx); disconnected != nil {
			return nil, disconnected
		}
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	switch status := m.Header.Get("Status"); status {
	case "":
		return m, nil
	case "404":
		return nil, nil //nolint:nilnil // no record is an answer
	default:
		return nil, fmt.Errorf("read %s: the server answers %s %q", key, status, m.Header.Get("Description"))
	}
}

// refused returns the server's error if it refused this user a subject with this prefix during the session.
func (d *Direct) refused(prefix string) error { return refused(d.NC, d.before, prefix) }

// deliver emits the event of a record that was read or received, or of its removal if m is nil.
func (d *Direct) deliver(key string, m *nats.Msg) {
	if m == nil {
		if _, existed := d.positions[key]; existed {
			delete(d.positions, key)
			d.Emit(Event{Key: key, Removed: true})
		}
		return
	}
	sequence, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	at, err2 := time.Parse(time.RFC3339Nano, m.Header.Get(jetstream.TimeStampHeaer))
	now := position{sequence, at.UnixNano()}
	if err != nil || err2 != nil || now == d.positions[key] {
		return
	}
	d.Emit(Event{
		Key: key, Value: m.Data, Revision: sequence, Removed: isRemoval(m.Header),
		Recreated: d.positions.next(key, now),
	})
}

// refused returns the server's error if it refused this user a subject with this prefix, after before was the
// connection's last error. The server sends a refusal asynchronously, and the refused request only times out.
// If another error of the connection has replaced the refusal, refused returns nil.
func refused(nc *nats.Conn, before error, prefix string) error {
	err := nc.LastError()
	isNew := !errors.Is(err, before)
	if isNew && errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), `"`+prefix) {
		return err
	}
	return nil
}
