package worker

import (
	"container/heap"
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
)

// item is one credential that this worker keeps, and when its next turn is. The scheduler's mutex guards it.
type item struct {
	account *Account
	kind    messages.Kind

	next      policy.Decision
	notBefore time.Time // policy.MinGap after its last turn
	// after a turn that was not possible: another worker holds the lease, or NATS is not available
	blockedUntil time.Time
	last         ending // of its last turn
	running      bool
	lane         *lane // nil: not planned yet
	index        int   // in the lane's queue; -1: not in it
}

// lane has a queue, and a limited number of turns at once.
type lane struct {
	queue queue
	wake  chan struct{}
	slots chan struct{}
}

// troubled is the number of attempts in a row that have failed, or are not known to have succeeded, after which
// a credential moves to the slow lane.
const troubled = 2

// scheduler runs what is due, in two lanes. A call of WeChat may hang until it is given up, so credentials that
// keep failing have the slow lane and delay only each other. It is safe for concurrent use.
type scheduler struct {
	memory    *memory
	refresher *refresher
	policy    *policy.Policy
	clock     clock
	log       *slog.Logger

	mu      sync.Mutex // guards what follows
	items   map[string]*item
	lanes   [2]*lane  // normal, slow
	started bool      // before that nothing is planned: the buckets are not known yet
	tookAt  time.Time // when a turn last ended without an obstacle
}

// newScheduler makes a scheduler that runs up to concurrency turns at once in each lane. It listens to the
// memory.
func newScheduler(m *memory, r *refresher, concurrency int, log *slog.Logger) *scheduler {
	s := &scheduler{memory: m, refresher: r, policy: r.policy, clock: r.clock, log: log, items: make(map[string]*item)}
	for i := range s.lanes {
		s.lanes[i] = &lane{wake: make(chan struct{}, 1), slots: make(chan struct{}, concurrency)}
	}
	m.listen(s.replan)
	return s
}

// setAccounts replaces the accounts whose credentials are scheduled.
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
				it = &item{kind: k, index: -1}
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
		delete(s.items, key) // a turn that is running ends, and is not planned again
		if it.index >= 0 {
			heap.Remove(&it.lane.queue, it.index)
		}
	}
}

// start plans all credentials: the buckets are known now. It is called before run.
func (s *scheduler) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = true
	for _, it := range s.items {
		s.plan(it)
	}
}

// run starts turns until ctx ends, and returns when the last of them has ended.
func (s *scheduler) run(ctx context.Context) {
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
		j, in := s.pop(l)
		if j.item == nil {
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
			var end ending
			defer func() { // also after a panic: a credential that stayed running would never be renewed again
				if p := recover(); p != nil {
					s.log.Error("panic in a turn", "appid", j.account.AppID, "kind", j.kind,
						"panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
					end = s.refresher.panicked(ctx, j.account, j.kind, j.last.obstacle)
				}
				<-l.slots
				s.done(j.item, end)
			}()
			end = s.refresher.scheduled(ctx, j.account, j.kind, j.last)
		})
	}
}

// maxSleep limits the sleep of a lane, so that a jump of the clock is noticed.
const maxSleep = 30 * time.Second

// job is a turn to be taken.
type job struct {
	item    *item // nil: none is due
	account *Account
	kind    messages.Kind
	last    ending // of the last turn
}

// pop takes the next credential of a lane that is due, or returns how long to sleep.
func (s *scheduler) pop(l *lane) (job, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(l.queue) == 0 {
		return job{}, maxSleep
	}
	it := l.queue[0]
	if in := it.next.At.Sub(s.clock.Now()); in > 0 {
		return job{}, min(in, maxSleep)
	}
	heap.Pop(&l.queue)
	it.running = true
	return job{it, it.account, it.kind, it.last}, 0
}

// done plans a credential whose turn has ended.
func (s *scheduler) done(it *item, end ending) {
	s.mu.Lock()
	now := s.clock.Now()
	it.running, it.last = false, end
	if end.obstacle == nil && !end.leaseHeld {
		s.tookAt = now
	}
	if s.items[messages.Key(it.account.AppID, it.kind)] == it { // else its account was removed
		it.notBefore, it.blockedUntil = now.Add(policy.MinGap), now.Add(end.retry)
		s.plan(it)
	}
	tell := s.takeOver(it)
	s.mu.Unlock()
	tell()
}

// takeOver removes the obstacle of a credential if it does not matter any more, because another worker has done what
// was due. It returns a function that tells it. s.mu is locked.
func (s *scheduler) takeOver(it *item) (tell func()) {
	account, o := it.account, it.last.obstacle
	if o == nil || it.running || o.matters(it.next, s.memory.ledger(messages.Key(account.AppID, it.kind))) {
		return func() {}
	}
	// A ticket whose token has expired waits for the token: nothing was done. Only an attempt to refresh the token
	// shows that the obstacle is over.
	noToken := it.next.Reason == messages.ReasonNoToken
	if noToken && !s.memory.ledger(messages.Key(account.AppID, messages.AccessToken)).LastAttempt.After(o.last) {
		return func() {}
	}
	it.last.obstacle = nil
	return func() { s.refresher.overcome(account, it.kind, o, !noToken) }
}

// replan plans a credential again after a change. It also plans the tickets of a token, because they need a valid
// token.
func (s *scheduler) replan(key string) {
	s.mu.Lock()
	it := s.items[key]
	if it == nil {
		s.mu.Unlock()
		return
	}
	s.plan(it)
	tell := []func(){s.takeOver(it)}
	if it.kind == messages.AccessToken {
		for _, k := range it.account.Tickets {
			if ticket := s.items[messages.Key(it.account.AppID, k)]; ticket != nil {
				s.plan(ticket)
				tell = append(tell, s.takeOver(ticket))
			}
		}
	}
	s.mu.Unlock()
	for _, f := range tell {
		f()
	}
}

// plan decides when the next turn of a credential is. s.mu is locked.
func (s *scheduler) plan(it *item) {
	if it == nil || it.running || !s.started {
		return
	}
	now := s.clock.Now()
	view := s.memory.view(it.account, it.kind)
	it.next = s.policy.Next(now, view)
	if !it.next.At.IsZero() {
		// A turn that is due now waits until the lease of another worker has ended. A turn that is planned for
		// later does not: the other worker's turn then had an outcome, and its lease is released.
		if !it.next.At.After(now) && it.next.At.Before(it.blockedUntil) {
			it.next.At = it.blockedUntil
		}
		if it.next.At.Before(it.notBefore) {
			it.next.At = it.notBefore
		}
	}
	l := s.lanes[0]
	if view.Ledger.Attempts >= troubled {
		l = s.lanes[1]
	}
	if it.lane != l && it.index >= 0 {
		heap.Remove(&it.lane.queue, it.index)
	}
	it.lane = l
	switch waits := it.next.At.IsZero(); {
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

// scheduled is one credential, for status.
type scheduled struct {
	account  *Account
	kind     messages.Kind
	next     policy.Decision
	running  bool
	obstacle *obstacle // nil: none
}

func (it *item) scheduled() scheduled {
	return scheduled{it.account, it.kind, it.next, it.running, it.last.obstacle}
}

// of returns one credential; false: it is not kept.
func (s *scheduler) of(key string) (scheduled, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it := s.items[key]
	if it == nil {
		return scheduled{}, false
	}
	return it.scheduled(), true
}

// snapshot returns all credentials that are kept, or only the credentials of one account if appid is not empty.
func (s *scheduler) snapshot(appid string) []scheduled {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []scheduled
	if appid == "" {
		all = make([]scheduled, 0, len(s.items))
	}
	for _, it := range s.items {
		if appid == "" || it.account.AppID == appid {
			all = append(all, it.scheduled())
		}
	}
	return all
}

// queue is a heap of items by the time of their next turn.
type queue []*item

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].next.At.Before(q[j].next.At) }
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
