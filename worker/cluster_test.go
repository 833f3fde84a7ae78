package worker

import (
	"context"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// newClusterStage is a stage on three NATS servers.
func newClusterStage(tb testing.TB, cfg wechattest.Config) *stage {
	tb.Helper()
	cfg.Accounts = []wechattest.Account{{AppID: appid, Secret: secret}}
	return &stage{TB: tb, cluster: natstest.StartCluster(tb), wechat: wechattest.Start(tb, cfg)}
}

// One refresh per period and credential, however many workers (design §5.1), through renewals and a lost node.
func TestFleetOnAClusterCallsOnceAndHasNoGap(t *testing.T) {
	t.Parallel()
	s := newClusterStage(t, wechattest.Config{TokenLife: 15 * time.Second})
	var fleet []*actor
	for range 4 {
		fleet = append(fleet, s.worker(classic))
	}
	check := func(generation uint64) {
		t.Helper()
		for i, w := range fleet {
			c := w.await(messages.AccessToken, generation-1)
			if v := s.wechat.Judge(appid, "access_token", c.Value); v != wechattest.Valid {
				t.Errorf("worker %d holds generation %d, of which WeChat says %v", i, c.Generation, v)
			}
		}
	}
	check(1)
	check(2)
	if calls, minted := s.wechat.Calls("", ""), s.wechat.Minted("", ""); calls != minted || calls > 3 {
		t.Errorf("%d calls, %d tokens for two generations of 4 workers", calls, minted)
	}
	leader := s.cluster.StreamLeader("KV_wechat")
	if leader == nil {
		t.Fatal("the bucket has no leader")
	}
	leader.Stop()
	before := fleet[0].await(messages.AccessToken, 0).Generation
	check(before + 1)
	for i, w := range fleet {
		if _, err := w.resolve(); err != nil {
			t.Errorf("worker %d, with a node lost: %v", i, err)
		}
	}
	leader.Restart()
	s.cluster.AwaitReady()
	check(before + 2)
	// Each generation cost one call; a lost node may cost one more, of a worker whose publication it swallowed.
	if calls, last := s.wechat.Calls("", "token"), int(fleet[0].await(messages.AccessToken, 0).Generation); calls > last+1 {
		t.Errorf("%d token calls for %d generations", calls, last)
	}
}

// A worker has died in a turn: the others come when its lease ends, not a whole lease after they found it held.
func TestLeaseOfADeadWorkerIsWaitedForFromItsAttempt(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(func(c *Config) { c.Random = func() float64 { return 1 } })
	c := w.await(messages.AccessToken, 0)
	account := w.accounts.get(appid)
	s.eventually("the turn has ended", func() bool { return w.isQuiet(messages.Key(appid, messages.AccessToken)) })
	dead, err := store.New(s.nats.Connect(), store.Config{Worker: "dead"})
	if err == nil {
		err = dead.Ensure(s.context())
	}
	if err == nil {
		_, err = dead.Acquire(s.context(), appid, messages.AccessToken, 2*patience)
	}
	if err != nil {
		t.Fatal(err)
	}
	const past = 3 * time.Second
	for _, tc := range []struct {
		began time.Time
		most  time.Duration
	}{
		{time.Time{}, w.refresher.leaseTTL},                  // it died before it wrote its attempt down
		{time.Now().Add(-past), w.refresher.leaseTTL - past}, // the clock goes on
		{time.Now().Add(-time.Hour), 0},                      // the attempt of another turn
		{time.Now().Add(time.Hour), w.refresher.leaseTTL},    // by a clock that is ahead
	} {
		l := store.Ledger{AppID: appid, Kind: messages.AccessToken, Generation: c.Generation}
		if !tc.began.IsZero() {
			l.LastAttempt, l.Attempts = tc.began, 1
		}
		w.scheduler.seenLedger(l)
		if wait, _ := w.work(s.context(), account, messages.AccessToken, true); wait > tc.most+time.Second || tc.began.IsZero() && wait > time.Second {
			t.Errorf("begun at %s, and waited for: the next try is in %s", tc.began, wait)
		}
		if wait, held := w.work(s.context(), account, messages.AccessToken, false); !held || wait > tc.most+time.Second {
			t.Errorf("begun at %s: the next try is in %s, the lease ends in %s", tc.began, wait, tc.most)
		}
	}
}

func TestWithoutQuorumNothingIsFetchedAndCodesAreResolved(t *testing.T) {
	t.Parallel()
	s := newClusterStage(t, wechattest.Config{TokenLife: 30 * time.Second})
	w := s.worker(nil)
	first := w.await(messages.AccessToken, 0)
	for _, srv := range s.cluster.Servers[:2] {
		srv.Stop()
	}
	account := w.accounts.get(appid)
	if reply, err := w.service.resolver.resolve(context.Background(), account, openid, codeTicket); err != nil || len(reply) == 0 {
		t.Errorf("resolving from memory: %v", err)
	}
	if err := w.refresher.scheduled(s.context(), account, messages.AccessToken); err == nil {
		t.Error("a turn was taken without a quorum")
	}
	if n := s.wechat.Calls("", "stable_token"); n != 1 {
		t.Errorf("%d token calls, want the first", n)
	}
	for _, srv := range s.cluster.Servers[:2] {
		srv.Restart()
	}
	s.cluster.AwaitReady()
	w.await(messages.AccessToken, first.Generation) // and it goes on
	if n := s.wechat.Calls("", "stable_token"); n > 3 {
		t.Errorf("%d token calls for two generations", n)
	}
}
