package worker

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// A turn publishes a record, and the bucket loses it before the watch has delivered it: the next snapshot shows that.
func TestRecordThatTheWatchNeverDeliveredIsKnownToBeLost(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := newMemory(func() time.Time { return now }, slog.New(slog.DiscardHandler))
	a := &Account{AppID: appid, Secret: secret}
	m.handleRecords(store.RecordEvent{Event: bucket.Event{Reset: true}})
	m.handleRecords(store.RecordEvent{Event: bucket.Event{Ready: true}})
	m.observeRecord(messages.Credential{
		AppID: appid, Kind: messages.AccessToken, Value: "v", ObtainedAt: now, ExpiresAt: now.Add(time.Hour),
		Generation: 1, Revision: 1,
	})
	if m.view(a, messages.AccessToken).Record == nil {
		t.Fatal("the published record is not known")
	}
	var changed []string
	m.listen(func(key string) { changed = append(changed, key) })
	m.handleRecords(store.RecordEvent{Event: bucket.Event{Reset: true}})
	m.handleRecords(store.RecordEvent{Event: bucket.Event{Ready: true}})
	view := m.view(a, messages.AccessToken)
	if view.Record != nil {
		t.Error("the lost record is still known")
	}
	if view.Held == nil {
		t.Error("the worker does not hold the credential any more")
	}
	checkDiff(t, "the changed keys", changed, []string{messages.Key(appid, messages.AccessToken)})
}

// record is a valid access_token of the account, as the bucket has it.
func record(generation, revision uint64) messages.Credential {
	now := time.Now()
	return messages.Credential{
		AppID: appid, Kind: messages.AccessToken, Value: "value", ObtainedAt: now, ExpiresAt: now.Add(time.Hour),
		Generation: generation, Revision: revision, Source: messages.SourceStableToken, Worker: "another",
	}
}

// A loss is left to the other workers for some seconds (docs/architecture.md#refreshing), counted from that loss.
// Of an account that is not kept at the moment no view is made.
func TestSecondLossIsNotCountedFromTheFirst(t *testing.T) {
	t.Parallel()
	now := time.Now()
	m := newMemory(func() time.Time { return now }, slog.New(slog.DiscardHandler))
	a := &Account{AppID: appid, Secret: secret}
	first := m.view(a, messages.AccessToken).LostAt
	if !first.Equal(now) {
		t.Fatalf("the record is lost since %s, want %s", first, now)
	}
	now = now.Add(time.Hour)
	m.observeRecord(record(1, 1))
	m.change(messages.Key(appid, messages.AccessToken), func(k *knowledge) { k.setRecord(nil, 2) })
	if second := m.view(a, messages.AccessToken).LostAt; !second.Equal(now) {
		t.Errorf("the record is lost since %s before, want since now", now.Sub(second))
	}
}

// getStore is a store of which only Get is called.
type getStore struct {
	turnStore
	get func() messages.Credential
}

func (s getStore) Get(context.Context, string, messages.Kind) (messages.Credential, error) {
	return s.get(), nil
}

// A report reads the record without the lease. While the answer is on its way, another worker may publish.
func TestRecordThatAReportReadsReplacesNoNewerOne(t *testing.T) {
	t.Parallel()
	m := newMemory(time.Now, slog.New(slog.DiscardHandler))
	m.observeRecord(record(1, 5))
	r := &refresher{memory: m, clock: systemClock{time.Now}, store: getStore{get: func() messages.Credential {
		m.observeRecord(record(2, 7))
		return record(1, 5)
	}}}
	a := &Account{AppID: appid, Secret: secret}
	if _, _, err := r.answerFromMemory(t.Context(), a, messages.AccessToken, policy.Report{Revision: 6}); err != nil {
		t.Fatal(err)
	}
	if v := m.view(a, messages.AccessToken); v.Record.Revision != 7 {
		t.Errorf("after the report the record of the bucket has revision %d, want 7", v.Record.Revision)
	}
}

// A watch tries again each second. Its problems are logged once for each reason, and when they are over.
func TestProblemOfAWatchIsLoggedOnce(t *testing.T) {
	t.Parallel()
	lines := new(logLines)
	m := newMemory(time.Now, slog.New(slog.NewTextHandler(lines, nil)))
	for range 3 {
		m.handleRecords(store.RecordEvent{Event: bucket.Event{Down: errors.New("no quorum")}})
		m.handleLedgers(store.LedgerEvent{Down: errors.New("no quorum")})
	}
	if n := lines.count("watch restarted"); n != 2 {
		t.Errorf("%d lines for two watches", n)
	}
	m.handleRecords(store.RecordEvent{Event: bucket.Event{Ready: true}})
	m.handleRecords(store.RecordEvent{Event: bucket.Event{Down: errors.New("no quorum")}})
	if n := lines.count("watch recovered"); n != 1 {
		t.Errorf("%d lines say that a watch recovered", n)
	}
	if n := lines.count("watch restarted"); n != 3 {
		t.Errorf("%d lines after the watch had a problem again", n)
	}
}
