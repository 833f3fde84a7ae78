package worker

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// memory is what this worker knows of each credential: its record in the bucket, its ledger entry, the
// credential that it holds itself, and since when the bucket has lost it. It is fed by the watches of both
// buckets, and by turns, which see a change before the watches deliver it. It decides nothing, and notifies one
// listener of the keys that change.
//
// It is safe for concurrent use. Reading a credential takes no lock.
type memory struct {
	latest *bucket.Latest
	now    func() time.Time
	log    *slog.Logger

	recordsReady, ledgersReady chan struct{} // closed when the first snapshot is complete

	recordsWatch, ledgersWatch watchLog

	mu      sync.Mutex // guards what follows
	known   map[string]*knowledge
	changed func(key string) // the listener, called without mu
	// how many snapshots have begun
	recordSnapshots, ledgerSnapshots int
}

// knowledge is what is known of one credential.
type knowledge struct {
	record   *messages.Credential // in the bucket; nil: none
	before   string               // SHA-256 of the value that the record had before
	revision uint64               // of the last change of the record
	snapshot int                  // of the records, in which the key was last seen
	lostAt   time.Time            // since when a view has shown no record; zero: none has
	foreign  bool                 // the bucket has a record that is sealed with another AppSecret
	forgedAt time.Time            // when an entry of the credential was last found forged; zero: never
	// when WeChat last accepted what this worker has, although the bucket had a record that is sealed with another
	// AppSecret; zero: never
	refutedAt time.Time

	ledger         store.Ledger
	ledgerSnapshot int  // of the ledger, in which the entry was last seen
	entryLost      bool // the bucket has lost the entry, and ledger is what was known before

	replaced chan struct{} // closed when the worker holds another credential; nil: no goroutine waits for that
}

// setRecord notes a change of the record. A record ends a loss even if no view is made meanwhile: none is made
// of an account that is not kept at the moment, or during a turn.
func (k *knowledge) setRecord(c *messages.Credential, revision uint64) {
	if old := k.record; old != nil && (c == nil || c.Value != old.Value) {
		k.before = messages.ValueSHA256(old.Value)
	}
	k.record, k.revision = c, revision
	if c != nil {
		k.lostAt = time.Time{}
	}
}

func newMemory(now func() time.Time, log *slog.Logger) *memory {
	return &memory{
		latest: bucket.NewLatest(now), now: now, log: log, known: make(map[string]*knowledge),
		recordsReady: make(chan struct{}), ledgersReady: make(chan struct{}), changed: func(string) {},
	}
}

// listen sets the listener. It is called with the key of each credential that has changed, by several
// goroutines, and must not block.
func (m *memory) listen(changed func(key string)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = changed
}

// get returns the valid credential, which must not be changed: bucket.ErrNotFound, bucket.ErrExpired.
func (m *memory) get(appid string, kind messages.Kind) (*messages.Credential, error) {
	return m.latest.Get(appid, kind)
}

// held returns the credential that this worker holds, valid or not; nil: none. It must not be changed.
func (m *memory) held(appid string, kind messages.Kind) *messages.Credential {
	if c, err := m.latest.Get(appid, kind); err == nil {
		return c
	}
	return m.latest.Held(appid, kind)
}

// whenReplaced returns a channel that is closed as soon as the worker holds another credential.
func (m *memory) whenReplaced(key string) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.of(key)
	if k.replaced == nil {
		k.replaced = make(chan struct{})
	}
	return k.replaced
}

// of returns what is known of a credential. m.mu is locked.
func (m *memory) of(key string) *knowledge {
	k := m.known[key]
	if k == nil {
		k = new(knowledge)
		m.known[key] = k
	}
	return k
}

// view is what is known of a credential of an account, for a decision.
func (m *memory) view(a *Account, kind messages.Kind) policy.View {
	_, noToken := m.get(a.AppID, messages.AccessToken)
	v := policy.View{Rule: a.rule(kind), Settings: a.fingerprint(), HasToken: noToken == nil,
		RetryBefore: a.retryBefore}
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.of(messages.Key(a.AppID, kind))
	if k.record == nil && k.lostAt.IsZero() {
		k.lostAt = m.now()
	}
	v.Record, v.Held, v.Ledger, v.LostAt, v.EntryLost = k.record, m.held(a.AppID, kind), k.ledger, k.lostAt, k.entryLost
	v.Foreign = k.foreign && !k.isRefuted(m.now())
	return v
}

// ledger is the ledger entry that is known of a credential.
func (m *memory) ledger(key string) store.Ledger {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.known[key]; k != nil {
		return k.ledger
	}
	return store.Ledger{}
}

// before is the SHA-256 of the value that the record of a credential had before its current one; empty: not known.
func (m *memory) before(key string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.known[key]; k != nil {
		return k.before
	}
	return ""
}

// lostAt is since when there is known to be no record: now, if a turn has just noticed it.
func (m *memory) lostAt(key string) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.known[key]; k != nil && k.record == nil && !k.lostAt.IsZero() {
		return k.lostAt
	}
	return m.now()
}

// noteForged notes that an entry of a credential was found forged just now.
func (m *memory) noteForged(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.of(key).forgedAt = m.now()
}

// forgedAt is when an entry of a credential was last found forged; zero: never.
func (m *memory) forgedAt(key string) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.known[key]; k != nil {
		return k.forgedAt
	}
	return time.Time{}
}

// refutedFor is for how long entries that are sealed with another AppSecret count as forged, after WeChat has accepted
// this worker's. Without it, each of them would cost a call. It is short, because the AppSecret may be changed later.
const refutedFor = 10 * time.Minute

// isRefuted reports whether an entry that is sealed with another AppSecret counts as forged. m.mu is locked.
func (k *knowledge) isRefuted(now time.Time) bool {
	return !k.refutedAt.IsZero() && now.Before(k.refutedAt.Add(refutedFor))
}

// refute notes that WeChat has just accepted what this worker has, although the bucket has a record that is sealed with
// another AppSecret.
func (m *memory) refute(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.of(key).refutedAt = m.now()
}

// isRefuted reports whether an entry of a credential that is sealed with another AppSecret counts as forged.
func (m *memory) isRefuted(key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.of(key).isRefuted(m.now())
}

// hold takes a credential that the watch has not delivered: it could not be published, or a read at the leader
// found it. A record that was read without the lease may already be replaced in the bucket, so hold does not
// change what is known of the bucket.
func (m *memory) hold(c messages.Credential) { m.wake(m.latest.Accept(c)) }

// observeRecord takes a record that a turn has read at the leader or published: while the turn holds the lease,
// it is the last one.
func (m *memory) observeRecord(c messages.Credential) {
	m.hold(c)
	m.change(messages.Key(c.AppID, c.Kind), func(k *knowledge) { k.setRecord(&c, c.Revision); k.foreign = false })
}

// observeLedger takes a ledger entry that a turn has read at the leader or written.
func (m *memory) observeLedger(l store.Ledger) {
	m.change(messages.Key(l.AppID, l.Kind), func(k *knowledge) { k.ledger, k.entryLost = l, false })
}

// handleRecords takes an event of the watch of the records.
func (m *memory) handleRecords(e store.RecordEvent) {
	switch {
	case e.Down != nil:
		m.recordsWatch.down(m.log, "credentials", e.Down)
	case e.Ready:
		m.recordsWatch.up(m.log, "credentials")
	}
	changes, replaced, err := m.latest.Apply(e.Event)
	if err != nil {
		m.log.Warn("record ignored", "error", err)
	}
	m.wake(replaced)
	for _, c := range changes {
		switch {
		case c.Reset: // of a bucket whose revisions may be lower
			m.mu.Lock()
			m.recordSnapshots++
			for _, k := range m.known {
				k.revision = 0
			}
			m.mu.Unlock()
		case c.Ready:
			m.noteLostRecords()
			closeOnce(m.recordsReady)
		default:
			m.change(messages.Key(c.AppID, c.Kind), func(k *knowledge) {
				k.snapshot = m.recordSnapshots
				if c.Revision == 0 || c.Revision >= k.revision { // else a turn has observed a later one
					k.setRecord(c.Record, c.Revision)
					k.foreign = e.Foreign
				}
			})
		}
	}
}

// handleLedgers takes an event of the watch of the ledger.
func (m *memory) handleLedgers(e store.LedgerEvent) {
	switch {
	case e.Down != nil:
		m.ledgersWatch.down(m.log, "ledger", e.Down)
	case e.Reset: // of a bucket whose revisions may be lower
		m.mu.Lock()
		m.ledgerSnapshots++
		for _, k := range m.known {
			k.ledger.Revision = 0
		}
		m.mu.Unlock()
	case e.Ready:
		m.ledgersWatch.up(m.log, "ledger")
		m.noteLostEntries()
		closeOnce(m.ledgersReady)
	default:
		l := *e.Entry
		m.change(messages.Key(l.AppID, l.Kind), func(k *knowledge) {
			k.ledgerSnapshot = m.ledgerSnapshots
			switch {
			case l.Revision < k.ledger.Revision: // a turn has observed a later one
			case errors.Is(e.Err, store.ErrForeign): // it may be a worker's
				k.ledger.Revision = l.Revision
			default:
				k.ledger, k.entryLost = policy.Remember(k.ledger, l)
				k.entryLost = k.entryLost || e.Err != nil
			}
		})
	}
}

// noteLostRecords notes which records the complete snapshot does not have: those that the watch has delivered before
// are known to be lost already; one that a turn has published may have been lost before the watch delivered it. (A
// record that was published after the snapshot had begun is not in it either. It costs a turn, which finds it at the
// leader.)
func (m *memory) noteLostRecords() {
	m.noteLost(func(k *knowledge) bool {
		lost := k.snapshot != m.recordSnapshots && k.record != nil
		if lost {
			k.record = nil
		}
		return lost
	})
}

// noteLostEntries notes which entries the complete snapshot of the ledger does not have.
func (m *memory) noteLostEntries() {
	m.noteLost(func(k *knowledge) bool {
		lost := k.ledgerSnapshot != m.ledgerSnapshots && !k.ledger.IsEmpty() && !k.entryLost
		k.entryLost = k.entryLost || lost
		return lost
	})
}

// noteLost calls note for all that is known, and notifies the listener of the keys for which it returns true.
func (m *memory) noteLost(note func(*knowledge) bool) {
	m.mu.Lock()
	var lost []string
	for key, k := range m.known {
		if note(k) {
			lost = append(lost, key)
		}
	}
	changed := m.changed
	m.mu.Unlock()
	for _, key := range lost {
		changed(key)
	}
}

// change changes what is known of a credential, and notifies the listener.
func (m *memory) change(key string, change func(*knowledge)) {
	m.mu.Lock()
	change(m.of(key))
	changed := m.changed
	m.mu.Unlock()
	changed(key)
}

// wake wakes what waits for another credential.
func (m *memory) wake(replaced []bucket.Name) {
	if len(replaced) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range replaced {
		if k := m.known[messages.Key(n.AppID, n.Kind)]; k != nil && k.replaced != nil {
			close(k.replaced)
			k.replaced = nil
		}
	}
}

// closeOnce closes a channel that only the calling goroutine closes.
func closeOnce(ch chan struct{}) {
	select {
	case <-ch:
	default:
		close(ch)
	}
}
