package worker

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// awaitStored waits until the bucket has a credential again: its value, and its generation.
func (w *testWorker) awaitStored(want messages.Credential) {
	w.Helper()
	w.eventually("the "+string(want.Kind)+" is published again", func() bool {
		c, err := w.stored(want.Kind)
		return err == nil && c.Value == want.Value && c.Generation == want.Generation
	})
}

// WeChat issued a token, and NATS died before it could be published: the worker hands it out, and publishes it
// when it can.
func TestMintedTokenSurvivesALostNATS(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.hurried = true
	w := f.worker(func(c *Config) {
		classic(c)
		c.WeChat.Transport = &interloper{http.DefaultTransport.(*http.Transport).Clone(), f.nats.Stop}
	})
	held := w.await(messages.AccessToken, 0)
	f.nats.Restart()
	w.awaitStored(held)
	f.checkCalls("", 1)
}

func TestLostRecordsArePublishedAgainWithoutACall(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.hurried = true
	w := f.worker(everything)
	held := map[messages.Kind]messages.Credential{}
	for _, k := range messages.Kinds {
		held[k] = w.await(k, 0)
	}
	calls := f.calls("")
	restored := func() {
		t.Helper()
		for _, k := range messages.Kinds {
			w.awaitStored(held[k])
		}
		f.checkCalls("", calls)
	}
	creds := f.bucket("wechat")
	for _, k := range messages.Kinds {
		if err := creds.Delete(f.context(), messages.Key(appid, k)); err != nil {
			t.Fatal(err)
		}
	}
	restored()
	if _, err := creds.Put(f.context(), messages.Key(appid, messages.AccessToken), []byte("not a record")); err != nil {
		t.Fatal(err)
	}
	restored()
	js := f.jetstream()
	for _, bucket := range []string{"wechat", "wechat_ledger"} {
		if err := js.DeleteKeyValue(f.context(), bucket); err != nil {
			t.Fatal(err)
		}
		restored()
	}
}

func TestPurgedOrRestoredBucketIsFilledAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.hurried = true
	w := f.worker(everything)
	held := map[messages.Kind]messages.Credential{}
	for _, k := range messages.Kinds {
		held[k] = w.await(k, 0)
	}
	f.purge()
	f.nats.Stop()
	f.nats.Restart()
	for _, k := range messages.Kinds {
		w.awaitStored(held[k])
	}
	f.checkCalls("", 3)
}

// The bucket is purged, which no watch receives, and a worker starts before the other one has noticed: a call
// would be wasted, and a classic one would kill the token that the other worker is about to publish again.
// Found by chaos.
func TestStartingWorkerLeavesALostRecordToWorkersThatHoldIt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	first := f.worker(everythingClassic)
	for _, k := range messages.Kinds {
		first.await(k, 0)
	}
	f.purge()
	clock := new(testClock) // the second worker would call WeChat after some seconds
	clock.stop()
	second := f.worker(func(c *Config) { everythingClassic(c); c.Now = clock.Now })
	for _, k := range messages.Kinds {
		second.await(k, 0)
	}
	f.checkCalls("", 3)
}

// Backoff, quota and generations are the memory of the fleet: workers that remember an entry write it again.
// Found by chaos: a wrong secret was sent once more, and generations began again at 1.
func TestLostLedgerIsWrittenAgainByWorkersThatRememberIt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(classic)
	w.await(messages.AccessToken, 0)
	var known store.Ledger
	f.eventually("the refresh is written down", func() bool {
		known = w.ledger(messages.AccessToken)
		return known.Generation == 1 && known.Attempts == 0
	})
	for name, lose := range map[string]func() error{
		"the entry": func() error {
			return f.bucket("wechat_ledger").Purge(f.context(), messages.Key(appid, messages.AccessToken))
		},
		"the bucket": func() error { return f.jetstream().DeleteKeyValue(f.context(), "wechat_ledger") },
	} {
		if err := lose(); err != nil {
			t.Fatal(err)
		}
		f.eventually(name+" is written again", func() bool {
			again, err := w.store.Ledger(f.context(), appid, messages.AccessToken)
			again.Revision = known.Revision
			return err == nil && cmp.Equal(known, again)
		})
	}
	f.checkCalls("", 1)
}

// A worker that was frozen believes in the record that it knew, takes a turn, and finds no record and a ledger
// entry that knows a newer value: it leaves the record to the worker that holds that value. Found by chaos.
func TestTurnThatFindsTheRecordLostLeavesItToWorkersThatHoldIt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(classic)
	known := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	l := w.ledger(messages.AccessToken)
	l.Generation, l.ValueSHA256 = known.Generation+1, messages.ValueSHA256("the newer value of another worker")
	if _, err := w.store.PutLedger(f.context(), l); err != nil {
		t.Fatal(err)
	}
	f.purge()
	account := w.accounts.get(appid)
	if err := w.refresher.doScheduled(f.context(), account, messages.AccessToken, nil); err != nil {
		t.Errorf("the turn: %v", err)
	}
	// A report of the old value must not cause a call either.
	reportedOld := policy.Report{Revision: known.Revision}
	_, err := w.refresher.answerInTurn(f.context(), account, messages.AccessToken, reportedOld)
	checkSymbol(t, "a report of the old value", err, messages.NoCredential)
	f.checkCalls("token", 1)
}

// Another worker obtained a newer value and died with it; then the record is lost. What this worker holds is
// better than nothing, but the newer value must not be forgotten: a classic token dies within minutes of it.
func TestRepublishingDoesNotForgetANewerGeneration(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(classic)
	first := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	other := f.storeOf("other")
	l := w.ledger(messages.AccessToken)
	l.Generation, l.ValueSHA256 = 2, messages.ValueSHA256("lost with its worker")
	if _, err := other.PutLedger(f.context(), l); err != nil {
		t.Fatal(err)
	}
	// The worker may refresh as soon as it receives the entry, so the record may be lost before or after that.
	if err := f.bucket("wechat").Delete(f.context(), messages.Key(appid, messages.AccessToken)); err != nil {
		t.Fatal(err)
	}
	if c := w.await(messages.AccessToken, first.Generation); c.Generation != 3 {
		t.Errorf("generation %d, want 3: 2 was given to another value", c.Generation)
	}
}

// Writing the attempt down takes NATS so long that no time is left in the lease for a call: WeChat is not
// asked, and has not failed. Found by chaos: backoff grew while only NATS was in trouble.
func TestTurnThatNATSDelaysIsNoFailureOfWeChat(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	f.lease = patience // the clock of leases goes wrong, see below
	gate, clock := natstest.NewGate(), &lateClock{systemClock: systemClock{f.clock.Now}}
	w := f.workerOn(f.nats.Connect(gate.Option()), classic, func(w *Worker) { w.refresher.clock = clock })
	first := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	f.killToken()
	// The first write of the turn is the verdict, the second one the attempt.
	reached := gate.Before("$KV.wechat_ledger."+messages.Key(appid, messages.AccessToken), 2)
	reported := make(chan error, 1)
	go func() {
		_, err := w.report(messages.RefreshCredentialRequest{Revision: first.Revision})
		reported <- err
	}()
	<-reached
	clock.late.Store(int64(f.lease))
	gate.Open()
	if err := <-reported; err == nil {
		t.Error("the report was answered in a turn that had no time for a call")
	}
	clock.late.Store(0)
	l := w.ledger(messages.AccessToken)
	if l.Attempts != 0 {
		t.Errorf("the ledger has %d failed attempts, want none", l.Attempts)
	}
	if l.Calls != 1 {
		t.Errorf("the ledger has %d calls, want 1", l.Calls)
	}
	f.checkCalls("token", 1)
	f.advance(time.Minute)
	f.checkValid(w.await(messages.AccessToken, first.Generation))
}

// A power cut loses what the disk has not received: the last second of the embedded server (internal/embedded). The
// workers start with what was there before, and no dead token stays.
func TestLastWritesThatAPowerCutLosesCostOneCall(t *testing.T) {
	t.Parallel()
	for name, refresh := range map[string]func(*testWorker, messages.Credential){
		"a planned refresh": func(w *testWorker, c messages.Credential) { w.advanceTo(c.RefreshAt) },
		"a refresh for a report": func(w *testWorker, _ messages.Credential) {
			w.foreignRefresh(messages.SourceToken)
			if _, err := w.resolve(); err != nil {
				w.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, noOverlap)
			f.clock.stop()
			w := f.worker(classic)
			c := w.await(messages.AccessToken, 0)
			w.awaitQuiet(messages.AccessToken)
			restore := f.nats.Save()
			refresh(w, c)
			w.await(messages.AccessToken, c.Generation)
			w.awaitQuiet(messages.AccessToken)
			w.stop()
			f.nats.Stop()
			restore()
			f.nats.Restart()
			w = f.worker(classic)
			if _, err := w.resolve(); err != nil {
				t.Errorf("a resolution after the power cut: %v", err)
			}
			f.checkValid(w.await(messages.AccessToken, c.Generation))
			f.checkCalls("token", 3)
		})
	}
}
