package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// switchedNATS takes what is published while it is on.
type switchedNATS struct {
	on   bool
	sent []messages.Event
}

func (s *switchedNATS) Publish(_ string, data []byte) error {
	var e messages.Event
	if err := json.Unmarshal(data, &e); err != nil || !s.on {
		return errors.Join(err, nats.ErrConnectionReconnecting)
	}
	s.sent = append(s.sent, e)
	return nil
}

func (s *switchedNATS) names() (names []string) {
	for _, e := range s.sent {
		names = append(names, e.Event)
	}
	return names
}

// Each event is published once, and later if it cannot be published at once.
func TestWhatKeepsAWorkerFromRefreshingIsToldOnceAndLaterIfNecessary(t *testing.T) {
	t.Parallel()
	ledger := store.Ledger{AppID: appid, Kind: messages.AccessToken, Generation: 7, ExpiresAt: t0.Add(time.Minute)}
	a := &Account{AppID: appid, Secret: secret}
	for name, tt := range map[string]struct {
		turns int
		on    func(turn int) bool // after the last turn NATS is on
		step  time.Duration
		want  []string
	}{
		"one turn":         {1, func(int) bool { return true }, time.Second, nil},
		"two turns":        {2, func(int) bool { return true }, time.Second, []string{"failed", "recovered"}},
		"many turns":       {9, func(int) bool { return true }, time.Second, []string{"failed", "recovered"}},
		"while NATS is on": {9, func(n int) bool { return n > 5 }, time.Second, []string{"failed", "recovered"}},
		"never meanwhile":  {9, func(int) bool { return false }, time.Second, []string{"failed", "recovered"}},
		"until the end":    {9, func(int) bool { return true }, 20 * time.Second, []string{"failed", "expired", "recovered"}},
	} {
		log, now, sent := slog.New(slog.DiscardHandler), t0, new(switchedNATS)
		clock := func() time.Time { return now }
		m := newMemory(clock, log)
		m.observeLedger(ledger)
		metrics, err := newMetrics(prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		r := &refresher{memory: m, clock: systemClock{clock}, metrics: metrics, log: log,
			events: &events{nats: sent, prefix: "wechat", now: clock, log: log}}
		var o *obstacle
		for n := range tt.turns {
			now, sent.on = now.Add(tt.step), tt.on(n)
			o = r.giveUp(t.Context(), a, messages.AccessToken, o, disconnected)
		}
		now, sent.on = now.Add(time.Second), true
		r.overcome(a, messages.AccessToken, o, true)
		checkDiff(t, name, sent.names(), tt.want)
		for _, e := range sent.sent {
			if e.Event == "failed" && (e.Class != "disconnected" || e.Advice == "" || e.Attempts < 2) {
				t.Errorf("%s: the event is %+v", name, e)
			}
			if late := name == "never meanwhile"; e.Event == "failed" && late != strings.Contains(e.Message, " (from ") {
				t.Errorf("%s: the message is %s", name, e.Message)
			}
		}
	}
}

// One account makes no worker unready. What two accounts meet, or the only one, is NATS.
func TestWorkerIsUnreadyIfNATSKeepsItFromRefreshingAnything(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	stuck := &obstacle{reason: messages.ReasonUnwritable, since: at, turns: 2, cause: cause{message: "full"}}
	once := &obstacle{reason: messages.ReasonUnwritable, since: at, turns: 1, cause: cause{message: "full"}}
	held := &obstacle{reason: messages.ReasonLeaseHeld, since: at, turns: 5, cause: cause{message: "held"}}
	for name, tt := range map[string]struct {
		obstacles  []*obstacle // of the accounts
		tookAt     time.Time
		due        int
		everywhere bool
	}{
		"nothing":                       {[]*obstacle{nil, nil}, at, 0, false},
		"one of three accounts":         {[]*obstacle{stuck, nil, nil}, at.Add(-1), 1, false},
		"two of three accounts":         {[]*obstacle{stuck, stuck, nil}, at.Add(-1), 2, true},
		"the only account":              {[]*obstacle{stuck}, at.Add(-1), 1, true},
		"the only account, a moment":    {[]*obstacle{once}, at.Add(-1), 1, false},
		"leases":                        {[]*obstacle{held, held}, at.Add(-1), 2, false},
		"a turn was completed since":    {[]*obstacle{stuck, stuck}, at.Add(1), 2, false},
		"the first turns of the worker": {[]*obstacle{stuck, stuck}, time.Time{}, 2, true},
	} {
		s := &scheduler{items: map[string]*item{}, tookAt: tt.tookAt}
		for i, o := range tt.obstacles {
			s.items[fmt.Sprint(i)] = &item{account: &Account{AppID: fmt.Sprint("wx", i)}, last: ending{obstacle: o}}
		}
		got := s.trouble()
		if got.credentials != tt.due || got.everywhere != tt.everywhere {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestObstacleMattersUntilTheWorkIsDone(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o := &obstacle{since: at.Add(-time.Minute), last: at}
	failed := func(at time.Time) *store.Failure { return &store.Failure{At: at} }
	for name, tt := range map[string]struct {
		action policy.Action
		ledger store.Ledger
		want   bool
	}{
		"a call is due":              {policy.Fetch, store.Ledger{}, true},
		"an expiry is to be noted":   {policy.NoteExpiry, store.Ledger{}, true},
		"done by another worker":     {policy.Wait, store.Ledger{LastAttempt: at.Add(1)}, false},
		"begun, outcome not written": {policy.Wait, store.Ledger{Attempts: 1, LastAttempt: at.Add(-1)}, true},
		"begun by another worker":    {policy.Wait, store.Ledger{Attempts: 1, LastAttempt: at.Add(1)}, false},
		"failed, and written": {
			policy.Wait, store.Ledger{Attempts: 1, LastAttempt: at.Add(-2), Failure: failed(at.Add(-1))}, false,
		},
		"failed before, outcome not written": {
			policy.Wait, store.Ledger{Attempts: 2, LastAttempt: at.Add(-1), Failure: failed(at.Add(-2))}, true,
		},
	} {
		if got := o.matters(policy.Decision{Action: tt.action}, tt.ledger); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// The advice tells a full storage from a lost quorum and from a missing permission.
func TestAdviceForABucketThatIsNotWritableNamesTheCause(t *testing.T) {
	t.Parallel()
	api := func(code int, errorCode jetstream.ErrorCode) error {
		return &jetstream.APIError{Code: code, ErrorCode: errorCode}
	}
	for name, tt := range map[string]struct {
		err       error
		violation string
		want      string
	}{
		"no answer":              {errors.New("context deadline exceeded"), "", adviceQuorum},
		"no leader":              {api(503, 10008), "", adviceQuorum},
		"full account":           {api(400, 10002), "", adviceRefused},
		"full stream":            {api(400, 10077), "", adviceRefused},
		"no server with storage": {api(503, 10023), "", adviceRefused},
		"permission":             {errors.New("timeout"), "Permissions Violation", advicePermissions},
		"full, with another use that is not permitted": {api(400, 10077), "Permissions Violation", adviceRefused},
	} {
		o := unwritable(fmt.Errorf("write: %w", tt.err), tt.violation)
		if named := strings.Contains(o.cause.message, "Violation"); o.cause.advice != tt.want ||
			named != (tt.want == advicePermissions) {
			t.Errorf("%s: %+v", name, o.cause)
		}
	}
}
