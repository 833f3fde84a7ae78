// Package storetest has the buckets of a fleet in memory, in virtual time, for tests of what is built on
// worker/store. It follows the rules of the server that correctness depends on: one revision for all writes,
// the fence of a lease, compare-and-set of ledger entries, TTLs by the server's clock. What it does not have is
// a network: a test decides with [Store.Before] which operation takes how long, and which is lost.
package storetest

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// Server is the server's side: both buckets. Its methods, and those of its Stores, must not be called concurrently.
type Server struct {
	now func() time.Time

	// OnRecord is called with each record that was accepted, and the Store that published it. nil: it is not called.
	OnRecord func(*Store, messages.Credential)
	// OnLedger is called with each ledger entry that was accepted, the entry that it replaced, and the Store
	// that wrote it. nil: it is not called.
	OnLedger func(s *Store, before, after store.Ledger)

	revision uint64
	records  map[string]record
	ledgers  map[string]store.Ledger
	leases   map[string]lease
}

// record is a record, or the marker of a removed one.
type record struct {
	credential *messages.Credential // nil: removed
	revision   uint64
	ends       time.Time
}

type lease struct {
	revision uint64
	ends     time.Time
}

// NewServer makes empty buckets. now is the server's clock.
func NewServer(now func() time.Time) *Server {
	return &Server{now: now, records: map[string]record{}, ledgers: map[string]store.Ledger{},
		leases: map[string]lease{}}
}

// next is the revision of the next write.
func (s *Server) next() uint64 {
	s.revision++
	return s.revision
}

// Expire removes the records and leases whose TTL has ended. It is called by every method; a test calls it
// after time has passed.
func (s *Server) Expire() {
	now := s.now()
	for key, r := range s.records {
		if r.credential != nil && !now.Before(r.ends) {
			s.records[key] = record{revision: s.next()}
		}
	}
	maps.DeleteFunc(s.leases, func(_ string, l lease) bool { return !now.Before(l.ends) })
}

// Record returns the record of a key, nil if there is none, and the revision of its last change.
func (s *Server) Record(key string) (*messages.Credential, uint64) {
	s.Expire()
	r := s.records[key]
	return r.credential, r.revision
}

// Ledger returns the ledger entry of a key; an empty one with its revision if it was removed or never written.
func (s *Server) Ledger(key string) store.Ledger {
	if l, ok := s.ledgers[key]; ok {
		return l
	}
	appid, kind, _ := messages.ParseKey(key)
	return store.Ledger{AppID: appid, Kind: kind}
}

// RemoveRecord removes a record, as nats kv del does.
func (s *Server) RemoveRecord(key string) { s.records[key] = record{revision: s.next()} }

// StoreRecord stores a record without a worker, a lease and a TTL, as a copy of an earlier message does.
func (s *Server) StoreRecord(c messages.Credential) {
	c.Revision = s.next()
	s.records[messages.Key(c.AppID, c.Kind)] = record{&c, c.Revision, c.ExpiresAt.Add(messages.MaxLife)}
}

// StoreLedger stores an entry without a worker, as a copy of an earlier message does.
func (s *Server) StoreLedger(l store.Ledger) {
	l.Revision = s.next()
	s.ledgers[messages.Key(l.AppID, l.Kind)] = l
}

// Purge removes the record and the lease of a key, as a purge of the bucket does.
func (s *Server) Purge(key string) {
	s.RemoveRecord(key)
	delete(s.leases, key)
}

// RemoveLedger removes a ledger entry, as nats kv del does.
func (s *Server) RemoveLedger(key string) {
	appid, kind, _ := messages.ParseKey(key)
	s.ledgers[key] = store.Ledger{AppID: appid, Kind: kind, Revision: s.next()}
}

// Store is one worker's side of the buckets. It has the methods of a *store.Store that refreshes need.
type Store struct {
	server *Server
	// Now is the worker's clock.
	Now func() time.Time
	// Before is called before each operation reaches the server. It may let virtual time pass. Its error is
	// returned by the operation, which then has no effect. nil: operations take no time and are never lost.
	Before func(context.Context, Operation) error
}

// Operation is an operation of a Store.
type Operation struct {
	Name   string               // acquire, get, ledger, put_ledger, publish or release
	Ledger *store.Ledger        // the entry of put_ledger
	Record *messages.Credential // the record of publish
}

// Connect makes the Store of a worker.
func (s *Server) Connect(now func() time.Time) *Store { return &Store{server: s, Now: now} }

func (s *Store) before(ctx context.Context, op Operation) error {
	if s.Before == nil {
		return nil
	}
	return s.Before(ctx, op)
}

// Connected does what the method of store.Store does.
func (s *Store) Connected() bool { return true }

// Acquire does what the method of store.Store does.
func (s *Store) Acquire(ctx context.Context, appid string, kind messages.Kind, ttl time.Duration) (store.Lease, error) {
	asked := s.server.now()
	if err := s.before(ctx, Operation{Name: "acquire"}); err != nil {
		return nil, err
	}
	s.server.Expire()
	key := messages.Key(appid, kind)
	if _, taken := s.server.leases[key]; taken {
		return nil, fmt.Errorf("%w: %s", store.ErrLeaseHeld, key)
	}
	revision := s.server.next()
	s.server.leases[key] = lease{revision, s.server.now().Add(ttl)}
	return &held{s: s, key: key, revision: revision, deadline: asked.Add(ttl - ttl/5)}, nil
}

// Get does what the method of store.Store does.
func (s *Store) Get(ctx context.Context, appid string, kind messages.Kind) (messages.Credential, error) {
	if err := s.before(ctx, Operation{Name: "get"}); err != nil {
		return messages.Credential{}, err
	}
	c, _ := s.server.Record(messages.Key(appid, kind))
	if c == nil {
		return messages.Credential{}, fmt.Errorf("%w: %s", store.ErrNotFound, messages.Key(appid, kind))
	}
	return *c, nil
}

// Ledger does what the method of store.Store does.
func (s *Store) Ledger(ctx context.Context, appid string, kind messages.Kind) (store.Ledger, error) {
	if err := s.before(ctx, Operation{Name: "ledger"}); err != nil {
		return store.Ledger{AppID: appid, Kind: kind}, err
	}
	return s.server.Ledger(messages.Key(appid, kind)), nil
}

// PutLedger does what the method of store.Store does.
func (s *Store) PutLedger(ctx context.Context, l store.Ledger) (store.Ledger, error) {
	if err := s.before(ctx, Operation{Name: "put_ledger", Ledger: &l}); err != nil {
		return l, err
	}
	key := messages.Key(l.AppID, l.Kind)
	before := s.server.Ledger(key)
	if l.Revision != before.Revision {
		return l, fmt.Errorf("%w: ledger %s", store.ErrConflict, key)
	}
	l.Revision = s.server.next()
	s.server.ledgers[key] = l
	if s.server.OnLedger != nil {
		s.server.OnLedger(s, before, l)
	}
	return l, nil
}

// held is a lease of a Store.
type held struct {
	s        *Store
	key      string
	revision uint64
	deadline time.Time // by the server's clock: it is a duration, and every clock measures it alike
}

func (l *held) Deadline() time.Time { return l.deadline }

func (l *held) Publish(ctx context.Context, c messages.Credential) (uint64, error) {
	if err := l.s.before(ctx, Operation{Name: "publish", Record: &c}); err != nil {
		return 0, err
	}
	s := l.s.server
	s.Expire()
	if err := c.Validate(); err != nil {
		return 0, err
	}
	ttl := c.ExpiresAt.Sub(l.s.Now()).Truncate(time.Second)
	if ttl < time.Second {
		return 0, fmt.Errorf("%w: less than a second of its life is left", messages.ErrInvalidCredential)
	}
	if s.leases[l.key].revision != l.revision {
		return 0, fmt.Errorf("%w: %s", store.ErrLeaseLost, l.key)
	}
	if s.OnRecord != nil {
		s.OnRecord(l.s, c)
	}
	c.Revision = s.next()
	s.records[l.key] = record{&c, c.Revision, s.now().Add(ttl)}
	return c.Revision, nil
}

func (l *held) Release(ctx context.Context) {
	if l.s.before(ctx, Operation{Name: "release"}) != nil {
		return
	}
	l.s.server.Expire()
	if l.s.server.leases[l.key].revision == l.revision {
		delete(l.s.server.leases, l.key)
	}
}
