package worker

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// A token was minted, and NATS died before it could be published: the worker serves it, and publishes it when it can.
func TestMintedTokenSurvivesALostNATS(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(func(c *Config) {
		classic(c)
		c.WeChat.Transport = &interloper{http.DefaultTransport.(*http.Transport).Clone(), s.nats.Stop}
	})
	held := w.await(messages.AccessToken, 0)
	s.nats.Restart()
	var stored messages.Credential
	s.eventually("the token is published", func() bool {
		var err error
		stored, err = w.store.Get(s.context(), appid, messages.AccessToken)
		return err == nil
	})
	if stored.Value != held.Value || stored.Generation != held.Generation {
		t.Errorf("published %v, held %v", stored, held)
	}
	if n := s.wechat.Calls("", ""); n != 1 {
		t.Errorf("%d upstream calls, want 1", n)
	}
}

func TestLostRecordsArePublishedAgainWithoutACall(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(everything)
	held := map[messages.Kind]messages.Credential{}
	for _, k := range messages.Kinds {
		held[k] = w.await(k, 0)
	}
	calls := s.wechat.Calls("", "")
	ctx := s.context()
	js, err := jetstreamOf(s.nats.Connect())
	if err != nil {
		t.Fatal(err)
	}
	same := func(when string) {
		t.Helper()
		for _, k := range messages.Kinds {
			s.eventually(when+": "+string(k)+" is published again", func() bool {
				c, err := w.store.Get(ctx, appid, k)
				return err == nil && c.Value == held[k].Value && c.Generation == held[k].Generation
			})
		}
		if n := s.wechat.Calls("", "") - calls; n != 0 {
			t.Errorf("%s: %d upstream calls", when, n)
		}
	}
	b, err := js.KeyValue(ctx, "wechat")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range messages.Kinds {
		if err := errors.Join(b.Delete(ctx, messages.Key(appid, k))); err != nil {
			t.Fatal(err)
		}
	}
	same("keys deleted")
	if _, err := b.Put(ctx, messages.Key(appid, messages.AccessToken), []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	same("garbage written")
	for _, bucket := range []string{"wechat", "wechat_ledger"} {
		if err := js.DeleteKeyValue(ctx, bucket); err != nil {
			t.Fatal(err)
		}
		same(bucket + " deleted")
	}
}

// purge takes everything out of the bucket, and tells nobody.
func (s *stage) purge() {
	s.Helper()
	js, err := jetstreamOf(s.nats.Connect())
	if err != nil {
		s.Fatal(err)
	}
	st, err := js.Stream(s.context(), "KV_wechat")
	if err == nil {
		err = st.Purge(s.context())
	}
	if err != nil {
		s.Fatal(err)
	}
}

func TestPurgedOrRestoredBucketIsFilledAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(everything)
	for _, k := range messages.Kinds {
		w.await(k, 0)
	}
	s.purge()
	s.nats.Stop()
	s.nats.Restart()
	s.eventually("all are there again", func() bool {
		for _, k := range messages.Kinds {
			if _, err := w.store.Get(s.context(), appid, k); err != nil {
				return false
			}
		}
		return true
	})
	if n := s.wechat.Calls("", ""); n != 3 {
		t.Errorf("%d calls, want those of the start", n)
	}
}

// The bucket is purged, which nobody is told, and a worker starts before the others have noticed: a call would be wasted,
// and a classic one would kill the token that the others are about to publish again. Found by chaos.
func TestStartingWorkerLeavesALostRecordToThoseWhoHoldIt(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	first := s.worker(func(c *Config) { everything(c); classic(c) })
	for _, k := range messages.Kinds {
		first.await(k, 0)
	}
	s.purge()
	second := s.worker(func(c *Config) { everything(c); classic(c) })
	for _, k := range messages.Kinds {
		second.await(k, 0)
	}
	if n := s.wechat.Calls("", ""); n != 3 {
		t.Errorf("%d calls, want those of the first start", n)
	}
}

// Backoff, quota and generations are the memory of the fleet: who remembers them writes them again. Found by chaos, where
// a wrong secret was sent once more, and generations began again at 1.
func TestLostLedgerIsWrittenAgainByThoseWhoRememberIt(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(classic)
	w.await(messages.AccessToken, 0)
	js, err := jetstreamOf(s.nats.Connect())
	if err != nil {
		t.Fatal(err)
	}
	ledger := func() (store.Ledger, error) { return w.store.Ledger(s.context(), appid, messages.AccessToken) }
	var known store.Ledger
	s.eventually("the refresh is written down", func() bool {
		known, err = ledger()
		return err == nil && known.Generation == 1 && known.Attempts == 0
	})
	for name, lose := range map[string]func() error{
		"the entry": func() error {
			b, err := js.KeyValue(s.context(), "wechat_ledger")
			if err != nil {
				return err
			}
			return b.Purge(s.context(), messages.Key(appid, messages.AccessToken))
		},
		"the bucket": func() error { return js.DeleteKeyValue(s.context(), "wechat_ledger") },
	} {
		if err := lose(); err != nil {
			t.Fatal(err)
		}
		s.eventually(name+" is there again", func() bool {
			again, err := ledger()
			again.Revision = known.Revision
			return err == nil && cmp.Diff(known, again) == ""
		})
	}
	if n := s.wechat.Calls("", ""); n != 1 {
		t.Errorf("%d calls, want that of the start", n)
	}
}

// The same for a worker that was frozen: it believes in the record that it knew, comes for its turn, and finds none, and
// that a newer value was obtained meanwhile. Found by chaos.
func TestTurnThatFindsTheRecordLostLeavesItToThoseWhoHoldIt(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(classic)
	known := w.await(messages.AccessToken, 0)
	l, err := w.store.Ledger(s.context(), appid, messages.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	l.Generation, l.ValueSHA256 = known.Generation+1, messages.ValueSHA256("the newer one, which another worker holds")
	if _, err := w.store.PutLedger(s.context(), l); err != nil {
		t.Fatal(err)
	}
	s.purge()
	account := w.accounts.get(appid)
	if err := w.refresher.scheduled(s.context(), account, messages.AccessToken); err != nil {
		t.Error(err)
	}
	// A report of the old value must not do it either.
	if _, err := w.refresher.settleReport(s.context(), account, messages.AccessToken, dead{revision: known.Revision}); !errors.Is(err, &messages.Error{Symbol: messages.NoCredential}) {
		t.Errorf("reported: %v", err)
	}
	if n := s.wechat.Calls("", "token"); n != 1 {
		t.Errorf("%d calls, want that of the start", n)
	}
}

// Another worker has minted a newer value and died with it; then the record is lost. What this worker holds is better than
// nothing, but the newer one must not be forgotten: a classic token of before it dies within minutes.
func TestRepublishingDoesNotForgetANewerGeneration(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(classic)
	first := w.await(messages.AccessToken, 0)
	other, err := store.New(s.nats.Connect(), store.Config{Worker: "other"})
	if err == nil {
		err = other.Ensure(s.context())
	}
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstreamOf(s.nats.Connect())
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := js.KeyValue(s.context(), "wechat")
	if err != nil {
		t.Fatal(err)
	}
	var l store.Ledger
	s.eventually("the other has written the ledger", func() bool {
		if l, err = other.Ledger(s.context(), appid, messages.AccessToken); err != nil {
			return false
		}
		l.Generation, l.ValueSHA256 = 2, messages.ValueSHA256("lost with its worker")
		_, err = other.PutLedger(s.context(), l)
		return err == nil
	})
	if err := bucket.Delete(s.context(), messages.Key(appid, messages.AccessToken)); err != nil {
		t.Fatal(err)
	}
	if c := w.await(messages.AccessToken, first.Generation); c.Generation != 3 {
		t.Errorf("generation %d, want 3: 2 was given to another value", c.Generation)
	}
}

// NATS takes so long over the ledger that no time is left in the lease for a call: WeChat is not asked, and has not failed.
// Found by chaos, where backoff grew while nothing but NATS was in trouble.
func TestTurnThatNATSDelaysIsNoFailureOfWeChat(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	gate := natstest.NewGate()
	w := s.workerOn(s.nats.Connect(gate.Option()), func(c *Config) { classic(c); c.WeChat.Timeout = 500 * time.Millisecond })
	first := w.await(messages.AccessToken, 0)
	for range 2 { // another system kills it
		if _, err := s.wechat.ForeignRefresh(appid, "token"); err != nil {
			t.Fatal(err)
		}
	}
	reached := gate.Before("$KV.wechat_ledger."+appid+".access_token", 2) // after the verdict, the attempt
	reported := make(chan error, 1)
	go func() {
		_, err := w.report(messages.RefreshCredentialRequest{Revision: first.Revision})
		reported <- err
	}()
	<-reached
	<-time.After(1600 * time.Millisecond) // of a lease of 3 s, of which 1.4 s are for the call and what comes before it
	gate.Open()
	if err := <-reported; err == nil {
		t.Error("the report was settled, in a turn that had no time")
	}
	l, err := w.store.Ledger(s.context(), appid, messages.AccessToken)
	if err != nil || l.Attempts != 0 || l.Calls != 1 || s.wechat.Calls("", "token") != 1 {
		t.Errorf("the ledger has %d attempts and %d calls, %v; WeChat got %d calls, want that of the start", l.Attempts, l.Calls, err, s.wechat.Calls("", "token"))
	}
	if c := w.await(messages.AccessToken, first.Generation); s.wechat.Judge(appid, "access_token", c.Value) != wechattest.Valid {
		t.Error("what was published then is not valid")
	}
}
