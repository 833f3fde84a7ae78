package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
)

func TestWatchOfLedgersDeliversASnapshotAndThenEachChange(t *testing.T) {
	t.Parallel()
	s := newStore(t, natstest.Start(t), "w")
	ctx := testContext(t)
	entry, err := s.PutLedger(ctx, Ledger{AppID: "wx1", Kind: messages.AccessToken, Generation: 7})
	if err != nil {
		t.Fatal(err)
	}
	events := followLedgers(t, s)
	expect := func(want Ledger) {
		t.Helper()
		e := await(t, events, "the entry is not delivered", func(e LedgerEvent) bool {
			return isEntry(e, want.Revision)
		})
		if diff := cmp.Diff(want, *e.Entry); diff != "" {
			t.Error(diff)
		}
	}
	await(t, events, "no snapshot begins", func(e LedgerEvent) bool { return e.Reset })
	expect(entry)
	await(t, events, "the snapshot does not become complete", func(e LedgerEvent) bool { return e.Ready })

	entry.Attempts = 1
	if entry, err = s.PutLedger(ctx, entry); err != nil {
		t.Fatal(err)
	}
	expect(entry)

	if err := s.ledgers.Delete(ctx, ledgerKey); err != nil {
		t.Fatal(err)
	}
	expect(Ledger{AppID: "wx1", Kind: messages.AccessToken, Revision: entry.Revision + 1})
}

func TestWatchOfRecordsDoesNotDeliverLeases(t *testing.T) {
	t.Parallel()
	s := newStore(t, natstest.Start(t), "w")
	events := followRecords(t, s)
	revision := publish(t, s, credential(1, time.Hour)) // which writes a lease before
	e := await(t, events, "the record is not delivered", func(e RecordEvent) bool { return e.Key != "" })
	if want := messages.Key("wx1", messages.AccessToken); e.Key != want {
		t.Errorf("%s was delivered, want %s", e.Key, want)
	}
	if e.Revision != revision {
		t.Errorf("revision %d was delivered, want %d", e.Revision, revision)
	}
}

func TestWatchesCreateADeletedBucketAgain(t *testing.T) {
	t.Parallel()
	s := newStore(t, natstest.Start(t), "w")
	records, ledgers := followRecords(t, s), followLedgers(t, s)
	await(t, records, "no snapshot of the records", func(e RecordEvent) bool { return e.Ready })
	await(t, ledgers, "no snapshot of the ledger", func(e LedgerEvent) bool { return e.Ready })
	for _, name := range []string{"wechat", "wechat_ledger"} {
		if err := s.js.DeleteKeyValue(testContext(t), name); err != nil {
			t.Fatal(err)
		}
	}
	await(t, records, "the loss of the records is not emitted", func(e RecordEvent) bool { return e.Down != nil })
	await(t, records, "no snapshot of the recreated bucket", func(e RecordEvent) bool { return e.Reset })
	await(t, ledgers, "the loss of the ledger is not emitted", func(e LedgerEvent) bool { return e.Down != nil })
	await(t, ledgers, "no second snapshot of the ledger", func(e LedgerEvent) bool { return e.Ready })
}
