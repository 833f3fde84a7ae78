package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/kv/internal/feed"
	"github.com/wxkeeper/wxkeeper/messages"
)

// Errors that callers of a [Store] decide on.
var (
	// ErrNotFound: the bucket has no such record.
	ErrNotFound = errors.New("kv: not found")
	// ErrLeaseHeld: another worker is refreshing this credential.
	ErrLeaseHeld = errors.New("kv: the lease is held by another worker")
	// ErrLeaseLost: the lease is no longer ours; the server refused the publication, so nothing was written.
	ErrLeaseLost = errors.New("kv: the lease is lost")
	// ErrConflict: another worker wrote the ledger entry since it was read.
	ErrConflict = errors.New("kv: written by another worker meanwhile")
	// ErrUnavailable: JetStream did not answer; what was asked for may or may not have happened.
	ErrUnavailable = errors.New("kv: JetStream does not answer")
)

// Store is the workers' side of the buckets. It is safe for concurrent use; its methods block for at most a few
// [StoreConfig.Timeout], less where ctx ends earlier.
type Store struct {
	cfg StoreConfig
	nc  *nats.Conn
	js  jetstream.JetStream

	mu      sync.RWMutex
	creds   jetstream.KeyValue
	ledgers jetstream.KeyValue
}

// NewStore makes a Store on a connection, which must have been made with nats.ReconnectBufSize(-1): a write that is
// buffered while the connection is down would be sent when its worker no longer holds the lease. It asks the server
// for nothing; [Store.Ensure] does.
func NewStore(nc *nats.Conn, cfg StoreConfig) (*Store, error) {
	if nc.Opts.ReconnectBufSize >= 0 {
		return nil, errors.New("kv: the connection of a Store needs nats.ReconnectBufSize(-1)")
	}
	cfg.setDefaults()
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(cfg.Timeout))
	if err != nil {
		return nil, fmt.Errorf("kv: %w", err)
	}
	return &Store{cfg: cfg, nc: nc, js: js}, nil
}

// Ensure makes both buckets where they are missing, and verifies them where they are there ([ErrBucket]). It is called
// at the start, and again when a bucket has vanished.
func (s *Store) Ensure(ctx context.Context) error {
	replicas := s.cfg.replicas(s.nc)
	creds, err := ensureBucket(ctx, s.js, s.cfg.credentials(replicas))
	if err != nil {
		return err
	}
	ledgers, err := ensureBucket(ctx, s.js, s.cfg.ledgers(replicas))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.creds, s.ledgers = creds, ledgers
	return nil
}

func (s *Store) buckets() (creds, ledgers jetstream.KeyValue, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.creds == nil {
		return nil, nil, errors.New("kv: the buckets are not open yet")
	}
	return s.creds, s.ledgers, nil
}

// Get reads a record from the leader of the stream. [ErrNotFound] where there is none (never obtained, deleted,
// expired), [ErrInvalid] for one that no worker can have written, [ErrUnavailable].
func (s *Store) Get(ctx context.Context, appid string, kind messages.Kind) (messages.Credential, error) {
	data, rev, err := s.leaderGet(ctx, s.cfg.Bucket, messages.Key(appid, kind))
	if err != nil {
		return messages.Credential{}, err
	}
	return decodeCredential(data, appid, kind, rev)
}

// decodeCredential reads a record and holds it against its key: what another hand wrote there is not handed out.
func decodeCredential(data []byte, appid string, kind messages.Kind, revision uint64) (messages.Credential, error) {
	var c messages.Credential
	if err := json.Unmarshal(data, &c); err != nil {
		return messages.Credential{}, fmt.Errorf("%w: %s is not the JSON of a credential", messages.ErrInvalidCredential, messages.Key(appid, kind))
	}
	if c.AppID != appid || c.Kind != kind {
		return messages.Credential{}, fmt.Errorf("%w: %s holds the record of another key", messages.ErrInvalidCredential, messages.Key(appid, kind))
	}
	if err := c.Validate(); err != nil {
		return messages.Credential{}, err
	}
	c.Revision = revision
	return c, nil
}

// Ledger reads what the fleet remembers of a credential, from the leader. Where nothing is remembered (or what is
// there cannot be read) it returns an empty one, whose Revision is that of what is there.
func (s *Store) Ledger(ctx context.Context, appid string, kind messages.Kind) (Ledger, error) {
	l := Ledger{AppID: appid, Kind: kind}
	data, rev, err := s.leaderGet(ctx, s.cfg.Bucket+"_ledger", messages.Key(appid, kind))
	if errors.Is(err, ErrNotFound) {
		l.Revision = rev // of a marker, where somebody deleted the entry
		return l, nil
	}
	if err != nil {
		return l, err
	}
	if json.Unmarshal(data, &l) != nil {
		l = Ledger{}
	}
	l.AppID, l.Kind, l.Revision = appid, kind, rev
	return l, nil
}

// PutLedger writes l where it is still at l.Revision, and returns it with its new revision. [ErrConflict] where
// another worker wrote meanwhile, [ErrUnavailable] where the outcome is unknown.
func (s *Store) PutLedger(ctx context.Context, l Ledger) (Ledger, error) {
	_, ledgers, err := s.buckets()
	if err != nil {
		return l, err
	}
	data, err := json.Marshal(l)
	if err != nil {
		return l, fmt.Errorf("kv: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	rev, err := ledgers.Update(ctx, messages.Key(l.AppID, l.Kind), data, l.Revision)
	switch {
	case err == nil:
		l.Revision = rev
		return l, nil
	case errors.Is(err, jetstream.ErrKeyRevisionMismatch), errors.Is(err, jetstream.ErrKeyExists), isConflict(err):
		return l, fmt.Errorf("%w: ledger %s", ErrConflict, messages.Key(l.AppID, l.Kind))
	default:
		return l, unavailable("writing the ledger of "+messages.Key(l.AppID, l.Kind), err)
	}
}

func unavailable(doing string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, doing, err)
}

// Codes of the server's answers to a leader read.
const (
	errCodeNoMessage      = 10037
	errCodeStreamNotFound = 10059
)

// leaderGet reads the last message of a key from the leader of the bucket's stream. jetstream's Get would ask any
// replica (direct get) and may return an old value.
func (s *Store) leaderGet(ctx context.Context, bucket, key string) ([]byte, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	body, err := json.Marshal(map[string]string{"last_by_subj": keyPrefix(bucket) + key})
	if err != nil {
		return nil, 0, fmt.Errorf("kv: %w", err)
	}
	msg, err := s.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET.KV_"+bucket, body)
	if err != nil {
		return nil, 0, unavailable("reading "+key, err)
	}
	var reply struct {
		Error *struct {
			ErrCode     int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
		Message *struct {
			Seq     uint64    `json:"seq"`
			Data    []byte    `json:"data"`
			Headers []byte    `json:"hdrs"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	switch err := json.Unmarshal(msg.Data, &reply); {
	case err != nil:
		return nil, 0, unavailable("reading "+key, err)
	case reply.Error != nil && reply.Error.ErrCode == errCodeNoMessage:
		return nil, 0, fmt.Errorf("%w: %s", ErrNotFound, key)
	case reply.Error != nil && reply.Error.ErrCode == errCodeStreamNotFound:
		return nil, 0, unavailable("reading "+key, jetstream.ErrStreamNotFound)
	case reply.Error != nil:
		return nil, 0, unavailable("reading "+key, fmt.Errorf("%s (%d)", reply.Error.Description, reply.Error.ErrCode))
	case reply.Message == nil:
		return nil, 0, unavailable("reading "+key, errors.New("an answer without a message"))
	case len(reply.Message.Data) == 0: // a marker: deleted, purged or expired
		return nil, reply.Message.Seq, fmt.Errorf("%w: %s", ErrNotFound, key)
	}
	return reply.Message.Data, reply.Message.Seq, nil
}

// LedgerWatch says whom to tell of the ledger. Its functions are called from one goroutine and must not block.
type LedgerWatch struct {
	Reset   func()       // a snapshot begins: revisions may be lower than before
	Told    func(Ledger) // an entry of the snapshot, or a change after it; an empty one where the entry has gone
	Ready   func()       // the snapshot is complete
	Trouble func(error)  // why the watch had to start over
}

// WatchLedgers follows the ledger of all credentials until ctx ends. It starts over by itself after any trouble, and
// makes the buckets anew where they have vanished.
func (s *Store) WatchLedgers(ctx context.Context, to LedgerWatch) {
	w := watch{
		js: s.js, bucket: s.cfg.Bucket + "_ledger", keys: []string{"*.*"}, missing: s.Ensure,
		emit: func(e feed.Event) {
			switch {
			case e.Reset:
				to.Reset()
			case e.Ready:
				to.Ready()
			case e.Down != nil && !isTurn(e.Down) && to.Trouble != nil:
				to.Trouble(e.Down)
			}
			appid, kind, ok := messages.ParseKey(e.Key)
			if !ok {
				return
			}
			l := Ledger{AppID: appid, Kind: kind}
			if !e.Gone && (json.Unmarshal(e.Value, &l) != nil || l.AppID != appid || l.Kind != kind) {
				return
			}
			l.Revision = e.Rev
			to.Told(l)
		},
	}
	w.run(ctx)
}
