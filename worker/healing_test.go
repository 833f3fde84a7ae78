package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// noOverlap: a new token kills the one before at once.
var noOverlap = wechattest.Config{Overlap: -1, ForceGap: -1}

// Two systems that live side by side: another one fetches a token twice, ten seconds apart.
func TestTokenThatIsKilledTwiceIsHealedEachTime(t *testing.T) {
	t.Parallel()
	f := newFixture(t, noOverlap)
	f.clock.stop()
	w := f.worker(classic)
	c := w.await(messages.AccessToken, 0)
	for kill := 1; kill <= 2; kill++ {
		f.foreignRefresh(messages.SourceToken)
		if _, err := w.resolve(); err != nil {
			t.Errorf("a resolution after kill %d: %v", kill, err)
		}
		c = w.await(messages.AccessToken, c.Generation)
		f.checkValid(c)
		f.advance(10 * time.Second)
	}
	f.checkCalls("token", 3)
	f.checkCalls("get_api_domain_ip", 2)
}

// WeChat has just accepted a token when another system kills it: what WeChat said before the refused call was sent does
// not count against that call, neither a worker's nor a consumer's.
func TestTokenKilledRightAfterAProbeIsHealedAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, noOverlap)
	f.clock.stop()
	w := f.worker(classic)
	c := w.await(messages.AccessToken, 0)
	for range 2 {
		w.mustReport(messages.RefreshCredentialRequest{Revision: c.Revision}, messages.ReasonAlive)
		f.advance(time.Millisecond)
		f.wechat.Revoke(c.Value)
		if _, err := w.resolve(); err != nil {
			t.Errorf("a resolution right after the probe: %v", err)
		}
		c = w.await(messages.AccessToken, c.Generation)
		w.mustReport(messages.RefreshCredentialRequest{Revision: c.Revision}, messages.ReasonAlive)
		f.advance(time.Millisecond)
		f.wechat.Revoke(c.Value)
		w.mustReport(messages.RefreshCredentialRequest{Revision: c.Revision}, messages.ReasonRefreshed)
		c = w.await(messages.AccessToken, c.Generation)
		f.advance(time.Minute)
	}
}

// The questions about dead tokens do not use the budget of questions: as many kills are healed at once as there are
// refreshes in hand, also if only consumers notice them.
func TestAllRefreshesInHandCanBeUsedAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, noOverlap)
	f.clock.stop()
	w := f.worker(classic)
	c := w.await(messages.AccessToken, 0)
	for range 10 {
		f.advance(time.Second)
		f.wechat.Revoke(c.Value)
		w.mustReport(messages.RefreshCredentialRequest{Revision: c.Revision}, messages.ReasonRefreshed)
		c = w.await(messages.AccessToken, c.Generation)
	}
	f.checkCalls("get_api_domain_ip", 10)
	f.checkCalls("token", 11)
}

// WeChat is busy when a dead token is refreshed, and repeats that token then. The retry continues what the report has
// begun, and does not wait for a minute.
func TestRetryOfARefreshForAReportForcesATokenThatWeChatRepeats(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(nil)
	c := w.await(messages.AccessToken, 0)
	f.advance(time.Minute)
	f.wechat.Revoke(c.Value)
	f.wechat.Inject(wechattest.Fault{Endpoint: "stable_token", Errcode: -1, Times: 1})
	if _, err := w.report(messages.RefreshCredentialRequest{Revision: c.Revision}); err == nil {
		t.Error("the report is answered though WeChat is busy")
	}
	f.advanceTo(w.ledger(messages.AccessToken).NextAttempt)
	f.checkValid(w.await(messages.AccessToken, c.Generation))
	f.checkCalls("stable_token", 4) // at the start, while WeChat is busy, in normal mode, with force_refresh
}

// exhaust kills the token every ten seconds until a report of it has to wait for the budget, and returns how many kills
// were healed.
func (w *testWorker) exhaust() (healed int, refusal *messages.Error) {
	w.Helper()
	c := w.await(messages.AccessToken, 0)
	for healed = 0; healed < 30; healed++ {
		w.advance(10 * time.Second)
		w.wechat.Revoke(c.Value)
		_, err := w.report(messages.RefreshCredentialRequest{ValueSHA256: messages.ValueSHA256(c.Value)})
		if errors.As(err, &refusal) && refusal.Symbol == messages.Throttled {
			return healed, refusal
		}
		if err != nil {
			w.Fatal(err)
		}
		c = w.await(messages.AccessToken, c.Generation)
	}
	w.Fatal("the budget has no end")
	return 0, nil
}

// When the budget is used up, and only then, a dead token waits; state, event and metric say so, and until when.
func TestDeadTokenWaitsOnlyIfTheBudgetIsUsedUp(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	events := f.events()
	w := f.worker(classic)
	healed, e := w.exhaust()
	if healed < 10 || healed > 14 {
		t.Errorf("%d kills were healed at once", healed)
	}
	until := f.clock.Now().Add(time.Duration(e.RetryAfterMS) * time.Millisecond)
	event := events.next(messages.EventThrottled)
	if event.RetryAt.Sub(until).Abs() > time.Second || event.Advice == "" {
		t.Errorf("the event says %s and advises %q, the reply says %s", event.RetryAt, event.Advice, until)
	}
	f.eventually("the status shows that WeChat refuses the token, and until when", func() bool {
		st := w.statusOf(appid)[0]
		return st.State == messages.StateRefused && st.Reason == messages.ReasonRefused &&
			st.NextAttempt.Sub(until).Abs() <= time.Second
	})
	if got := w.gauge("wxkeeper_throttled_until_timestamp_seconds"); int64(got) != event.RetryAt.Unix() {
		t.Errorf("the metric says %.0f, the event %d", got, event.RetryAt.Unix())
	}
	f.advanceTo(until)
	f.checkValid(w.await(messages.AccessToken, event.Generation))
	if got := w.gauge("wxkeeper_throttled_until_timestamp_seconds"); got != 0 {
		t.Errorf("the metric says %.0f although the token is refreshed", got)
	}
}

// A restart, and another worker, do not renew the budget: it is in the ledger.
func TestRestartDoesNotRenewTheBudget(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(classic)
	_, _ = w.exhaust()
	w.stop()
	other := f.worker(classic)
	c := other.await(messages.AccessToken, 0)
	_, err := other.report(messages.RefreshCredentialRequest{Revision: c.Revision})
	checkSymbol(t, "a report to the other worker", err, messages.Throttled)
}

// A consumer may have a newer value than the worker that its report reaches.
func TestReportOfAValueThatTheWorkerDoesNotKnowYetIsReadAtTheLeader(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(nil)
	c := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	newer := c
	newer.Value, newer.Generation = "a value of another worker", c.Generation+1
	r := w.refresher
	r.store = leaderStore{r.store, newer}
	if r.mayBeNewer(&c, reportOf(c)) {
		t.Error("a report of the current value is read at the leader")
	}
	o, answered, err := r.answerFromMemory(t.Context(), w.accounts.get(appid), messages.AccessToken, reportOf(newer))
	if answered || err != nil {
		t.Errorf("the report of the newer value is answered with %s, %v", o.reason, err)
	}
	if got, err := w.memory.get(appid, messages.AccessToken); err != nil || got.Value != newer.Value {
		t.Error("the worker has not taken the newer value")
	}
}

// A bucket that was restored from a backup has an older record than the worker. That one is not the current one.
func TestReportOfAnUnknownValueIsNotAnsweredWithAnOlderRecordOfTheLeader(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(nil)
	c := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	older, unknown := c, c
	older.Value, older.Generation, older.ObtainedAt = "a value of a backup", 0, c.ObtainedAt.Add(-time.Hour)
	unknown.Value = "a value that nobody has"
	r := w.refresher
	r.store = leaderStore{r.store, older}
	o, answered, err := r.answerFromMemory(t.Context(), w.accounts.get(appid), messages.AccessToken, reportOf(unknown))
	if !answered || err != nil || o.reason != messages.ReasonNotCurrent || o.current.Value != c.Value {
		t.Errorf("the report is answered: %t, %s, generation %d, %v", answered, o.reason, o.current.Generation, err)
	}
}

// leaderStore is a store whose leader has a record that the watch has not delivered.
type leaderStore struct {
	turnStore
	record messages.Credential
}

func (s leaderStore) Get(context.Context, string, messages.Kind) (messages.Credential, error) {
	return s.record, nil
}

// Under load, each kill is healed: no call of a service fails, and WeChat is called at most twice for a kill.
func TestKillsUnderLoadCostNoCall(t *testing.T) {
	t.Parallel()
	for _, tokenAPI := range []string{messages.SourceToken, messages.SourceStableToken} {
		for _, workers := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s with %d workers", tokenAPI, workers), func(t *testing.T) {
				t.Parallel()
				killUnderLoad(t, tokenAPI, workers, 5)
			})
		}
	}
}

func killUnderLoad(t *testing.T, tokenAPI string, workers, kills int) {
	t.Helper()
	f := newFixture(t, noOverlap)
	var ws []*testWorker
	for i := range workers {
		ws = append(ws, f.worker(func(c *Config) {
			c.Name = fmt.Sprintf("w%d", i)
			c.Accounts[0].TokenAPI = tokenAPI
		}))
	}
	ws[0].await(messages.AccessToken, 0)
	minted, asked := f.calls(tokenAPI), f.calls("get_api_domain_ip")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls atomic.Int64
	var load sync.WaitGroup
	call := func(do func() error) {
		load.Go(func() {
			for ctx.Err() == nil {
				calls.Add(1)
				if err := do(); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 5 {
		call(func() error { _, err := ws[i%workers].resolve(); return err })
	}
	for range 5 {
		call(f.consumer(ctx))
	}
	for kill := range kills + 1 {
		if kill > 0 {
			f.foreignRefresh(tokenAPI)
		}
		next := calls.Load() + 100 + rand.Int64N(400) // the next kill may come before the last one is healed
		f.eventually("there is load", func() bool { return calls.Load() > next })
	}
	cancel()
	load.Wait()
	if n := f.calls(tokenAPI) - minted; n > kills {
		t.Errorf("%d tokens for %d kills", n, kills)
	}
	if n := f.calls("get_api_domain_ip") - asked; n > kills {
		t.Errorf("%d questions for %d kills", n, kills)
	}
}

// consumer is a service that calls WeChat with a Transport: the returned function makes one call.
func (f *fixture) consumer(ctx context.Context) func() error {
	r, err := kv.NewReader(f.connect(), kv.ReaderConfig{})
	if err != nil {
		f.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	f.Cleanup(running.Wait)
	tr := r.Transport(appid)
	tr.Hosts = []string{strings.TrimPrefix(f.wechat.URL, "http://")}
	client := http.Client{Transport: tr, Timeout: patience}
	return func() error {
		resp, err := client.Get(f.wechat.URL + "/cgi-bin/ticket/getticket?type=jsapi")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var answer struct{ Errcode int }
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			return err
		}
		if answer.Errcode != 0 {
			return fmt.Errorf("errcode %d", answer.Errcode)
		}
		return nil
	}
}

// reportOf is the report of a consumer that names a value by its hash.
func reportOf(c messages.Credential) policy.Report {
	return policy.Report{ValueSHA256: messages.ValueSHA256(c.Value), SentAt: time.Now()}
}

// gauge is the value of a metric of the worker, which must have one series with a value other than 0, or none.
func (w *testWorker) gauge(name string) float64 {
	w.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.Fatal(err)
	}
	sum, found := 0.0, false
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		found = true
		for _, m := range family.GetMetric() {
			sum += m.GetGauge().GetValue()
		}
	}
	if !found {
		w.Fatalf("there is no metric %s", name)
	}
	return sum
}
