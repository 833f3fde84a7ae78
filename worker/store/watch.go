package store

import (
	"context"
	"errors"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// watchCheckEvery is the time between two checks whether a bucket was recreated or purged. Workers check more
// often than consumers: they republish what was lost, and there are few of them.
const watchCheckEvery = 5 * time.Second

// RecordEvent is one event of [Store.WatchRecords].
type RecordEvent struct {
	// Event is the event of the bucket. What does not have the seal of a worker with this AppSecret is delivered
	// as Removed: the bucket then has no record that a worker believes.
	bucket.Event
	// Foreign: the record is sealed with a key that this worker does not have ([ErrForeign]).
	Foreign bool
}

// WatchRecords delivers the records of all credentials, first a snapshot and then each change, until ctx ends.
// emit is called from one goroutine and must not block. The watch restarts after any error, which it emits
// (Event.Down), and creates the buckets again if they were deleted. It needs no consumer: see
// bucket.Watch.LeaderReads.
func (s *Store) WatchRecords(ctx context.Context, emit func(RecordEvent)) {
	s.watch(ctx, s.cfg.Bucket, func(e bucket.Event) {
		appid, _, ok := messages.ParseKey(e.Key)
		if !ok || e.Removed {
			emit(RecordEvent{Event: e})
			return
		}
		err := s.checkSeal(s.cfg.Bucket, appid, e.Key, e.Value)
		if err != nil {
			e.Removed, e.Value = true, nil
		}
		emit(RecordEvent{e, errors.Is(err, ErrForeign)})
	})
}

// LedgerEvent is one event of [Store.WatchLedgers]: one of Reset, Ready and Down, or else Entry.
type LedgerEvent struct {
	Reset bool  // a snapshot begins: revisions may be lower than before
	Ready bool  // the snapshot is complete
	Down  error // why the watch had to restart
	// Entry is an entry of the snapshot, or a change after it. It is empty ([Ledger.IsEmpty]) if the entry was
	// removed, or does not have the seal of a worker with this AppSecret.
	Entry *Ledger
	// Err is [ErrForged] or [ErrForeign] if what is stored does not have that seal.
	Err error
}

// WatchLedgers delivers the ledger entries of all credentials, first a snapshot and then each change, until ctx
// ends. emit is called from one goroutine and must not block. The watch restarts after any error, and creates
// the buckets again if they were deleted.
func (s *Store) WatchLedgers(ctx context.Context, emit func(LedgerEvent)) {
	s.watch(ctx, bucket.LedgerOf(s.cfg.Bucket), func(e bucket.Event) {
		switch {
		case e.Reset, e.Ready, e.Down != nil:
			emit(LedgerEvent{Reset: e.Reset, Ready: e.Ready, Down: e.Down})
			return
		}
		appid, kind, ok := messages.ParseKey(e.Key)
		if !ok {
			return
		}
		l, err := Ledger{AppID: appid, Kind: kind, Revision: e.Revision}, error(nil)
		if !e.Removed {
			l, err = s.openLedger(e.Value, appid, kind, e.Revision)
		}
		emit(LedgerEvent{Entry: &l, Err: err})
	})
}

func (s *Store) watch(ctx context.Context, name string, emit func(bucket.Event)) {
	w := bucket.Watch{
		JS: s.js, Bucket: name, Keys: []string{bucket.AllKeys}, CheckEvery: watchCheckEvery, LeaderReads: true,
		Missing: s.Ensure, Emit: emit,
	}
	w.Run(ctx)
}
