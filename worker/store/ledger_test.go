package store

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// ledgerKey is the key of the entry in these tests.
var ledgerKey = messages.Key("wx1", messages.AccessToken)

func TestLedgerOutlivesItsWorkersAndRefusesALateWrite(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	a, b := newStore(t, srv, "a"), newStore(t, srv, "b")
	ctx := testContext(t)
	entry, err := a.Ledger(ctx, "wx1", messages.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Ledger{AppID: "wx1", Kind: messages.AccessToken}, entry); diff != "" {
		t.Errorf("a new entry: %s", diff)
	}
	late := entry
	at := time.Now().UTC()
	entry.Generation, entry.Attempts = 7, 3
	entry.Probe = &Probe{At: at, Generation: 7, Verdict: Inconclusive}
	entry.Failure = &Failure{At: at, Class: wechat.ClassServer, Message: "invalid secret", Errcode: 40125, RID: "rid"}
	if entry, err = a.PutLedger(ctx, entry); err != nil {
		t.Fatal(err)
	}
	if _, err := b.PutLedger(ctx, late); !errors.Is(err, ErrConflict) {
		t.Errorf("a write of an older revision returns %v, want ErrConflict", err)
	}
	got, err := b.Ledger(ctx, "wx1", messages.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(entry, got); diff != "" {
		t.Error(diff)
	}
}

func TestDeletedLedgerEntryCanBeWrittenAgain(t *testing.T) {
	t.Parallel()
	s := newStore(t, natstest.Start(t), "w")
	ctx := testContext(t)
	if _, err := s.PutLedger(ctx, Ledger{AppID: "wx1", Kind: messages.AccessToken, Generation: 7}); err != nil {
		t.Fatal(err)
	}
	if err := s.ledgers.Delete(ctx, ledgerKey); err != nil {
		t.Fatal(err)
	}
	entry, err := s.Ledger(ctx, "wx1", messages.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if !entry.IsEmpty() {
		t.Errorf("the deleted entry is %+v, want an empty one", entry)
	}
	entry.Generation = 8
	if _, err := s.PutLedger(ctx, entry); err != nil {
		t.Error(err)
	}
}

// Anybody with write access can store anything. The fleet must neither trust it nor stop because of it.
func TestWhatIsNoEntryOfItsKeyCountsAsEmptyAndIsReplaced(t *testing.T) {
	t.Parallel()
	s := newStore(t, natstest.Start(t), "w")
	ctx := testContext(t)
	events := followLedgers(t, s)
	inLedger := seal.Place{Bucket: "wechat_ledger", Key: ledgerKey}
	sealed := func(appid, secret string, p seal.Place, entry string) string {
		return string(seal.JSON(seal.New(appid, secret), p, []byte(entry)))
	}
	entry := `{"appid":"wx1","kind":"access_token","generation":9}`
	wantErrs := map[string]error{"sealed with another AppSecret": ErrForeign, "sealed, of another version": nil}
	junks := map[string]string{
		"sealed with another AppSecret": sealed("wx1", "another secret", inLedger, entry),
		"sealed, of another version":    sealed("wx1", "secret", inLedger, `{"appid":1}`),
		"sealed for the record":         sealed("wx1", "secret", seal.Place{Bucket: "wechat", Key: ledgerKey}, entry),
		"sealed for another credential": sealed("wx1", "secret",
			seal.Place{Bucket: "wechat_ledger", Key: "wx1.jsapi_ticket"}, entry),
		"an entry without a seal": entry,
		"not JSON":                "{",
		"null":                    "null",
		"another type":            `{"appid":"wx1","kind":"access_token","generation":"9"}`,
		"no key":                  `{"generation":9}`,
		"another account":         `{"appid":"wx2","kind":"access_token","generation":9}`,
		"another kind":            `{"appid":"wx1","kind":"jsapi_ticket","generation":9}`,
		"a broken attempt":        `{"appid":"wx1","kind":"access_token","generation":9,"last_attempt":"yesterday"}`,
	}
	for name := range junks {
		if _, ok := wantErrs[name]; !ok {
			wantErrs[name] = ErrForged
		}
	}
	for name, junk := range junks {
		revision, err := s.ledgers.Put(ctx, ledgerKey, []byte(junk))
		if err != nil {
			t.Fatal(err)
		}
		want := Ledger{AppID: "wx1", Kind: messages.AccessToken, Revision: revision}
		got, err := s.Ledger(ctx, "wx1", messages.AccessToken)
		if wantErr := wantErrs[name]; !errors.Is(err, wantErr) {
			t.Fatalf("%s: the error is %v, want %v", name, err, wantErr)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s, read: %s", name, diff)
		}
		e := await(t, events, name+" is not delivered", func(e LedgerEvent) bool { return isEntry(e, revision) })
		if diff := cmp.Diff(want, *e.Entry); diff != "" || !errors.Is(e.Err, wantErrs[name]) {
			t.Errorf("%s, watched: %v, %s", name, e.Err, diff)
		}
		got.Generation = 10
		if _, err := s.PutLedger(ctx, got); err != nil {
			t.Errorf("%s is not replaced: %v", name, err)
		}
	}
}

func isEntry(e LedgerEvent, revision uint64) bool {
	return e.Entry != nil && e.Entry.Revision == revision
}

// An entry outlives the workers, and so their versions: its names are a contract, and a new name must not
// empty the entry.
func TestLedgerEntryOfAnotherVersionIsUnderstood(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for class, want := range map[string]wechat.Class{
		"account": wechat.ClassAccount, "daily_quota": wechat.ClassDailyQuota, "none": 0,
		"a_class_of_the_next_version": wechat.ClassUnknown,
	} {
		stored := `{"appid":"wx1","kind":"access_token","generation":7,"attempts":2,
			"probe":{"at":"2026-01-02T03:04:05Z","generation":7,"verdict":"dead"},
			"failure":{"at":"2026-01-02T03:04:05Z","class":"` + class + `","message":"text","errcode":40125,"new":1},
			"a_field_of_the_next_version":true}`
		got := decodeLedger([]byte(stored), "wx1", messages.AccessToken, 3)
		entry := Ledger{
			AppID: "wx1", Kind: messages.AccessToken, Generation: 7, Attempts: 2, Revision: 3,
			Probe:   &Probe{At: at, Generation: 7, Verdict: Dead},
			Failure: &Failure{At: at, Class: want, Message: "text", Errcode: 40125},
		}
		if diff := cmp.Diff(entry, got); diff != "" {
			t.Errorf("%s: %s", class, diff)
		}
	}
}
