package store

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/messages"
)

func TestRecordThatNoWorkerStoredIsNotBelieved(t *testing.T) {
	t.Parallel()
	s := newStore(t, natstest.Start(t), "w")
	ctx := testContext(t)
	events := followRecords(t, s)
	object := func(change func(*messages.Credential)) []byte {
		c := credential(1, time.Hour)
		change(&c)
		data, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	same := func(*messages.Credential) {}
	key := messages.Key("wx1", messages.AccessToken)
	of := func(key seal.Key, bucket, k string) []byte {
		return seal.JSON(key, seal.Place{Bucket: bucket, Key: k}, object(same))
	}
	for name, tc := range map[string]struct {
		stored []byte
		want   error
	}{
		"as a worker stores it":             {of(keys("wx1")[0], "wechat", key), nil},
		"without a seal":                    {object(same), ErrForged},
		"another account's":                 {of(keys("wx2")[0], "wechat", key), ErrForeign},
		"another AppSecret's":               {of(seal.New("wx1", "another"), "wechat", key), ErrForeign},
		"a copy of a ticket":                {of(keys("wx1")[0], "wechat", "wx1.jsapi_ticket"), ErrForged},
		"a copy of another bucket's record": {of(keys("wx1")[0], "staging", key), ErrForged},
		"junk":                              {[]byte("junk"), ErrForged},
	} {
		revision, err := s.creds.Put(ctx, key, tc.stored)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(ctx, "wx1", messages.AccessToken); !errors.Is(err, tc.want) {
			t.Errorf("%s: Get returns %v, want %v", name, err, tc.want)
		}
		e := await(t, events, name+" is not delivered", func(e RecordEvent) bool { return e.Revision == revision })
		if e.Removed != (tc.want != nil) || e.Foreign != errors.Is(tc.want, ErrForeign) || tc.want != nil && e.Value != nil {
			t.Errorf("%s: delivered as removed %t, foreign %t", name, e.Removed, e.Foreign)
		}
	}
}

// An account that is not kept has no key: nothing is believed, and nothing is written.
func TestAccountWithoutKeysIsNeitherReadNorWritten(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	publish(t, newStore(t, srv, "w"), credential(1, time.Hour))
	s := newStore(t, srv, "other")
	s.cfg.Keys = func(string) []seal.Key { return nil }
	ctx := testContext(t)
	if _, err := s.Get(ctx, "wx1", messages.AccessToken); !errors.Is(err, ErrForeign) {
		t.Errorf("Get returns %v, want ErrForeign", err)
	}
	if _, err := s.Acquire(ctx, "wx1", messages.AccessToken, time.Minute); err == nil {
		t.Error("Acquire takes a lease without a key")
	}
	if _, err := s.PutLedger(ctx, Ledger{AppID: "wx1", Kind: messages.AccessToken}); err == nil {
		t.Error("PutLedger writes without a key")
	}
}
