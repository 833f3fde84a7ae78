package worker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// newTestScheduler has accounts with classic tokens, of which the first ones have failed time and again, and are due.
func newTestScheduler(t rapid.TB, concurrency, bad, good int, now func() time.Time) *scheduler {
	reader, err := kv.NewReader(new(nats.Conn), kv.ReaderConfig{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	s := newScheduler(concurrency)
	s.policy, s.reader, s.now, s.log = testPolicy(0.5), reader, now, slog.New(slog.DiscardHandler)
	as := map[string]*Account{}
	for i := range bad + good {
		a := &Account{AppID: fmt.Sprint("wx", i), Secret: "secret", TokenAPI: messages.SourceToken}
		l := store.Ledger{AppID: a.AppID, Kind: messages.AccessToken}
		if i < bad {
			a.Name, l.Attempts, l.NextAttempt = "bad", 5, now()
		}
		s.learnLedger(l)
		as[a.AppID] = a
	}
	s.setAccounts(as)
	return s
}

// A turn that hangs, in mid-call and for ever, takes no room from what is well.
func TestHangingTurnLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	s := newTestScheduler(t, 1, 3, 3, time.Now)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	served := make(chan string, 3)
	s.work = func(ctx context.Context, a *Account, _ messages.Kind, _ bool) (time.Duration, bool) {
		if a.Name != "bad" {
			served <- a.AppID
		} else {
			<-ctx.Done()
		}
		return time.Hour, false
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); s.run(ctx) }()
	for range 3 {
		select {
		case <-served:
		case <-ctx.Done():
			t.Fatal("a good account gets no turn")
		}
	}
	cancel()
	<-stopped
}

// Accounts whose calls hang until they are given up, again and again, do not delay the others: those wait for their like
// alone, however many the bad ones are (design §5.4). The real scheduler is asked here what to do next, in virtual time.
func TestBadAccountDoesNotDelayOthers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		concurrency := rapid.IntRange(1, 32).Draw(t, "concurrency")
		bad, good := rapid.IntRange(1, 50).Draw(t, "bad accounts"), rapid.IntRange(1, 10).Draw(t, "good accounts")
		hangs := time.Duration(rapid.IntRange(0, 9).Draw(t, "a bad call takes seconds")) * time.Second
		const takes = 100 * time.Millisecond // a good call
		now := t0
		s := newTestScheduler(t, concurrency, bad, good, func() time.Time { return now })

		type turn struct {
			ends time.Time
			lane *lane
			end  func()
		}
		var running []turn
		begin := func(it *item, l *lane) {
			waited := now.Sub(it.next.at)
			ledger := s.policy.begin(now, view{ledger: it.ledger}, it.next.reason)
			s.seenLedger(ledger)
			if it.account.Name == "bad" {
				running = append(running, turn{now.Add(hangs), l, func() {
					s.seenLedger(s.policy.fail(now, ledger, store.Failure{}, wechat.ClassTransport, 0, ""))
					s.done(it, 0, false)
				}})
				return
			}
			if most := time.Duration(good) * takes; waited > most {
				t.Fatalf("%s: a good account waits for %s, want at most %s", now.Sub(t0), waited, most)
			}
			sent := now
			running = append(running, turn{now.Add(takes), l, func() {
				c, _, ledger := s.policy.settle(view{}, ledger, it.account.AppID, it.kind, wechat.Issued{
					Value: fmt.Sprint("value", ledger.Generation), ExpiresIn: 3 * time.Minute, SentAt: sent,
				})
				s.seenLedger(ledger)
				s.seenRecord(&c)
				s.done(it, 0, false)
			}})
		}
		for now.Before(t0.Add(5 * time.Minute)) {
			next := now.Add(idle)
			for _, l := range s.lanes {
				busy := 0
				for _, r := range running {
					if r.lane == l {
						busy++
					}
				}
				for ; busy < cap(l.slots); busy++ {
					it, _, in := s.pop(l)
					if it == nil {
						next = slices.MinFunc([]time.Time{next, now.Add(in)}, time.Time.Compare)
						break
					}
					begin(it, l)
				}
			}
			for _, r := range running {
				next = slices.MinFunc([]time.Time{next, r.ends}, time.Time.Compare)
			}
			now = next
			for i := 0; i < len(running); {
				if r := running[i]; !r.ends.After(now) {
					running = slices.Delete(running, i, i+1)
					r.end()
				} else {
					i++
				}
			}
		}
	})
}
