package worker

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// fault is what happens to a worker at a step.
type fault string

const (
	dies fault = "dies" // it never acts again
	// nothing goes in or out until its lease has ended and another worker has refreshed the credential
	stalls fault = "stalls"
	frozen fault = "frozen" // it stalls, and its own clock stops, as in a virtual machine that is suspended
	cut    fault = "cut"    // its connection to NATS breaks, and it connects again
)

// result is how the fleet ends a refresh that met a fault.
type result struct {
	calls int    // of WeChat, of the whole fleet
	spare int    // further calls that are allowed
	by    string // the workers that publish the new generations, in their order; "any": one generation, of any worker
}

// faultRow is one fault at one step of the refresh of one account's credential.
type faultRow struct {
	step
	fault
	api      string
	kind     messages.Kind
	want     result
	account  Account
	upstream wechattest.Fault // instead of a fault of a worker
}

// Whatever step a worker is at when it fails, and however it fails: the other workers finish its work, it does
// no harm when it comes back, and consumers receive only values that WeChat accepts, of growing generations
// (docs/architecture.md#refresh-1, docs/architecture.md#refresh-2).
//
// The fleet makes a second call only if WeChat issued a value and its worker could not publish it. A second
// classic token kills the token before the first one: a consumer then has a dead token until the second one is
// published some milliseconds later, and its report is answered with the new token. The fleet makes a third
// call if it does not know which of two tokens is newer.
func TestAnyStepOfARefreshMayFail(t *testing.T) {
	t.Parallel()
	once := func(by string) result { return result{calls: 1, by: by} }
	twice, thrice := result{calls: 2, by: "other"}, result{calls: 3, by: "other victim"}
	var rows []*faultRow
	for _, r := range []struct {
		step
		dies, stalls, frozen, cut result
	}{
		{beforeLease, once("other"), once("other"), once("other"), once("any")},
		{leaseTaken, once("other"), once("other"), once("other"), once("any")},
		{beforeLook, once("other"), once("other"), once("other"), once("any")},
		{beforeAttempt, once("other"), once("other"), once("other"), once("any")},
		{beforeCall, once("other"), once("other"), thrice, once("victim")},
		{afterCall, twice, twice, thrice, once("victim")},
		{beforeOutcome, twice, twice, thrice, once("victim")},
		{beforePublish, twice, twice, thrice, once("victim")},
		{published, once("victim"), once("victim"), once("victim"), once("victim")},
		{outcomeLost, once("victim"), once("victim"), once("victim"), once("victim")},
		{beforeRelease, once("victim"), once("victim"), once("victim"), once("victim")},
	} {
		for f, want := range map[fault]result{dies: r.dies, stalls: r.stalls, frozen: r.frozen, cut: r.cut} {
			rows = append(rows, &faultRow{
				step: r.step, fault: f, api: messages.SourceToken, kind: messages.AccessToken, want: want,
			})
		}
	}
	// stable_token and getticket repeat the value that was lost: WeChat issues no other value, and none dies.
	for _, r := range []*faultRow{
		{step: beforeCall, fault: frozen},
		{step: afterCall, fault: dies},
		{step: beforeOutcome, fault: stalls},
		{step: beforePublish, fault: dies},
		{step: beforePublish, fault: frozen},
		{step: beforePublish, fault: dies, kind: messages.JSAPITicket},
	} {
		r.api, r.want = messages.SourceStableToken, twice
		if r.kind == "" {
			r.kind = messages.AccessToken
		}
		rows = append(rows, r)
	}
	// WeChat issues a value, and no worker receives it.
	for f, upstream := range map[fault]wechattest.Fault{
		"never answers":              {Hang: true, After: true},
		"is cut off while answering": {Body: "cut", After: true},
	} {
		for _, api := range []string{messages.SourceToken, messages.SourceStableToken} {
			if api == messages.SourceToken && upstream.Body == "cut" {
				continue // it is asked again minutes later: TestUnreadableAnswerCostsNoSecondToken
			}
			rows = append(rows, &faultRow{
				step: "WeChat", fault: f, api: api, kind: messages.AccessToken, want: twice, upstream: upstream,
			})
		}
	}

	f := newFaultFixture(t)
	for i, r := range rows {
		r.account = f.account(fmt.Sprintf("wx-%02d", i), r.api, r.kind)
	}
	f.age()
	// if all started at once, leases would end before the victims have reached their step
	starting := make(chan struct{}, 6)
	var wg sync.WaitGroup
	for _, r := range rows {
		wg.Go(func() {
			starting <- struct{}{}
			struck := sync.OnceFunc(func() { <-starting })
			defer struck()
			t.Run(fmt.Sprintf("%s/%s/%s/%s", r.api, r.kind, r.step, r.fault),
				func(t *testing.T) { r.run(t, f, struck) })
		})
	}
	wg.Wait()
}

// run makes the fault happen and waits until the whole fleet has nothing more to do. It calls struck when the
// victim has reached its step.
func (r *faultRow) run(t *testing.T, f *faultFixture, struck func()) {
	t.Helper()
	if r.step == "WeChat" {
		r.upstream.AppID, r.upstream.Times = r.account.AppID, 1
		f.wechat.Inject(r.upstream)
		f.addAccount(r.account)
		struck()
		r.check(t, f, f.fleet)
		return
	}
	lease := shortLease
	if r.fault == frozen || r.fault == cut && r.step != leaseTaken {
		lease = patience // the test ends it, or the victim
	}
	key := messages.Key(r.account.AppID, r.kind)
	v := f.victim(t, r.account, r.kind, r.step, lease)
	struck()
	switch r.fault {
	case dies:
		v.die()
		f.endLease(key)
	case stalls:
		v.eventually("its lease has ended", func() bool { return f.seen.lease(key) != leaseIsTaken })
	case frozen:
		if r.step != beforeLease {
			f.endLease(key)
		}
	case cut:
		v.cut()
	}
	f.addAccount(r.account)
	v.eventually("a worker publishes", func() bool {
		c, err := f.seen.Get(r.account.AppID, r.kind)
		return err == nil && c.Worker != "earlier"
	})
	if r.fault == stalls || r.fault == frozen {
		v.resume()
	}
	workers := f.fleet
	if r.fault != dies {
		workers = append([]*testWorker{v.testWorker}, workers...)
	}
	r.check(t, f, workers)
}

// check waits until the workers have nothing more to do for the row's credential, and checks what was published.
func (r *faultRow) check(t *testing.T, f *faultFixture, workers []*testWorker) {
	t.Helper()
	id, key, api := r.account.AppID, messages.Key(r.account.AppID, r.kind), r.api
	if r.kind != messages.AccessToken {
		api = messages.SourceGetTicket
	}
	own := f.fixtureFor(t, natstest.NewGate())
	for _, w := range workers {
		own.eventually("worker "+w.cfg.Name+" has nothing more to do", func() bool { return w.isQuiet(key) })
	}
	stored, err := f.fleet[0].store.Get(own.context(), id, r.kind)
	if err != nil {
		t.Fatal(err)
	}
	own.eventually("the consumer has what is stored", func() bool {
		c, err := f.seen.Get(id, r.kind)
		return err == nil && c == stored
	})
	calls, minted, records := f.wechat.Calls(id, api), f.wechat.Minted(id, api), f.seen.records(key)
	t.Logf("%d calls, %d values issued: %v", calls, minted, records)

	if calls < r.want.calls || calls > r.want.calls+r.want.spare {
		t.Errorf("%d upstream calls, want %d and at most %d more", calls, r.want.calls, r.want.spare)
	}
	if api != messages.SourceToken && minted != 1 {
		t.Errorf("WeChat issued %d values, want 1", minted)
	}
	by := checkRecords(t, records, minted)
	if got := strings.Join(by, " "); got != r.want.by && (r.want.by != "any" || len(by) != 1) {
		t.Errorf("published by %q, want %q", got, r.want.by)
	}
	// WeChat accepts the last two classic tokens: if the published one is the last, it outlives one more.
	if api == messages.SourceToken {
		if _, err := f.wechat.ForeignRefresh(id, api); err != nil {
			t.Error(err)
		}
	}
	if v := f.validity(id, r.kind, stored.Value); v != valid {
		t.Errorf("the published value is not the newest: for WeChat it is %s", v)
	}
}

// checkRecords checks the records that the consumer received, and returns the workers that published new
// generations.
func checkRecords(t *testing.T, records []received, minted int) (by []string) {
	t.Helper()
	generation, held := uint64(0), uint64(0)
	for i, r := range records {
		if r.held < held {
			t.Errorf("the consumer went back from generation %d to %d", held, r.held)
		}
		held = r.held
		if r.validity != valid {
			t.Errorf("generation %d is %s for WeChat when it arrives", r.Generation, r.validity)
		}
		if minted == 1 && i > 0 && r.former != valid {
			t.Errorf("the value that the consumer had before generation %d was %s for WeChat", r.Generation, r.former)
		}
		switch {
		case r.Generation > generation && r.Worker != "earlier":
			by = append(by, strings.TrimRight(r.Worker, "-0123456789"))
		case r.Generation < generation:
			t.Errorf("generation %d was published after %d", r.Generation, generation)
		case r.Generation == generation && r.Value != records[i-1].Value:
			t.Errorf("generation %d was given to two values", r.Generation)
		}
		generation = r.Generation
	}
	return by
}

// The server that leads the bucket's stream is stopped, with a worker at each step of a refresh. A write that
// only this server had is lost with it, and may cost one more call.
func TestTheLeaderMayStopAtAnyStepOfARefresh(t *testing.T) {
	t.Parallel()
	f := newFaultFixture(t)
	steps := []step{
		beforeLease, leaseTaken, beforeLook, beforeAttempt, beforeCall, afterCall,
		beforeOutcome, beforePublish, published, outcomeLost, beforeRelease,
	}
	var rows []*faultRow
	for i, s := range steps {
		r := &faultRow{
			step: s, fault: "the leader stops", api: messages.SourceToken, kind: messages.AccessToken,
			want: result{calls: 1, spare: 1, by: "any"},
		}
		r.account = f.account(fmt.Sprintf("wx-%02d", i), r.api, r.kind)
		rows = append(rows, r)
	}
	f.age()
	victims := make([]*victim, len(rows))
	var wg sync.WaitGroup
	for i, r := range rows {
		lease := longLease
		switch r.step {
		case beforeLease, leaseTaken, beforeLook, beforeAttempt: // its end costs no call, and it may not be released
			lease = shortLease
		}
		wg.Go(func() { victims[i] = f.victim(t, r.account, r.kind, r.step, lease) })
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	leader := f.cluster.StreamLeader("KV_wechat")
	if leader == nil {
		t.Fatal("the bucket has no leader")
	}
	leader.Stop()
	for i, r := range rows {
		victims[i].resume()
		f.addAccount(r.account)
	}
	for i, r := range rows {
		t.Run(string(r.step), func(t *testing.T) {
			r.check(t, f, append([]*testWorker{victims[i].testWorker}, f.fleet...))
		})
	}
	leader.Restart()
}
