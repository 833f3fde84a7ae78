package worker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// intruder is someone who may write to the buckets, and does not know the AppSecret.
type intruder struct {
	*testWorker
	records, ledgers jetstream.KeyValue
}

func (w *testWorker) intruder() intruder {
	w.Helper()
	return intruder{w, w.bucket("wechat"), w.bucket("wechat_ledger")}
}

// key is the key of the account's token, in both buckets.
var tokenKey = messages.Key(appid, messages.AccessToken)

// put stores a value, and waits until this worker's replacement is stored.
func (i intruder) put(bucket jetstream.KeyValue, value []byte) {
	i.Helper()
	revision, err := bucket.Put(i.context(), tokenKey, value)
	if err != nil {
		i.Fatal(err)
	}
	i.awaitReplaced(bucket, revision)
}

// get returns what is stored.
func (i intruder) get(bucket jetstream.KeyValue) []byte {
	i.Helper()
	e, err := bucket.Get(i.context(), tokenKey)
	if err != nil {
		i.Fatal(err)
	}
	return e.Value()
}

func (i intruder) awaitReplaced(bucket jetstream.KeyValue, revision uint64) {
	i.Helper()
	i.eventually("the forged entry is replaced", func() bool {
		i.skipPause()
		e, err := bucket.Get(i.context(), tokenKey)
		return err == nil && e.Revision() > revision
	})
}

// skipPause ends the pause between two turns of a credential, which does not pass while the clock is stopped.
func (w *testWorker) skipPause() {
	s := w.scheduler
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range s.items {
		if !it.running {
			it.notBefore = s.clock.Now()
			s.plan(it)
		}
	}
}

func TestForgedRecordIsNeverHandedOutAndIsReplacedWithoutACall(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.hurried = true
	events := f.events()
	w := f.worker(nil)
	want := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	i := w.intruder()
	genuine := i.get(i.records)
	forge := func(change func(*messages.Credential)) []byte {
		c := want
		c.Value, c.Worker = "THE-INTRUDERS-TOKEN", "intruder"
		change(&c)
		object, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return object
	}
	for name, record := range map[string][]byte{
		"another value":            forge(func(*messages.Credential) {}),
		"a later generation":       forge(func(c *messages.Credential) { c.Generation++ }),
		"the last generation":      forge(func(c *messages.Credential) { c.Generation = 1<<64 - 1 }),
		"obtained in ten days":     forge(func(c *messages.Credential) { shift(c, 240*time.Hour) }),
		"with the genuine seal":    bytes.Replace(genuine, []byte(want.Value), []byte("THE-INTRUDERS-TOKEN"), 1),
		"another account's":        forge(func(c *messages.Credential) { c.AppID = "wx2" }),
		"the ledger entry":         i.get(i.ledgers),
		"not JSON":                 []byte("THE-INTRUDERS-TOKEN"),
		"a longer life and a seal": bytes.Replace(genuine, []byte(`"expires_at":"2`), []byte(`"expires_at":"3`), 1),
	} {
		i.put(i.records, record)
		if bytes.Contains(i.get(i.records), []byte("INTRUDERS")) {
			t.Errorf("%s: the forged record was not replaced by a worker's", name)
		}
		got, err := w.client.GetCredential(f.context(), messages.GetCredentialRequest{AppID: appid})
		if err != nil || got.Value != want.Value || got.Generation != want.Generation {
			t.Errorf("%s: the worker hands out %v, %v", name, got, err)
		}
		if e := events.next(messages.EventForged); e.Kind != messages.AccessToken || !strings.Contains(e.Message, "record") {
			t.Errorf("%s: the event is %+v", name, e)
		}
	}
	f.checkCalls("", 1)
	s := w.statusOf(appid)[0]
	if s.State != messages.StateFresh || s.LastForged.IsZero() || s.Advice != forgedAdvice {
		t.Errorf("the status is %s, last forged %s, advice %q", s.State, s.LastForged, s.Advice)
	}
	if _, metrics := w.page("/metrics"); !strings.Contains(metrics, `wxkeeper_forged_total{entry="record"} 9`) {
		t.Error("the metric does not count nine forged records")
	}
}

func shift(c *messages.Credential, d time.Duration) {
	c.ObtainedAt, c.RefreshAt, c.ExpiresAt = c.ObtainedAt.Add(d), c.RefreshAt.Add(d), c.ExpiresAt.Add(d)
}

// A record that a worker stored earlier has a genuine seal. Its generation tells that it is not the last one.
func TestEarlierRecordThatIsStoredAgainIsReplacedWithoutACall(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.hurried = true
	w := f.worker(classic)
	w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	i := w.intruder()
	earlier := i.get(i.records)
	f.killToken()
	w.mustReport(messages.RefreshCredentialRequest{}, messages.ReasonRefreshed)
	want := w.await(messages.AccessToken, 1)
	calls := f.calls("token")
	for range 3 {
		i.put(i.records, earlier)
		w.awaitStored(want)
	}
	got, err := w.client.GetCredential(f.context(), messages.GetCredentialRequest{AppID: appid})
	if err != nil || got.Value != want.Value {
		t.Errorf("the worker hands out %v, %v", got, err)
	}
	f.checkCalls("token", calls)
}

// The limits of reports are in the ledger. Whoever overwrites it gains nothing.
func TestForgedOrSetBackLedgerDoesNotSetTheLimitsBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.hurried = true
	f.clock.stop() // the budget of reported refreshes stays used up
	w := f.worker(classic)
	w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	i := w.intruder()
	earlier := i.get(i.ledgers)
	_, _ = w.exhaust()
	calls := f.calls("")
	known := w.ledger(messages.AccessToken)
	attacks := map[string]func(){
		"the record":       func() { i.put(i.ledgers, i.get(i.records)) },
		"an earlier entry": func() { i.put(i.ledgers, earlier) },
		"no calls":         func() { i.put(i.ledgers, []byte(`{"appid":"`+appid+`","kind":"access_token"}`)) },
		"a purge": func() {
			if err := i.ledgers.Purge(i.context(), tokenKey); err != nil {
				t.Fatal(err)
			}
		},
	}
	for range 3 {
		for name, attack := range attacks {
			attack()
			if _, err := w.report(messages.RefreshCredentialRequest{}); symbol(err) != messages.Throttled {
				t.Errorf("%s: a report is answered with %v, want throttled", name, err)
			}
		}
	}
	// One of these reports may have asked WeChat whether the token is alive. Nothing else was called.
	if got := f.calls(""); got > calls+1 {
		t.Errorf("%d calls of WeChat (%d for tokens), want %d and at most one more", got, f.calls("token"), calls)
	}
	f.eventually("the ledger is written again", func() bool {
		w.skipPause()
		l := w.ledger(messages.AccessToken)
		return l.Calls == known.Calls && l.Generation == known.Generation && l.Forced == known.Forced
	})
}

// A worker that gets the new AppSecret goes on with what workers stored with the one before.
func TestChangedSecretKeepsWhatIsStored(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.hurried = true
	w := f.worker(nil)
	want := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	if err := w.SetAccounts([]Account{{AppID: appid, Secret: "the new AppSecret"}}); err != nil {
		t.Fatal(err)
	}
	if err := w.bucket("wechat").Delete(f.context(), tokenKey); err != nil { // it is sealed anew with the new key
		t.Fatal(err)
	}
	w.awaitStored(want)
	f.checkCalls("", 1)
	other := f.worker(func(c *Config) { c.Accounts[0].Secret = "the new AppSecret" })
	if got := other.await(messages.AccessToken, 0); got.Value != want.Value {
		t.Errorf("a worker with the new AppSecret has %v", got)
	}
	for _, w := range []*testWorker{w, other} {
		if _, metrics := w.page("/metrics"); strings.Contains(metrics, "wxkeeper_forged_total{") {
			t.Error("entries count as forged")
		}
	}
}

// A worker with another AppSecret cannot know whether a record is genuine. It does not overwrite it with what it
// holds: only WeChat can tell which AppSecret is right.
func TestWorkerWithAnotherSecretDoesNotOverwriteWhatIsStored(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.hurried = true
	w := f.worker(nil)
	want := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	i := w.intruder()
	stored := i.get(i.records)
	reloads := make(chan string, 100)
	wrong := f.worker(func(c *Config) {
		c.Accounts[0].Secret = "a wrong AppSecret"
		c.OnAccountRefused = func(appid string) {
			select {
			case reloads <- appid:
			default:
			}
		}
	})
	select {
	case <-reloads: // its accounts are read again: the file may have another AppSecret by now
	case <-time.After(patience):
		t.Fatal("the worker does not read its accounts again")
	}
	f.eventually("WeChat refuses the wrong AppSecret", func() bool {
		s := wrong.statusOf(appid)
		return len(s) > 0 && s[0].Errcode != 0
	})
	if got := i.get(i.records); !bytes.Equal(got, stored) {
		t.Error("the record was overwritten")
	}
	if got, err := w.memory.get(appid, messages.AccessToken); err != nil || got.Value != want.Value {
		t.Errorf("the right worker holds %v, %v", got, err)
	}
	if err := wrong.SetAccounts([]Account{{AppID: appid, Secret: secret}}); err != nil {
		t.Fatal(err)
	}
	if got := wrong.await(messages.AccessToken, 0); got.Value != want.Value {
		t.Errorf("with the right AppSecret it holds %v", got)
	}
	f.checkValid(want)
}

// Everybody can make a seal with a key that nobody knows. The first such record may be that of a worker with another
// AppSecret, and costs the call that decides it; more of them cost nothing.
func TestOnlyTheFirstForeignRecordCostsACall(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.hurried = true
	events := f.events()
	w := f.worker(nil)
	want := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	i := w.intruder()
	foreign := func(bucket, key string, text any) []byte {
		object, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		return seal.JSON(seal.New(appid, "made up"), seal.Place{Bucket: bucket, Key: key}, object)
	}
	record := want
	record.Value, record.Generation, record.Revision = "THE-INTRUDERS-TOKEN", want.Generation+1, 0
	revision, err := i.records.Put(f.context(), tokenKey, foreign("wechat", tokenKey, record))
	if err != nil {
		t.Fatal(err)
	}
	f.eventually("the worker knows of the foreign record", func() bool {
		w.memory.mu.Lock()
		defer w.memory.mu.Unlock()
		return w.memory.of(tokenKey).foreign
	})
	f.advance(10 * time.Second)
	i.awaitReplaced(i.records, revision)
	w.awaitQuiet(messages.AccessToken)
	f.checkCalls("", 2)
	for range 3 {
		i.put(i.records, foreign("wechat", tokenKey, record))
		if e := events.next(messages.EventForged); !strings.Contains(e.Message, entryRecord) {
			t.Errorf("the event is %+v", e)
		}
	}
	end := f.clock.Now().Add(time.Minute).UnixMilli()
	leaseKey := "lease." + tokenKey
	lease := seal.Text(seal.New(appid, "made up"), seal.Place{Bucket: "wechat", Key: leaseKey},
		fmt.Append(nil, "w ABC ", end))
	if _, err := i.records.Put(f.context(), leaseKey, lease); err != nil {
		t.Fatal(err)
	}
	i.put(i.records, foreign("wechat", tokenKey, record))
	if e := events.next(messages.EventForged); !strings.Contains(e.Message, entryLease) {
		t.Errorf("the event is %+v", e)
	}
	f.checkCalls("", 2)
	if got, err := w.memory.get(appid, messages.AccessToken); err != nil || got.Value != want.Value {
		t.Errorf("the worker hands out %v, %v", got, err)
	}
}

// An AppSecret is often changed because others know it, who can then seal with its key.
func TestSealsOfTheAppSecretBeforeAreAcceptedForAWhile(t *testing.T) {
	t.Parallel()
	now := time.Now()
	as := accounts{clock: func() time.Time { return now }}
	set := func(secret Secret) {
		t.Helper()
		if err := as.set([]Account{{AppID: "wx1", Secret: secret}}); err != nil {
			t.Fatal(err)
		}
	}
	place := seal.Place{Bucket: "wechat", Key: "wx1.access_token"}
	check := func(when string, secret string, want seal.Verdict) {
		t.Helper()
		sealed := seal.JSON(seal.New("wx1", secret), place, []byte(`{"a":1}`))
		if got := seal.CheckJSON(as.keys("wx1"), place, sealed); got != want {
			t.Errorf("%s: the verdict of a seal of the %s AppSecret is %d, want %d", when, secret, got, want)
		}
	}
	set("old")
	now = now.Add(100 * time.Hour)
	set("new")
	check("at the change", "old", seal.Genuine)
	now = now.Add(oldKeyFor - time.Minute)
	set("new") // the accounts are read again
	check("before the end", "old", seal.Genuine)
	check("before the end", "new", seal.Genuine)
	now = now.Add(2 * time.Minute)
	check("after the end", "old", seal.Foreign)
	check("after the end", "new", seal.Genuine)
}
