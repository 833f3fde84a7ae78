package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/messages"
)

// Errors that callers of a [Store] decide on.
var (
	// ErrNotFound: the bucket does not have the record.
	ErrNotFound = bucket.ErrNotFound
	// ErrLeaseHeld: another worker is refreshing this credential.
	ErrLeaseHeld = errors.New("another worker holds the lease")
	// ErrLeaseLost: the lease has ended or belongs to another worker. The server refused the publication, so
	// nothing was written.
	ErrLeaseLost = errors.New("lease lost")
	// ErrConflict: another worker has written the ledger entry since it was read.
	ErrConflict = errors.New("another worker has written the entry meanwhile")
	// ErrForged: what is stored has no seal or a wrong one. No worker has stored it there.
	ErrForged = errors.New("no worker has stored what is there")
	// ErrForeign: what is stored is sealed with a key that this worker does not have: another worker has another
	// AppSecret for the account, or it is forged.
	ErrForeign = errors.New("it was stored with another AppSecret")
	// ErrUnavailable: JetStream did not answer. What was requested may or may not have happened.
	ErrUnavailable = errors.New("JetStream does not answer, or refuses")
)

// Store is the workers' side of the buckets. It is safe for concurrent use. Its methods block for at most a few
// times [Config].Timeout, and return earlier if ctx ends.
type Store struct {
	cfg Config
	nc  *nats.Conn
	js  jetstream.JetStream

	mu          sync.RWMutex // guards what follows
	creds       jetstream.KeyValue
	ledgers     jetstream.KeyValue
	told        map[string]bool // the buckets for which OnFewReplicas was called, or need not be
	tooFewSince time.Time       // since when creations fail because the cluster has too few servers; zero: they do not
}

// New makes a Store on a connection, which must have been made with nats.ReconnectBufSize(-1): a write that is
// buffered while the connection is down would be sent after its worker has lost the lease. New sends nothing;
// [Store.Ensure] does.
func New(nc *nats.Conn, cfg Config) (*Store, error) {
	if nc.Opts.ReconnectBufSize >= 0 {
		return nil, errors.New("the connection of a Store needs nats.ReconnectBufSize(-1)")
	}
	cfg.setDefaults()
	js, err := bucket.JetStream(nc, cfg.JSDomain, jetstream.WithDefaultTimeout(cfg.Timeout))
	if err != nil {
		return nil, err
	}
	return &Store{cfg: cfg, nc: nc, js: js, told: map[string]bool{}}, nil
}

// Connected reports whether the Store has a connection to a NATS server now. JetStream may not
// answer even then.
func (s *Store) Connected() bool { return s.nc.IsConnected() }

// Ensure creates the buckets that do not exist, and verifies the settings of the buckets that exist
// ([ErrBucket]). It is called at the start, again after an error, and when a bucket has disappeared. A [Refusal]
// that is permanent needs an operator.
//
// If the servers of a cluster are too few for the default number of replicas, Ensure fails for half a minute;
// after that it creates the buckets with one replica. It calls [Config].OnFewReplicas.
func (s *Store) Ensure(ctx context.Context) error {
	replicas := s.cfg.replicas(s.nc)
	creds, err := s.ensureBucket(ctx, s.cfg.credentials(replicas))
	if err != nil {
		return err
	}
	ledgers, err := s.ensureBucket(ctx, s.cfg.ledgers(replicas))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.creds, s.ledgers, s.tooFewSince = creds, ledgers, time.Time{}
	return nil
}

func (s *Store) buckets() (creds, ledgers jetstream.KeyValue, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.creds == nil {
		return nil, nil, errors.New("the buckets are not open yet")
	}
	return s.creds, s.ledgers, nil
}

// Get reads a record from the leader of the stream. [ErrNotFound] if there is none (never obtained, deleted,
// expired), [ErrForged] or [ErrForeign] if it does not have the seal of a worker with this AppSecret,
// messages.ErrInvalidCredential for one of a version of wxkeeper that this one does not understand,
// [ErrUnavailable].
func (s *Store) Get(ctx context.Context, appid string, kind messages.Kind) (messages.Credential, error) {
	key := messages.Key(appid, kind)
	data, rev, err := s.leaderGet(ctx, s.cfg.Bucket, key)
	if err != nil {
		return messages.Credential{}, err
	}
	if err := s.checkSeal(s.cfg.Bucket, appid, key, data); err != nil {
		return messages.Credential{}, err
	}
	return bucket.DecodeRecord(data, appid, kind, rev)
}

// checkSeal returns [ErrForged] or [ErrForeign] if the JSON object under a key is not sealed as a worker with
// this AppSecret seals it.
func (s *Store) checkSeal(name, appid, key string, object []byte) error {
	return sealError(seal.CheckJSON(s.cfg.Keys(appid), seal.Place{Bucket: name, Key: key}, object), key)
}

func sealError(v seal.Verdict, key string) error {
	switch v {
	case seal.Genuine:
		return nil
	case seal.Foreign:
		return fmt.Errorf("%w: %s", ErrForeign, key)
	default:
		return fmt.Errorf("%w: %s", ErrForged, key)
	}
}

// sealKey returns the key that seals the entries of an account.
func (s *Store) sealKey(appid string) (seal.Key, error) {
	keys := s.cfg.Keys(appid)
	if len(keys) == 0 {
		return seal.Key{}, fmt.Errorf("account %s is not kept: there is no key for its entries", appid)
	}
	return keys[0], nil
}

// Ledger reads the ledger entry of a credential from the leader. If there is none, or the key has something
// else, it returns an empty entry with the revision of what is stored, so that PutLedger replaces it. With an
// empty entry, the error is [ErrForged] or [ErrForeign] if what is stored does not have the seal of a worker
// with this AppSecret. [ErrUnavailable].
func (s *Store) Ledger(ctx context.Context, appid string, kind messages.Kind) (Ledger, error) {
	data, rev, err := s.leaderGet(ctx, bucket.LedgerOf(s.cfg.Bucket), messages.Key(appid, kind))
	switch {
	case errors.Is(err, ErrNotFound): // rev is the revision of the marker if the entry was deleted
		return Ledger{AppID: appid, Kind: kind, Revision: rev}, nil
	case err != nil:
		return Ledger{AppID: appid, Kind: kind}, err
	}
	return s.openLedger(data, appid, kind, rev)
}

// openLedger checks the seal of what is stored under the key of an entry, and decodes it. With an error it
// returns an empty entry.
func (s *Store) openLedger(data []byte, appid string, kind messages.Kind, revision uint64) (Ledger, error) {
	if err := s.checkSeal(bucket.LedgerOf(s.cfg.Bucket), appid, messages.Key(appid, kind), data); err != nil {
		return Ledger{AppID: appid, Kind: kind, Revision: revision}, err
	}
	return decodeLedger(data, appid, kind, revision), nil
}

// decodeLedger decodes the entry of a credential. It returns an empty entry if data is not an entry of this
// key that this version understands.
func decodeLedger(data []byte, appid string, kind messages.Kind, revision uint64) Ledger {
	var l Ledger
	if json.Unmarshal(data, &l) != nil || l.AppID != appid || l.Kind != kind {
		l = Ledger{}
	}
	l.AppID, l.Kind, l.Revision = appid, kind, revision
	return l
}

// PutLedger writes l if the entry is still at l.Revision, and returns it with its new revision. [ErrConflict]
// if another worker wrote meanwhile, [ErrUnavailable] if the outcome is unknown.
func (s *Store) PutLedger(ctx context.Context, l Ledger) (Ledger, error) {
	_, ledgers, err := s.buckets()
	if err != nil {
		return l, err
	}
	key := messages.Key(l.AppID, l.Kind)
	sealed, err := s.sealed(bucket.LedgerOf(s.cfg.Bucket), l.AppID, key, l)
	if err != nil {
		return l, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	rev, err := ledgers.Update(ctx, key, sealed, l.Revision)
	switch {
	case err == nil:
		l.Revision = rev
		return l, nil
	case errors.Is(err, jetstream.ErrKeyRevisionMismatch), errors.Is(err, jetstream.ErrKeyExists), isConflict(err):
		return l, fmt.Errorf("write the ledger entry of %s: %w", key, ErrConflict)
	default:
		return l, unavailable("write the ledger entry of "+key, err)
	}
}

// sealed returns the JSON of a value with its seal.
func (s *Store) sealed(name, appid, key string, value any) ([]byte, error) {
	k, err := s.sealKey(appid)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	return seal.JSON(k, seal.Place{Bucket: name, Key: key}, data), nil
}

func unavailable(doing string, err error) error {
	return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
}

// leaderGet reads the last message of a key from the leader of the bucket's stream.
func (s *Store) leaderGet(ctx context.Context, name, key string) ([]byte, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	m, err := bucket.ReadLeader(ctx, s.js, name, map[string]string{"last_by_subj": bucket.Subject(name, key)})
	switch {
	case err != nil:
		return nil, 0, unavailable("read "+key, err)
	case m == nil:
		return nil, 0, fmt.Errorf("%w: %s", ErrNotFound, key)
	case len(m.Data) == 0: // a marker: deleted, purged or expired
		return nil, m.Sequence, fmt.Errorf("%w: %s", ErrNotFound, key)
	}
	return m.Data, m.Sequence, nil
}
