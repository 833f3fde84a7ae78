package worker

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// One refresh per period and credential, however many workers (docs/architecture.md#refresh-1), through
// renewals and a lost server.
func TestFleetOnAClusterCallsOnceAndHasNoGap(t *testing.T) {
	t.Parallel()
	f := newClusterFixture(t, wechattest.Config{})
	f.hurried = true
	var workers []*testWorker
	for range 4 {
		workers = append(workers, f.worker(classic))
	}
	// check waits until each worker holds the generation, and returns the credential.
	check := func(generation uint64) (c messages.Credential) {
		t.Helper()
		for i, w := range workers {
			c = w.await(messages.AccessToken, generation-1)
			if c.Generation != generation {
				t.Errorf("worker %d holds generation %d, want %d", i, c.Generation, generation)
			}
			f.checkValid(c)
		}
		return c
	}
	// renew advances to the time at which the credential is due, and checks the next generation.
	renew := func(c messages.Credential) messages.Credential {
		t.Helper()
		f.advanceTo(c.RefreshAt)
		return check(c.Generation + 1)
	}
	c := renew(check(1))
	f.checkCalls("", 2)

	leader := f.cluster.StreamLeader("KV_wechat")
	if leader == nil {
		t.Fatal("the bucket has no leader")
	}
	leader.Stop()
	c = renew(c)
	for i, w := range workers {
		if _, err := w.resolve(); err != nil {
			t.Errorf("worker %d does not resolve while a server is lost: %v", i, err)
		}
	}
	leader.Restart()
	f.cluster.AwaitReady()
	c = renew(c)
	// Each generation cost one call. A lost server may cost one more: of a worker whose publication was lost with
	// it.
	if calls := f.calls("token"); calls > int(c.Generation)+1 {
		t.Errorf("%d token calls for %d generations", calls, c.Generation)
	}
}

// A worker has died in a turn: the other workers try again when its lease ends, and not a whole lease after
// they found it held.
func TestLeaseOfADeadWorkerIsWaitedForFromItsAttempt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(func(c *Config) { c.Random = func() float64 { return 1 } })
	c := w.await(messages.AccessToken, 0)
	account := w.accounts.get(appid)
	w.awaitQuiet(messages.AccessToken)
	f.takeLease("dead", 2*patience)
	const past, margin = 3 * time.Second, 2 * leaseMargin // leaseMargin, and all of its jitter
	ttl, now := w.refresher.leaseTTL, f.clock.Now()
	for name, tc := range map[string]struct {
		began       time.Time     // of the dead worker's attempt; zero: it died before it wrote the attempt down
		left        time.Duration // of the lease
		leftIfAgain time.Duration // of the lease, if this worker has waited for it before
	}{
		"no attempt written":           {time.Time{}, ttl, 0},
		"an attempt":                   {now.Add(-past), ttl - past, ttl - past},
		"the attempt of another turn":  {now.Add(-time.Hour), 0, 0},
		"an attempt, by a clock ahead": {now.Add(time.Hour), ttl, 0},
	} {
		l := store.Ledger{
			AppID: appid, Kind: messages.AccessToken, Generation: c.Generation,
			Revision: 1000, // of no earlier entry that the watch may still deliver
		}
		if !tc.began.IsZero() {
			l.LastAttempt, l.Attempts = tc.began, 1
		}
		w.memory.observeLedger(l)
		for waited, left := range map[bool]time.Duration{false: tc.left, true: tc.leftIfAgain} {
			end := w.refresher.scheduled(f.context(), account, messages.AccessToken, ending{leaseHeld: waited})
			wait := end.retry
			if !end.leaseHeld {
				t.Errorf("%s, waited %t: the lease of the dead worker is not held", name, waited)
			}
			if wait != left+margin {
				t.Errorf("%s, waited %t: the next attempt is in %s, want %s", name, waited, wait, left+margin)
			}
		}
	}
}

func TestWithoutQuorumNothingIsFetchedAndCodesAreResolved(t *testing.T) {
	t.Parallel()
	f := newClusterFixture(t, wechattest.Config{})
	f.clock.stop()
	f.hurried = true
	w := f.worker(nil)
	first := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	for _, srv := range f.cluster.Servers[:2] {
		srv.Stop()
	}
	account := w.accounts.get(appid)
	reply, err := w.service.resolver.resolve(context.Background(), account, openid, codeTicket)
	if err != nil || len(reply) == 0 {
		t.Errorf("resolving from memory: %q, %v", reply, err)
	}
	f.advanceTo(first.RefreshAt)
	if err := w.refresher.doScheduled(f.context(), account, messages.AccessToken, nil); err == nil {
		t.Error("a turn was taken without a quorum")
	}
	var st messages.CredentialStatus
	f.eventually("the first turn that is given up is the reason of the state", func() bool {
		st = w.statusOf(appid)[0]
		return st.Reason == messages.ReasonUnwritable
	})
	if st.State != messages.StateFailing || !strings.Contains(st.Error, "JetStream") ||
		!strings.Contains(st.Advice, "quorum") {
		t.Errorf("without a quorum: %+v", st)
	}
	f.checkCalls("stable_token", 1)
	for _, srv := range f.cluster.Servers[:2] {
		srv.Restart()
	}
	f.cluster.AwaitReady()
	w.awaitRetried(first.Generation)
	w.awaitState(messages.StateFresh)
}
