package worker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// newTestScheduler makes a scheduler of accounts with classic tokens. All of them are due. The first ones
// (named bad) have failed several times in a row.
func newTestScheduler(concurrency, bad, good int, now func() time.Time) *scheduler {
	log := slog.New(slog.DiscardHandler)
	m := newMemory(now, log)
	r := &refresher{
		memory: m, clock: systemClock{now}, log: log, leaseTTL: usualLease,
		policy: &policy.Policy{RefreshBefore: 10 * time.Minute, Random: func() float64 { return 0.5 }},
	}
	s := newScheduler(m, r, concurrency, log)
	as := map[string]*Account{}
	for i := range bad + good {
		a := &Account{AppID: fmt.Sprint("wx", i), Secret: secret, TokenAPI: messages.SourceToken}
		if i < bad {
			a.Name = "bad"
			m.observeLedger(store.Ledger{AppID: a.AppID, Kind: messages.AccessToken, Attempts: 5, NextAttempt: now()})
		}
		as[a.AppID] = a
	}
	s.setAccounts(as)
	return s
}

// acquireStore is a store of which only Acquire is called.
type acquireStore struct {
	turnStore
	acquire func(appid string) error
}

func (acquireStore) Connected() bool { return true }

func (s acquireStore) Acquire(_ context.Context, appid string, _ messages.Kind, _ time.Duration) (store.Lease, error) {
	return nil, s.acquire(appid)
}

// A turn that never ends takes no slot from credentials that do not fail.
func TestHangingTurnLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	const bad, good = 3, 3
	s := newTestScheduler(1, bad, good, time.Now)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	served := make(chan string, bad+good)
	s.refresher.store = acquireStore{acquire: func(appid string) error {
		if s.items[messages.Key(appid, messages.AccessToken)].account.Name == "bad" {
			<-ctx.Done()
		} else {
			served <- appid
		}
		return store.ErrLeaseHeld
	}}
	s.start()
	stopped := make(chan struct{})
	go func() { defer close(stopped); s.run(ctx) }()
	seen := map[string]bool{}
	for len(seen) < good {
		select {
		case appid := <-served:
			seen[appid] = true
		case <-ctx.Done():
			t.Fatalf("%d of %d good accounts had a turn", len(seen), good)
		}
	}
	cancel()
	<-stopped
}

// Accounts whose calls hang until they are given up, again and again, delay only each other, however many they are
// (docs/architecture.md#refresh-4). The test runs the real scheduler in virtual time.
func TestBadAccountDoesNotDelayOthers(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		concurrency := rapid.IntRange(1, 32).Draw(t, "concurrency")
		bad, good := rapid.IntRange(1, 50).Draw(t, "bad accounts"), rapid.IntRange(1, 10).Draw(t, "good accounts")
		badCall := time.Duration(rapid.IntRange(0, 9).Draw(t, "seconds of a bad call")) * time.Second
		const goodCall = 100 * time.Millisecond
		now := begin
		s := newTestScheduler(concurrency, bad, good, func() time.Time { return now })
		s.start()

		type running struct {
			ends time.Time
			lane *lane
			end  func()
		}
		var turns []running
		start := func(j job, l *lane) {
			waited := now.Sub(j.item.next.At)
			key := messages.Key(j.account.AppID, j.kind)
			view := policy.View{Ledger: s.memory.ledger(key)}
			ledger := s.policy.Begin(now, view, j.item.next.Reason, false)
			ledger.AppID, ledger.Kind = j.account.AppID, j.kind
			s.memory.observeLedger(ledger)
			if j.account.Name == "bad" {
				turns = append(turns, running{now.Add(badCall), l, func() {
					failure := store.Failure{Class: wechat.ClassTransport}
					s.memory.observeLedger(s.policy.Fail(now, policy.View{Ledger: ledger}, failure, 0))
					s.done(j.item, ending{})
				}})
				return
			}
			if most := time.Duration(good) * goodCall; waited > most {
				t.Fatalf("after %s a good account waited for %s, want at most %s", now.Sub(begin), waited, most)
			}
			sent := now
			turns = append(turns, running{now.Add(goodCall), l, func() {
				c, _, ledger := s.policy.Succeed(view, ledger, j.account.AppID, j.kind, wechat.Issued{
					Value: fmt.Sprint("value", ledger.Generation), ExpiresIn: 3 * time.Minute, SentAt: sent,
				})
				s.memory.observeLedger(ledger)
				s.memory.observeRecord(c)
				s.done(j.item, ending{})
			}})
		}
		for now.Before(begin.Add(5 * time.Minute)) {
			next := now.Add(maxSleep)
			for _, l := range s.lanes {
				busy := 0
				for _, r := range turns {
					if r.lane == l {
						busy++
					}
				}
				for ; busy < cap(l.slots); busy++ {
					j, in := s.pop(l)
					if j.item == nil {
						next = earlier(next, now.Add(in))
						break
					}
					start(j, l)
				}
			}
			for _, r := range turns {
				next = earlier(next, r.ends)
			}
			now = next
			ended := func(r running) bool { return !r.ends.After(now) }
			for _, r := range turns {
				if ended(r) {
					r.end()
				}
			}
			turns = slices.DeleteFunc(turns, ended)
		}
	})
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
