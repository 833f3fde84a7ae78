package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/messages"
)

// Poll is a feed of some accounts without a JetStream consumer. It reads each record by a request of its own: at
// the start, after each reconnection, every half minute, and soon after a message on the subject on which the
// server republishes the record (see [Republish]). Such a message is only a hint that leads to a read, and never a
// value: every user that may publish on the subject, or direct a reply there, can send one.
type Poll struct {
	NC      *nats.Conn
	Prefix  string // first token of the workers' subjects
	AppIDs  []string
	Records Records     // how a record is read: Requests or Direct
	Emit    func(Event) // called from one goroutine

	// ReadEvery is the time between two reads of a record without a hint; 0 is 30 s. PingEvery is the time between
	// two pings of the server; 0 is 1 s.
	ReadEvery, PingEvery time.Duration

	emitted map[Name]version // what was emitted last of each record that there was
	seed    maphash.Seed
	begun   bool // there was a session
	ready   bool // the first snapshot is complete
	// before is the connection's last error before the session. It does not count: a permission that was
	// missing then may have been granted since.
	before error
}

// Records reads the records of a [Poll]: [Requests] or [Direct].
type Records interface {
	// read reads one record. Its error is a *trouble if there was an answer.
	read(ctx context.Context, n Name) (answer, error)
	// asks returns the beginnings of the subjects of its requests, as a refusal of the server names them.
	asks() []string
}

// answer is the answer to a read. Without a value there is no record.
type answer struct {
	value    []byte
	revision uint64 // 0: not known
}

// trouble is an answer to a read that has no record, and does not say that there is none.
type trouble struct {
	error
	lasting bool // only an operator can change the answer, so that it is not asked for again soon
}

func (t *trouble) Unwrap() error { return t.error }

// version identifies what was emitted of a record.
type version struct {
	revision uint64
	hash     uint64 // of the value
}

const (
	pollReadEvery   = 30 * time.Second
	pollPingEvery   = time.Second
	pollTimeout     = 2 * time.Second // of one request
	pollConcurrency = 16              // reads in flight
)

// Run delivers events until ctx ends. It is called once.
func (p *Poll) Run(ctx context.Context) {
	p.emitted, p.seed = map[Name]version{}, maphash.MakeSeed()
	for retry := watchRetryMin; ctx.Err() == nil; retry = min(2*retry, watchRetryMax) {
		began := time.Now()
		err := p.session(ctx)
		if ctx.Err() != nil {
			return
		}
		p.Emit(Event{Down: err})
		if time.Since(began) > watchRetryMax {
			retry = watchRetryMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(jitter(retry)): // many Readers lose their connections at the same time
		}
	}
}

// jitter is a random duration around d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// session delivers events until the connection fails, and returns the error.
func (p *Poll) session(ctx context.Context) error {
	p.before = p.NC.LastError()
	status := p.NC.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer p.NC.RemoveStatusListener(status)
	published := make(chan *nats.Msg, 1024) // a message that does not fit is dropped; the next read finds its record
	for _, id := range p.AppIDs {
		subject := messages.PublishedSubject(p.Prefix, id, "*")
		sub, err := p.NC.ChanSubscribe(subject, published)
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		defer func() { _ = sub.Unsubscribe() }()
	}
	if !p.begun {
		p.begun = true
		p.Emit(Event{Reset: true})
	}
	// The answer to the ping shows that the server has the subscriptions, so no change is lost before the first
	// read.
	if err := p.ping(ctx); err != nil {
		return err
	}
	s := pollSession{Poll: p, unread: map[Name]bool{}, failing: map[Name]error{}, hints: map[Name]chan uint64{}}
	for _, id := range p.AppIDs {
		if err := p.refused(messages.PublishedSubject(p.Prefix, id, "*")); err != nil {
			s.refusal = fmt.Errorf("subscribe to changes of %s: %w", id, err)
		}
	}
	return s.run(ctx, status, published)
}

func (p *Poll) ping(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	if err := p.NC.FlushWithContext(asking); err != nil {
		return fmt.Errorf("%w: %w", errDisconnected, err)
	}
	return nil
}

// read reads one record. Its error is errDisconnected if the connection is the cause.
func (p *Poll) read(ctx context.Context, n Name) (answer, error) {
	asking, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	a, err := p.Records.read(asking, n)
	if err == nil {
		return a, nil
	}
	if _, answered := errors.AsType[*trouble](err); !answered {
		// The refusal may belong to another record that was requested at the same time.
		if refusal := p.refused(p.Records.asks()...); refusal != nil {
			err = &trouble{refusal, true}
		} else if disconnected := p.ping(ctx); disconnected != nil {
			return answer{}, disconnected
		}
	}
	return answer{}, fmt.Errorf("read %s: %w", messages.Key(n.AppID, n.Kind), err)
}

// refused returns the server's error if it refused this user a subject with one of some prefixes during the session.
func (p *Poll) refused(prefixes ...string) error { return refused(p.NC, p.before, prefixes...) }

// deliver emits the event of a record, or of its removal, unless that was emitted before.
func (p *Poll) deliver(n Name, a answer) {
	key := messages.Key(n.AppID, n.Kind)
	if len(a.value) == 0 {
		if _, existed := p.emitted[n]; existed {
			delete(p.emitted, n)
			p.Emit(Event{Key: key, Revision: a.revision, Removed: true})
		}
		return
	}
	now := version{a.revision, maphash.Bytes(p.seed, a.value)}
	if now == p.emitted[n] {
		return
	}
	p.emitted[n] = now
	p.Emit(Event{Key: key, Value: a.value, Revision: a.revision})
}

// pollSession is a session of a Poll on a connection that works.
type pollSession struct {
	*Poll
	refusal    error          // of a subscription. The session continues, because it can still read
	unread     map[Name]bool  // records without an answer in this session
	failing    map[Name]error // records whose last read failed
	unreported bool           // a read has failed since the last Event with Down
	up, down   bool           // the last of these events in this session
	hints      map[Name]chan uint64
}

// outcome is the outcome of one read.
type outcome struct {
	Name
	answer
	err error
}

// run reads the records, and delivers the events, until the connection fails.
func (s *pollSession) run(ctx context.Context, status <-chan nats.Status, published <-chan *nats.Msg) error {
	reading, stop := context.WithCancel(ctx)
	outcomes, slots := make(chan outcome), make(chan struct{}, pollConcurrency)
	var followers sync.WaitGroup
	defer followers.Wait()
	defer stop()
	for _, id := range s.AppIDs {
		for _, kind := range messages.Kinds {
			n := Name{id, kind}
			f := follower{Poll: s.Poll, name: n, hints: make(chan uint64, 1), slots: slots, outcomes: outcomes}
			s.unread[n], s.hints[n] = true, f.hints
			followers.Go(func() { f.run(reading) })
		}
	}
	ping := time.NewTicker(cmp.Or(s.PingEvery, pollPingEvery))
	defer ping.Stop()
	again := time.NewTimer(cmp.Or(s.ReadEvery, pollReadEvery))
	defer again.Stop()
	s.report()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-status:
			if now == nats.CONNECTED {
				return errReconnected
			}
			return errDisconnected
		case m := <-published:
			s.hint(m)
		case o := <-outcomes:
			if errors.Is(o.err, errDisconnected) {
				return o.err
			}
			s.note(o)
		case <-ping.C:
			if err := s.ping(ctx); err != nil {
				return err
			}
			if s.unreported {
				s.reportDown()
			}
		case <-again.C:
			if s.refusal != nil {
				return s.refusal // the next session tries again: the permission may have been granted
			}
		}
	}
}

// hint tells the follower of a record that the record may have changed. The message proves nothing.
func (s *pollSession) hint(m *nats.Msg) {
	appid, kind, ok := messages.ParseKey(strings.TrimPrefix(m.Subject, publishedPrefix(s.Prefix)))
	if hints := s.hints[Name{appid, kind}]; ok && hints != nil {
		sendHint(hints, m.Header)
	}
}

// note notes the outcome of a read, and delivers it.
func (s *pollSession) note(o outcome) {
	if o.err != nil {
		s.failing[o.Name], s.unreported = o.err, true
	} else {
		s.deliver(o.Name, o.answer)
		delete(s.failing, o.Name)
		delete(s.unread, o.Name)
	}
	s.report()
}

// report emits whether the feed works, if that has changed. While reads fail again and again, the ping reports that.
func (s *pollSession) report() {
	if len(s.unread) == 0 && !s.ready {
		s.ready = true
		s.Emit(Event{Ready: true})
	}
	switch works := len(s.failing) == 0 && s.refusal == nil; {
	case works && len(s.unread) == 0 && !s.up:
		s.up, s.down, s.unreported = true, false, false
		s.Emit(Event{Up: true})
	case !works && !s.down:
		s.reportDown()
	}
}

func (s *pollSession) reportDown() {
	s.up, s.down, s.unreported = false, true, false
	problems := []error{s.refusal}
	failing := slices.SortedFunc(maps.Keys(s.failing), func(a, b Name) int {
		return cmp.Or(strings.Compare(a.AppID, b.AppID), strings.Compare(string(a.Kind), string(b.Kind)))
	})
	if len(failing) > 0 { // one of them: thousands may fail for the same reason
		problems = append(problems, s.failing[failing[0]])
	}
	s.Emit(Event{Down: errors.Join(problems...)})
}

// refused returns the server's error if it refused this user a subject with one of some prefixes, after before was the
// connection's last error. The server sends a refusal asynchronously, and the refused request only times out.
// If another error of the connection has replaced the refusal, refused returns nil.
func refused(nc *nats.Conn, before error, prefixes ...string) error {
	err := nc.LastError()
	if errors.Is(err, before) || !errors.Is(err, nats.ErrPermissionViolation) {
		return nil
	}
	for _, prefix := range prefixes {
		if strings.Contains(err.Error(), `"`+prefix) {
			return err
		}
	}
	return nil
}
