package worker

import (
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

// item is one credential that this worker keeps, and what it knows of it. The scheduler's mutex guards it.
type item struct {
	account *Account
	kind    messages.Kind
	record  *messages.Credential // in the bucket, as the watch or a turn told; nil: none
	rev     uint64               // of the last change of the record that was learned
	ledger  store.Ledger

	next      decision
	notBefore time.Time // minGap after its last turn
	heldUntil time.Time // after a turn that this worker could not have: another holds the lease, or NATS is away
	held      bool      // the last turn could not be had because another worker held the lease
	lostAt    time.Time // since when there is no record; zero: there is one
	snapshot  int       // of the ledgers, in which this one was last told
	forgotten bool      // the bucket has lost the ledger
	running   bool
	lane      *lane // nil: not planned yet
	index     int   // in the lane's queue; -1: not in it
}

// lane has a queue, a timer and a bounded number of turns at once.
type lane struct {
	queue queue
	wake  chan struct{}
	slots chan struct{}
}

// troubled is how many attempts in a row have failed, or are not known to have succeeded, when a credential changes its lane.
const troubled = 2

// scheduler runs what is due, in two lanes: a call may hang until it is given up, so what fails again and again waits for
// its like, and nothing else does.
type scheduler struct {
	policy   *policy
	reader   *kv.Reader
	settings func(*Account) string
	now      func() time.Time
	// work gives one credential its turn; retry is the least time before the next, 0: as the policy says. held says that
	// another worker held the lease at the last turn too.
	work func(ctx context.Context, a *Account, kind messages.Kind, held bool) (retry time.Duration, nowHeld bool)
	log  *slog.Logger

	mu    sync.Mutex
	items map[string]*item // by kv.Key
	// others are the ledgers of credentials that this worker does not keep, maybe yet: the watch tells of each once.
	others   map[string]store.Ledger
	snapshot int      // of the ledgers: how many have begun
	lanes    [2]*lane // the second is for troubled ones
}

func newScheduler(concurrency int) *scheduler {
	s := &scheduler{items: make(map[string]*item), others: make(map[string]store.Ledger), settings: (*Account).fingerprint}
	for i := range s.lanes {
		s.lanes[i] = &lane{wake: make(chan struct{}, 1), slots: make(chan struct{}, concurrency)}
	}
	return s
}

// setAccounts exchanges what is scheduled. What is known of a credential that stays, stays known.
func (s *scheduler) setAccounts(as map[string]*Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := make(map[string]bool)
	for _, a := range as {
		for _, k := range a.kinds() {
			key := messages.Key(a.AppID, k)
			wanted[key] = true
			it := s.items[key]
			if it == nil {
				it = &item{kind: k, index: -1, ledger: s.others[key]}
				delete(s.others, key)
				if c := s.reader.Held(a.AppID, k); c != nil && c.Revision != 0 {
					it.record, it.rev = c, c.Revision
				}
				s.items[key] = it
			}
			it.account = a
			s.plan(it)
		}
	}
	for key, it := range s.items {
		if wanted[key] {
			continue
		}
		s.others[key] = it.ledger
		delete(s.items, key) // a turn that is running ends, and is not planned again
		if it.index >= 0 {
			heap.Remove(&it.lane.queue, it.index)
		}
	}
}

// run starts turns until ctx ends, and returns when the last of them has ended.
func (s *scheduler) run(ctx context.Context) {
	s.mu.Lock()
	for _, it := range s.items {
		it.lostAt = time.Time{}
		s.plan(it) // what was planned before the buckets were known is void
	}
	s.mu.Unlock()
	var running sync.WaitGroup
	for _, l := range s.lanes {
		running.Go(func() { s.runLane(ctx, l) })
	}
	running.Wait()
}

func (s *scheduler) runLane(ctx context.Context, l *lane) {
	var turns sync.WaitGroup
	defer turns.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		it, a, in := s.pop(l)
		if it == nil {
			timer.Reset(in)
			select {
			case <-ctx.Done():
			case <-timer.C:
			case <-l.wake:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case l.slots <- struct{}{}:
		}
		turns.Go(func() {
			retry, held := poisoned, false
			defer func() { // also when it panics: a credential that stayed running would never be renewed again
				if p := recover(); p != nil {
					s.log.Error("panic in a turn", "appid", a.AppID, "kind", it.kind, "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
				}
				<-l.slots
				s.done(it, retry, held)
			}()
			retry, held = s.work(ctx, a, it.kind, it.held) // it is this turn's alone while it is running
		})
	}
}

// poisoned is the least time before a turn that panicked is tried again.
const poisoned = time.Minute

// idle bounds the sleep of the loop, so that a jump of the clock is noticed.
const idle = 30 * time.Second

// pop takes the next item of a lane that is due, or says how long to sleep.
func (s *scheduler) pop(l *lane) (*item, *Account, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(l.queue) == 0 {
		return nil, nil, idle
	}
	it := l.queue[0]
	if in := it.next.at.Sub(s.now()); in > 0 {
		return nil, nil, min(in, idle)
	}
	heap.Pop(&l.queue)
	it.running = true
	return it, it.account, 0
}

// done plans an item whose turn has ended.
func (s *scheduler) done(it *item, retry time.Duration, held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it.running, it.held = false, held
	if s.items[messages.Key(it.account.AppID, it.kind)] != it {
		return // its account has gone
	}
	// Whatever this worker believes, one credential has at most one turn in minGap.
	it.notBefore, it.heldUntil = s.now().Add(minGap), s.now().Add(retry)
	s.plan(it)
}

// learn changes what is known of a credential, and plans it anew. A token that comes or goes concerns its tickets too.
func (s *scheduler) learn(key string, change func(*item)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it := s.items[key]
	if it == nil {
		return
	}
	change(it)
	s.plan(it)
	if it.kind == messages.AccessToken {
		for _, k := range it.account.Tickets {
			s.plan(s.items[messages.Key(it.account.AppID, k)])
		}
	}
}

// learnRecord takes a change of the bucket from the watch. One that is older than what a turn has told is ignored.
func (s *scheduler) learnRecord(c kv.Change) {
	s.learn(messages.Key(c.AppID, c.Kind), func(it *item) {
		if c.Revision == 0 || c.Revision >= it.rev {
			it.record, it.rev = c.Record, c.Revision
		}
	})
}

// seenRecord takes what a turn has read at the leader or published.
func (s *scheduler) seenRecord(c *messages.Credential) {
	s.learn(messages.Key(c.AppID, c.Kind), func(it *item) { it.record, it.rev = c, c.Revision })
}

// learnLedger takes an entry from the watch. One that is older than what a turn has told is ignored.
func (s *scheduler) learnLedger(l store.Ledger) {
	key := messages.Key(l.AppID, l.Kind)
	s.mu.Lock()
	if s.items[key] == nil {
		s.others[key] = l
	}
	s.mu.Unlock()
	s.learn(key, func(it *item) {
		it.snapshot = s.snapshot
		switch {
		case l.Revision < it.ledger.Revision:
		case l.IsEmpty() && !it.ledger.IsEmpty():
			it.ledger.Revision, it.forgotten = l.Revision, true
		default:
			it.ledger, it.forgotten = l, false
		}
	})
}

// ledgersTold: a snapshot of the ledgers is complete. What it had not, the bucket has lost.
func (s *scheduler) ledgersTold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range s.items {
		if it.snapshot != s.snapshot && !it.ledger.IsEmpty() && !it.forgotten {
			it.forgotten = true
			s.plan(it)
		}
	}
}

// seenLedger takes what a turn has read at the leader or written.
func (s *scheduler) seenLedger(l store.Ledger) {
	s.learn(messages.Key(l.AppID, l.Kind), func(it *item) { it.ledger, it.forgotten = l, false })
}

// resetRecords and resetLedgers: a watch begins anew, on a bucket whose revisions may be lower.
func (s *scheduler) resetRecords() { s.each(func(it *item) { it.rev = 0 }) }
func (s *scheduler) resetLedgers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshot++
	for _, it := range s.items {
		it.ledger.Revision = 0
	}
}

// known is what this worker knows of the ledger of a credential, and when it plans its next turn.
func (s *scheduler) known(a *Account, kind messages.Kind) (store.Ledger, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if it := s.items[messages.Key(a.AppID, kind)]; it != nil {
		return it.ledger, it.next.at
	}
	return store.Ledger{}, time.Time{}
}

// lostAt is since when this worker knows that there is no record: now, where it is a turn that has found out.
func (s *scheduler) lostAt(a *Account, kind messages.Kind) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if it := s.items[messages.Key(a.AppID, kind)]; it != nil && it.record == nil && !it.lostAt.IsZero() {
		return it.lostAt
	}
	return s.now()
}

// plan decides about an item and puts it where it belongs in the queue. s.mu is held.
func (s *scheduler) plan(it *item) {
	if it == nil || it.running {
		return
	}
	now := s.now()
	it.next = s.policy.next(now, s.view(it))
	if !it.next.at.IsZero() {
		// What another's turn keeps from being done now is done when its lease has ended at the latest. A turn that is
		// planned for later, as the outcome of the other's, does not wait for that.
		if !it.next.at.After(now) && it.next.at.Before(it.heldUntil) {
			it.next.at = it.heldUntil
		}
		if it.next.at.Before(it.notBefore) {
			it.next.at = it.notBefore
		}
	}
	l := s.lanes[0]
	if it.ledger.Attempts >= troubled {
		l = s.lanes[1]
	}
	if it.lane != l && it.index >= 0 {
		heap.Remove(&it.lane.queue, it.index)
	}
	it.lane = l
	switch waits := it.next.at.IsZero(); {
	case waits && it.index >= 0:
		heap.Remove(&l.queue, it.index)
	case waits:
	case it.index >= 0:
		heap.Fix(&l.queue, it.index)
	default:
		heap.Push(&l.queue, it)
	}
	if it.index == 0 {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// view is what this worker knows of an item, without asking anybody. s.mu is held.
func (s *scheduler) view(it *item) view {
	_, err := s.reader.Get(it.account.AppID, messages.AccessToken)
	switch {
	case it.record != nil:
		it.lostAt = time.Time{}
	case it.lostAt.IsZero():
		it.lostAt = s.now()
	}
	return view{
		rule: it.account.rule(it.kind), record: it.record, held: s.reader.Held(it.account.AppID, it.kind),
		ledger: it.ledger, settings: s.settings(it.account), hasToken: err == nil, lostAt: it.lostAt,
		forgotten: it.forgotten,
	}
}

// each calls f for every item. f must be quick.
func (s *scheduler) each(f func(*item)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range s.items {
		f(it)
	}
}

// queue is a heap of items by the time of their next turn.
type queue []*item

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].next.at.Before(q[j].next.at) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(x any) {
	it := x.(*item)
	it.index = len(*q)
	*q = append(*q, it)
}

func (q *queue) Pop() any {
	old := *q
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	it.index = -1
	return it
}
