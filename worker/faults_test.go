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
	dies   fault = "dies"   // it never acts again
	stalls fault = "stalls" // nothing goes in or out until its lease has ended and another has done its work
	frozen fault = "frozen" // the same, and its own clock stood still, as in a virtual machine that was stopped
	cut    fault = "cut"    // its connection to NATS breaks; it makes another
)

// outcome is what the fleet makes of a fault.
type outcome struct {
	calls int    // of WeChat, of the whole fleet
	by    string // who publishes the new generations, in their order; "any": one generation, whoever
}

// faultRow is one fault at one step of the refresh of one account's credential.
type faultRow struct {
	step
	fault
	api  string
	kind messages.Kind
	outcome
	account  Account
	upstream wechattest.Fault // in place of a fault of a worker
}

// The heart of the promise (design §5.1, §5.2): whatever step a worker is at when it fails, and however it fails, the others
// finish its work, it does no harm when it comes back, and consumers see living values of growing generations only.
//
// More than one call is made only where a value was minted and its worker could not publish it. A second classic token
// kills the one before the first: a consumer has a dead one then until the second is published, some milliseconds, and
// its report is answered with the new one. A third is minted where nobody knows which of two is the newer.
func TestAnyStepOfARefreshMayFail(t *testing.T) {
	t.Parallel()
	once := func(by string) outcome { return outcome{1, by} }
	twice, thrice := outcome{2, "other"}, outcome{3, "other victim"}
	var rows []*faultRow
	for _, r := range []struct {
		step
		dies, stalls, frozen, cut outcome
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
		for f, o := range map[fault]outcome{dies: r.dies, stalls: r.stalls, frozen: r.frozen, cut: r.cut} {
			rows = append(rows, &faultRow{r.step, f, messages.SourceToken, messages.AccessToken, o, Account{}, wechattest.Fault{}})
		}
	}
	// stable_token and tickets repeat the value that was lost: nothing else is minted, and nothing dies.
	for _, r := range []*faultRow{
		{step: beforeCall, fault: frozen}, {step: afterCall, fault: dies}, {step: beforeOutcome, fault: stalls},
		{step: beforePublish, fault: dies}, {step: beforePublish, fault: frozen}, {step: beforePublish, fault: dies, kind: messages.JSAPITicket},
	} {
		r.api, r.outcome = messages.SourceStableToken, twice
		if r.kind == "" {
			r.kind = messages.AccessToken
		}
		rows = append(rows, r)
	}
	// The value was minted, and no worker hears of it.
	for f, u := range map[fault]wechattest.Fault{
		"never answers":            {Hang: true, After: true},
		"is cut off in its answer": {Body: "cut", After: true},
	} {
		for _, api := range []string{messages.SourceToken, messages.SourceStableToken} {
			rows = append(rows, &faultRow{"WeChat", f, api, messages.AccessToken, twice, Account{}, u})
		}
	}

	f := newFaultStage(t, usualLease)
	for i, r := range rows {
		r.account = f.account(fmt.Sprintf("wx-%02d", i), r.api, r.kind)
	}
	f.age()
	starting := make(chan struct{}, 6) // not all at once, or leases end before the fault has struck
	var wg sync.WaitGroup
	for _, r := range rows {
		wg.Go(func() {
			starting <- struct{}{}
			struck := sync.OnceFunc(func() { <-starting })
			defer struck()
			t.Run(fmt.Sprintf("%s/%s/%s/%s", r.api, r.kind, r.step, r.fault), func(t *testing.T) { r.play(t, f, struck) })
		})
	}
	wg.Wait()
}

// play lets the fault happen and waits until the whole fleet has nothing more to do. It calls struck once the fault has.
func (r *faultRow) play(t *testing.T, f *faultStage, struck func()) {
	t.Helper()
	if r.step == "WeChat" {
		r.upstream.AppID, r.upstream.Times = r.account.AppID, 1
		f.wechat.Inject(r.upstream)
		f.join(r.account)
		struck()
		r.check(t, f, f.fleet)
		return
	}
	lease := usualLease
	switch {
	case r.fault == frozen:
		lease = longLease
	case r.fault == stalls, r.fault == cut && r.step == leaseTaken: // nobody gives it back
		lease = shortLease
	}
	key := messages.Key(r.account.AppID, r.kind)
	v := f.victim(t, r.account, r.kind, r.step, lease)
	struck()
	switch r.fault {
	case dies:
		v.die()
		f.endLease(key)
	case stalls:
		v.eventually("its lease has ended", func() bool { return f.seen.lease(key) != taken })
	case frozen:
		if r.step != beforeLease {
			f.endLease(key)
		}
	case cut:
		v.lose()
	}
	f.join(r.account)
	v.eventually("somebody publishes", func() bool {
		h := f.seen.Held(r.account.AppID, r.kind)
		return h != nil && h.Worker != "earlier"
	})
	if r.fault == stalls || r.fault == frozen {
		v.goOn()
	}
	workers := f.fleet
	if r.fault != dies {
		workers = append([]*actor{v.actor}, workers...)
	}
	r.check(t, f, workers)
}

// check waits until the workers have nothing more to do for the row's credential, and looks at what came of it.
func (r *faultRow) check(t *testing.T, f *faultStage, workers []*actor) {
	t.Helper()
	id, key, api := r.account.AppID, messages.Key(r.account.AppID, r.kind), r.api
	if r.kind != messages.AccessToken {
		api = "getticket"
	}
	own := *f.stage
	own.TB, own.gate = t, natstest.NewGate()
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
	calls, minted, saw := f.wechat.Calls(id, api), f.wechat.Minted(id, api), f.seen.saw(key)
	t.Logf("%d calls, %d minted: %v", calls, minted, saw)

	if calls != r.calls {
		t.Errorf("%d upstream calls, want %d", calls, r.calls)
	}
	if api != messages.SourceToken && minted != 1 {
		t.Errorf("%d values were minted, want 1", minted)
	}
	var by []string
	generation, held := uint64(0), uint64(0)
	for i, s := range saw {
		if s.held < held {
			t.Errorf("the consumer went from generation %d to %d", held, s.held)
		}
		held = s.held
		if s.verdict != wechattest.Valid {
			t.Errorf("WeChat says of generation %d when it comes: %s", s.Generation, s.verdict)
		}
		if minted == 1 && i > 0 && s.former != wechattest.Valid {
			t.Errorf("before generation %d came, the consumer had one of which WeChat says: %s", s.Generation, s.former)
		}
		switch {
		case s.Generation > generation && s.Worker != "earlier":
			by = append(by, strings.TrimRight(s.Worker, "-0123456789"))
		case s.Generation < generation:
			t.Errorf("generation %d was published after %d", s.Generation, generation)
		case s.Generation == generation && s.Value != saw[i-1].Value:
			t.Errorf("generation %d was given to two values", s.Generation)
		}
		generation = s.Generation
	}
	if got := strings.Join(by, " "); got != r.by && (r.by != "any" || len(by) != 1) {
		t.Errorf("published by %q, want %q", got, r.by)
	}
	// Old and new are good: if the published classic token is the newest, it outlives one more.
	if api == messages.SourceToken {
		if _, err := f.wechat.ForeignRefresh(id, api); err != nil {
			t.Error(err)
		}
	}
	if v := f.wechat.Judge(id, string(r.kind), stored.Value); v != wechattest.Valid {
		t.Errorf("the published value is not the newest: WeChat says %s", v)
	}
}

// The server that leads the bucket is stopped, with a worker at each step of a refresh. A write that it swallowed may cost
// one call more: what it took and did not pass on is gone with it.
func TestTheLeaderMayStopAtAnyStepOfARefresh(t *testing.T) {
	t.Parallel()
	f := newFaultStage(t, shortLease)
	steps := []step{
		beforeLease, leaseTaken, beforeLook, beforeAttempt, beforeCall, afterCall, beforeOutcome, beforePublish, published, outcomeLost, beforeRelease,
	}
	var rows []*faultRow
	for i, s := range steps {
		r := &faultRow{step: s, fault: "the leader stops", api: messages.SourceToken, kind: messages.AccessToken, outcome: outcome{1, "any"}}
		r.account = f.account(fmt.Sprintf("wx-%02d", i), r.api, r.kind)
		rows = append(rows, r)
	}
	f.age()
	victims := make([]*victim, len(rows))
	var wg sync.WaitGroup
	for i, r := range rows {
		lease := usualLease
		if r.step == leaseTaken {
			lease = shortLease // nobody gives it back
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
		victims[i].goOn()
		f.join(r.account)
	}
	for i, r := range rows {
		t.Run(string(r.step), func(t *testing.T) { r.check(t, f, append([]*actor{victims[i].actor}, f.fleet...)) })
	}
	leader.Restart()
}
