package worker

import (
	"log/slog"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// A turn publishes a record, and the bucket loses it before the watch has delivered it: the next snapshot shows that.
func TestRecordThatTheWatchNeverDeliveredIsKnownToBeLost(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := newMemory(func() time.Time { return now }, slog.New(slog.DiscardHandler))
	a := &Account{AppID: appid, Secret: secret}
	m.handleRecords(bucket.Event{Reset: true})
	m.handleRecords(bucket.Event{Ready: true})
	m.observeRecord(messages.Credential{
		AppID: appid, Kind: messages.AccessToken, Value: "v", ObtainedAt: now, ExpiresAt: now.Add(time.Hour),
		Generation: 1, Revision: 1,
	})
	if m.view(a, messages.AccessToken).Record == nil {
		t.Fatal("the published record is not known")
	}
	var changed []string
	m.listen(func(key string) { changed = append(changed, key) })
	m.handleRecords(bucket.Event{Reset: true})
	m.handleRecords(bucket.Event{Ready: true})
	view := m.view(a, messages.AccessToken)
	if view.Record != nil {
		t.Error("the lost record is still known")
	}
	if view.Held == nil {
		t.Error("the worker does not hold the credential any more")
	}
	checkDiff(t, "the changed keys", changed, []string{messages.Key(appid, messages.AccessToken)})
}
