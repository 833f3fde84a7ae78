package policy

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// testPolicy is a Policy whose jitter is always the same part of its range.
func testPolicy(random float64) *Policy {
	return &Policy{RefreshBefore: 10 * time.Minute, Random: func() float64 { return random }}
}

// record is an access_token of the account wx1. Each generation has a value of its own.
func record(generation uint64, obtained time.Time, life time.Duration) *messages.Credential {
	return &messages.Credential{
		AppID: "wx1", Kind: messages.AccessToken, Value: fmt.Sprint("v", generation),
		ObtainedAt: obtained, ExpiresAt: obtained.Add(life), RefreshAt: obtained.Add(life - life/3),
		Generation: generation, Source: messages.SourceStableToken,
	}
}

// with returns a changed copy of a ledger entry.
func with(l store.Ledger, change func(*store.Ledger)) store.Ledger {
	change(&l)
	return l
}

func TestNextDecides(t *testing.T) {
	t.Parallel()
	const soon = 2 * time.Second
	rec, older := record(5, t0, 2*time.Hour), record(4, t0, time.Hour)
	end := rec.ExpiresAt

	// The last refresh succeeded; the next one is planned in an hour.
	planned := store.Ledger{
		Generation: 5, ValueSHA256: messages.ValueSHA256(rec.Value),
		NextAttempt: t0.Add(time.Hour), ExpiresAt: end, LastAttempt: t0,
	}
	failing := with(planned, func(l *store.Ledger) { l.Attempts, l.NextAttempt = 3, t0.Add(30*time.Second) })
	waitingLong := with(failing, func(l *store.Ledger) { l.NextAttempt = t0.Add(5 * time.Hour) })
	refusedAccount := with(failing, func(l *store.Ledger) {
		l.Failure, l.Refused = &store.Failure{Class: wechat.ClassAccount}, []string{"older", "old"}
	})
	paced := with(planned, func(l *store.Ledger) { l.Pace = t0.Add(3*time.Hour - time.Second) })
	// Another worker obtained generation 6 and did not publish it.
	ahead := with(planned, func(l *store.Ledger) { l.Generation = 6 })
	aheadAndFailing := with(failing, func(l *store.Ledger) { l.Generation = 6 })
	longerLife := with(planned, func(l *store.Ledger) { l.ExpiresAt = end.Add(15 * time.Minute) })
	otherValue := with(planned, func(l *store.Ledger) { l.ValueSHA256 = messages.ValueSHA256("of another worker") })
	expired := store.Ledger{Generation: 5, ExpiresAt: t0.Add(-time.Second)}
	expiredAndWaiting := with(expired, func(l *store.Ledger) { l.Attempts, l.NextAttempt = 2, t0.Add(time.Hour) })
	expiryNoted := with(expiredAndWaiting, func(l *store.Ledger) { l.Expired = 5 })
	probedDead := with(planned, func(l *store.Ledger) {
		l.Probe = &store.Probe{At: t0, Generation: 5, Verdict: store.Dead}
	})
	throttled := with(probedDead, func(l *store.Ledger) { l.LastForced = t0.Add(-10 * time.Second) })
	unwritten := store.Ledger{Generation: 4, Attempts: 1, LastAttempt: t0, NextAttempt: t0.Add(time.Second)}
	lostAndDueSoon := store.Ledger{Generation: 5, ExpiresAt: end, NextAttempt: t0.Add(time.Second)}
	justObtained := with(planned, func(l *store.Ledger) { l.LastSuccess = t0 })
	twoDays := store.Ledger{
		Generation: 5, NextAttempt: t0.Add(47 * time.Hour), ExpiresAt: t0.Add(48 * time.Hour), LastAttempt: t0,
	}
	farNextAttempt := with(planned, func(l *store.Ledger) { l.NextAttempt = t0.AddDate(10, 0, 0) })
	clockAhead := store.Ledger{
		Attempts: 3, LastAttempt: t0.Add(3 * time.Hour), NextAttempt: t0.Add(3*time.Hour + time.Minute),
		Pace: t0.Add(9 * time.Hour),
	}
	justCalled := store.Ledger{LastAttempt: t0.Add(-MinGap / 2)}

	wait := func(at time.Time, why messages.Reason) Decision { return Decision{Wait, at, why} }
	now := func(what Action, why messages.Reason) Decision { return Decision{what, time.Time{}, why} }
	for name, tc := range map[string]struct {
		at   time.Duration // after t0
		view View
		want Decision // At is the time of the decision, unless it is to wait
	}{
		"nothing known": {0, View{}, now(Fetch, messages.ReasonMissing)},
		"fresh": {
			0, View{Record: rec, Ledger: planned}, wait(t0.Add(time.Hour), messages.ReasonFresh),
		},
		"due": {time.Hour, View{Record: rec, Ledger: planned}, now(Fetch, messages.ReasonDue)},
		"a life of two days": {
			soon, View{Record: record(5, t0, 48*time.Hour), Ledger: twoDays},
			wait(t0.Add(47*time.Hour), messages.ReasonFresh),
		},
		"record newer than the held value": {
			0, View{Record: rec, Held: older, Ledger: planned}, wait(t0.Add(time.Hour), messages.ReasonFresh),
		},

		"ticket without a token": {0, View{Rule: Ticket}, wait(time.Time{}, messages.ReasonNoToken)},
		"ticket with a token":    {0, View{Rule: Ticket, HasToken: true}, now(Fetch, messages.ReasonMissing)},

		"failed, waiting": {
			0, View{Record: rec, Ledger: failing}, wait(t0.Add(30*time.Second), messages.ReasonBackoff),
		},
		"failed, waited": {30 * time.Second, View{Record: rec, Ledger: failing}, now(Fetch, messages.ReasonRetry)},
		"failed, no record": {
			0, View{Ledger: failing}, wait(t0.Add(30*time.Second), messages.ReasonBackoff),
		},
		"account refused, settings unchanged": {
			soon, View{Ledger: refusedAccount, Settings: "old"}, wait(t0.Add(30*time.Second), messages.ReasonBackoff),
		},
		"account refused, settings changed": {
			soon, View{Ledger: refusedAccount, Settings: "new"}, now(Fetch, messages.ReasonNewSettings),
		},
		"due, but paced": {
			time.Hour, View{Record: rec, Ledger: paced}, wait(t0.Add(61*time.Minute-time.Second), messages.ReasonPaced),
		},
		"called a moment ago": {0, View{Ledger: justCalled}, wait(t0.Add(MinGap/2), messages.ReasonPaced)},

		"expired in the bucket": {3 * time.Hour, View{Record: rec, Ledger: planned},
			now(Fetch, messages.ReasonExpired)},
		"expired and removed": {0, View{Ledger: expired}, now(Fetch, messages.ReasonExpired)},
		"expired, next attempt far away": {
			0, View{Ledger: expiredAndWaiting}, now(NoteExpiry, messages.ReasonBackoff),
		},
		"expired, and noted": {0, View{Ledger: expiryNoted}, wait(t0.Add(time.Hour), messages.ReasonBackoff)},
		"expires before the next attempt": {
			soon, View{Record: rec, Ledger: waitingLong}, wait(end, messages.ReasonBackoff),
		},
		"ticket expired, no token": {
			0, View{Rule: Ticket, Ledger: expiredAndWaiting}, now(NoteExpiry, messages.ReasonNoToken),
		},

		"WeChat refuses it": {soon, View{Record: rec, Ledger: probedDead}, now(Fetch, messages.ReasonReported)},
		"WeChat refuses it, throttled": {
			0, View{Record: rec, Ledger: throttled}, wait(t0.Add(50*time.Second), messages.ReasonRefused),
		},

		"ledger entry lost": {0, View{Record: rec}, wait(rec.RefreshAt, messages.ReasonFresh)},
		"ledger entry lost, and remembered": {
			0, View{Record: rec, Ledger: planned, EntryLost: true}, now(RewriteEntry, messages.ReasonForgotten),
		},
		"ledger entry behind": {
			0, View{Record: rec, Ledger: store.Ledger{Generation: 4, NextAttempt: t0}},
			wait(rec.RefreshAt, messages.ReasonFresh),
		},
		"success not written down": {
			soon, View{Record: rec, Ledger: unwritten}, wait(rec.RefreshAt, messages.ReasonFresh),
		},
		"obtained but not published": {soon, View{Record: rec, Ledger: ahead}, now(Fetch, messages.ReasonUnpublished)},
		"longer life not published": {
			soon, View{Rule: Ticket, HasToken: true, Record: rec, Ledger: longerLife},
			now(Fetch, messages.ReasonUnpublished),
		},
		"a wrong clock wrote the next attempt": {
			soon, View{Record: rec, Ledger: farNextAttempt}, now(Fetch, messages.ReasonDue),
		},
		"a clock ahead wrote the ledger entry": {0, View{Ledger: clockAhead}, now(Fetch, messages.ReasonRetry)},

		"record lost, value held": {0, View{Held: rec, Ledger: planned}, now(Republish, messages.ReasonLost)},
		"record lost, value held, ticket without a token": {
			0, View{Rule: Ticket, Held: rec, Ledger: planned}, now(Republish, messages.ReasonLost),
		},
		"record gone back, value held": {
			0, View{Record: older, Held: rec, Ledger: planned}, now(Republish, messages.ReasonLost),
		},
		"record lost, others may hold it": {
			0, View{Ledger: planned, LostAt: t0}, wait(t0.Add(othersPublish), messages.ReasonOthers),
		},
		"record lost again, others may hold it": {
			0, View{Ledger: justObtained, LostAt: t0.Add(-time.Hour)},
			wait(t0.Add(othersPublish), messages.ReasonOthers),
		},
		"record lost, no other worker publishes it": {
			othersPublish, View{Ledger: planned, LostAt: t0}, now(Fetch, messages.ReasonMissing),
		},
		"record lost, and due soon": {
			0, View{Ledger: lostAndDueSoon, LostAt: t0}, wait(t0.Add(time.Second), messages.ReasonOthers),
		},
		"record lost, held value replaced": {soon, View{Held: rec, Ledger: ahead}, now(Fetch, messages.ReasonMissing)},
		"record older, held value replaced": {
			soon, View{Record: older, Held: rec, Ledger: ahead}, now(Fetch, messages.ReasonUnpublished),
		},
		"record lost, held value not the latest": {
			soon, View{Held: rec, Ledger: otherValue}, now(Fetch, messages.ReasonMissing),
		},
		"record lost, held value replaced, WeChat fails": {
			0, View{Held: rec, Ledger: aheadAndFailing}, now(Republish, messages.ReasonLost),
		},
		"record lost, held value expired": {
			3 * time.Hour, View{Held: rec, Ledger: planned}, now(Fetch, messages.ReasonExpired),
		},
	} {
		at := t0.Add(tc.at)
		if tc.want.Action != Wait {
			tc.want.At = at
		}
		if diff := cmp.Diff(tc.want, testPolicy(0).Next(at, tc.view)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Each kind has a rule of its own (docs/architecture.md#refresh-8).
func TestPlanFollowsTheRuleOfEachKind(t *testing.T) {
	t.Parallel()
	const life = 2 * time.Hour
	end := t0.Add(life)
	for _, random := range []float64{0, 0.5, 0.999} {
		p := testPolicy(random)
		// within checks a time that depends on the jitter.
		within := func(what string, got, from, to time.Time) {
			t.Helper()
			if got.Before(from) || got.After(to) {
				t.Errorf("%s, jitter %v: %s after the first sight, want %s to %s",
					what, random, got.Sub(t0), from.Sub(t0), to.Sub(t0))
			}
		}
		exactly := func(what string, got, want time.Time) {
			t.Helper()
			within(what, got, want, want)
		}

		expires, refresh := p.plan(Classic, t0, t0, life, false)
		exactly("the end of a classic token", expires, end)
		within("the renewal of a classic token", refresh, end.Add(-13*time.Minute), end.Add(-10*time.Minute))

		expires, refresh = p.plan(Stable, t0, t0, life, false)
		exactly("the end of a stable token", expires, end)
		within("the renewal of a stable token", refresh, end.Add(-stableWindow), end.Add(-3*time.Minute))
		// WeChat repeated the token 4 minutes before its end. With little jitter the planned renewal is over
		// already: WeChat is then asked after half of the time that is left.
		sent := end.Add(-4 * time.Minute)
		_, refresh = p.plan(Stable, t0, sent, 4*time.Minute, true)
		within("the renewal of a stable token that WeChat repeated", refresh, sent, sent.Add(2*time.Minute))

		// WeChat is asked for a ticket every 15 minutes, and the ticket ends 2 h after its first sight.
		expires, refresh = p.plan(Ticket, t0, t0, life, false)
		exactly("the end of a ticket", expires, end)
		within("the next call for a ticket", refresh, t0.Add(13*time.Minute), t0.Add(15*time.Minute))
		expires, _ = p.plan(Ticket, t0, t0.Add(time.Hour), life, true)
		exactly("the end of a ticket that WeChat repeated after an hour", expires, end)
		// WeChat rotates to a new ticket at that end, so it is asked just after it, whenever the last call was.
		for before := time.Duration(0); before < 14*time.Minute; before += time.Minute {
			_, refresh = p.plan(Ticket, t0, end.Add(-before-time.Second), life, true)
			within("the first call after the end of a ticket", refresh, end, end.Add(time.Minute))
		}
		// A ticket that WeChat still issues is valid, even after that end.
		expires, _ = p.plan(Ticket, t0, end, life, true)
		exactly("the end of a ticket that WeChat repeated at its end", expires, end.Add(30*time.Minute))
	}
}

func TestSucceedPublishesOnChangeOnly(t *testing.T) {
	t.Parallel()
	p := testPolicy(0.5)
	rec, older := record(5, t0, 2*time.Hour), record(4, t0, 2*time.Hour)
	before := store.Ledger{
		Generation: 5, ValueSHA256: messages.ValueSHA256(rec.Value), FirstSeen: t0, Attempts: 2,
		Failure: &store.Failure{},
	}
	sent := t0.Add(time.Hour)
	for name, tc := range map[string]struct {
		view       View
		value      string
		expiresIn  time.Duration
		generation uint64
		isNew      bool
	}{
		"same value, same end":         {View{Rule: Stable, Record: rec}, rec.Value, time.Hour, 5, false},
		"same value, other end":        {View{Rule: Stable, Record: rec}, rec.Value, 50 * time.Minute, 5, true},
		"same value, record lost":      {View{Rule: Stable}, rec.Value, time.Hour, 5, true},
		"new value":                    {View{Rule: Stable, Record: rec}, "new", 2 * time.Hour, 6, true},
		"first value":                  {View{Rule: Classic}, "new", 2 * time.Hour, 6, true},
		"an older record's value":      {View{Rule: Stable, Record: older}, older.Value, time.Hour, 6, true},
		"repeated ticket":              {View{Rule: Ticket, Record: rec}, rec.Value, 2 * time.Hour, 5, false},
		"repeated ticket, record lost": {View{Rule: Ticket}, rec.Value, 2 * time.Hour, 5, true},
	} {
		issued := wechat.Issued{Value: tc.value, ExpiresIn: tc.expiresIn, SentAt: sent}
		c, isNew, after := p.Succeed(tc.view, before, "wx1", messages.AccessToken, issued)
		if c.Generation != tc.generation {
			t.Errorf("%s: generation %d, want %d", name, c.Generation, tc.generation)
		}
		if isNew != tc.isNew {
			t.Errorf("%s: the record must be published: %t, want %t", name, isNew, tc.isNew)
		}
		// The expiry of a ticket counts from its first sight, whether the record was lost or not.
		wantEnd := sent.Add(tc.expiresIn)
		if tc.view.Rule == Ticket {
			wantEnd = t0.Add(tc.expiresIn)
		}
		if !c.ExpiresAt.Equal(wantEnd) {
			t.Errorf("%s: the value ends at %s, want %s", name, c.ExpiresAt, wantEnd)
		}
		if !after.NextAttempt.After(sent) {
			t.Errorf("%s: the next attempt is at %s, which is not after the call", name, after.NextAttempt)
		}
		want := store.Ledger{
			Generation: tc.generation, ValueSHA256: messages.ValueSHA256(tc.value), FirstSeen: c.ObtainedAt,
			ExpiresAt: wantEnd, NextAttempt: after.NextAttempt,
		}
		if diff := cmp.Diff(want, after); diff != "" {
			t.Errorf("%s: the ledger entry after the success (-want +got):\n%s", name, diff)
		}
	}
}

// WeChat's documents say neither that this happens nor that it does not.
func TestValueThatWeChatRepeatsForMonthsStaysPublished(t *testing.T) {
	t.Parallel()
	for _, rule := range []Rule{Classic, Stable, Ticket} {
		rec := record(5, t0, 2*time.Hour)
		ledger := store.Ledger{Generation: 5, ValueSHA256: messages.ValueSHA256(rec.Value), FirstSeen: t0}
		for day := range 100 {
			issued := wechat.Issued{Value: rec.Value, ExpiresIn: 2 * time.Hour, SentAt: t0.AddDate(0, 0, day)}
			c, _, after := testPolicy(0).Succeed(View{Rule: rule, Record: rec}, ledger, "wx1", messages.AccessToken,
				issued)
			if err := c.Validate(); err != nil {
				t.Fatalf("rule %v, day %d: %v", rule, day, err)
			}
			if !c.Valid(issued.SentAt) {
				t.Fatalf("rule %v, day %d: the value has expired: %v", rule, day, c)
			}
			if c.Generation != 5 {
				t.Fatalf("rule %v, day %d: generation %d, want 5", rule, day, c.Generation)
			}
			rec, ledger = &c, after
		}
	}
}

func TestRestoredIsTheNewerValueWithAHigherGeneration(t *testing.T) {
	t.Parallel()
	held := record(17, t0, 2*time.Hour)
	older := record(1, t0.Add(-time.Hour), 2*time.Hour)
	// A worker that knew nothing fetched this one, so it is the value that WeChat accepts.
	newer := record(1, t0.Add(time.Minute), 2*time.Hour)
	wanted := *newer
	wanted.Generation = 18
	for name, tc := range map[string]struct {
		record *messages.Credential
		want   messages.Credential
	}{
		"the bucket is empty":           {nil, *held},
		"the bucket has an older value": {older, *held},
		"the bucket has a newer value":  {newer, wanted},
	} {
		got := Restored(t0.Add(2*time.Minute), View{Held: held, Record: tc.record})
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestReportsKeepAReserveOfTheQuota(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, shanghai)
	midnight := noon.Add(12 * time.Hour)
	forced := func(calls int, day string) store.Ledger {
		return store.Ledger{Day: day, Calls: calls, LastForced: noon}
	}
	const today, yesterday = "2026-01-02", "2026-01-01"
	for name, tc := range map[string]struct {
		ledger   store.Ledger
		from, to time.Time
	}{
		"the first report":                     {store.Ledger{}, time.Time{}, time.Time{}},
		"the second report":                    {forced(10, today), noon.Add(forcedGap), noon.Add(forcedGap)},
		"half of the quota is used":            {forced(1000, today), noon.Add(forcedGap), noon.Add(forcedGap)},
		"100 calls are left for 12 hours":      {forced(1700, today), noon.Add(5 * time.Minute), midnight},
		"the reserve is reached":               {forced(1800, today), midnight, midnight},
		"the calls were made yesterday":        {forced(1900, yesterday), noon, noon.Add(forcedGap)},
		"a clock that is ahead wrote the time": {store.Ledger{LastForced: midnight}, time.Time{}, time.Time{}},
	} {
		if at := forcedAt(noon, tc.ledger, Classic, false); at.Before(tc.from) || at.After(tc.to) {
			t.Errorf("%s: the next report may cause a refresh at %s, want %s to %s", name, at, tc.from, tc.to)
		}
	}
}

func TestRetryAtGrowsAndCaps(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		class      wechat.Class
		first, cap time.Duration
	}{
		{wechat.ClassBusy, RetryMin, RetryMin + retryMax},
		{wechat.ClassTransport, RetryMin, RetryMin + retryMax},
		{wechat.ClassBroken, RetryMin, RetryMin + retryMax},
		{wechat.ClassUnknown, unknownMin, unknownMax + unknownMax/4},
		{wechat.ClassAccount, PermanentMin, permanentMax + permanentMax/4},
		{wechat.ClassDailyQuota, QuotaWait, QuotaWait + QuotaWait/4},
	} {
		mostJitter, noJitter := testPolicy(1), testPolicy(0)
		previous := time.Duration(0)
		for attempt := 1; attempt < 20; attempt++ {
			wait := mostJitter.retryAt(t0, tc.class, 0, attempt).Sub(t0)
			if wait < previous {
				t.Errorf("%s, attempt %d: a wait of %s after one of %s", tc.class, attempt, wait, previous)
			}
			if wait < tc.first || wait > tc.cap {
				t.Errorf("%s, attempt %d: a wait of %s, want %s to %s", tc.class, attempt, wait, tc.first, tc.cap)
			}
			previous = wait
		}
		if previous != tc.cap {
			t.Errorf("%s: the wait has grown to %s, want %s", tc.class, previous, tc.cap)
		}
		if wait := noJitter.retryAt(t0, tc.class, 0, 19).Sub(t0); wait < min(tc.first, RetryMin) {
			t.Errorf("%s: without jitter a wait of %s, want at least %s", tc.class, wait, min(tc.first, RetryMin))
		}
		if wait := mostJitter.retryAt(t0, tc.class, 24*time.Hour, 1).Sub(t0); wait < 24*time.Hour {
			t.Errorf("%s: WeChat asked for a wait of a day, got %s", tc.class, wait)
		}
	}
}

// A stable token is asked for once in each life: in the part of its life in which WeChat issues a new one, also if that
// is short, expires_in is cut to whole seconds, and the answer took half a second.
func TestStableTokenIsAskedForWithinWeChatsWindow(t *testing.T) {
	t.Parallel()
	for life := 15 * time.Second; life <= 2*time.Hour; life += 7 * time.Second {
		window := min(stableWindow, life/3)
		for _, random := range []float64{0, 0.5, 0.999} {
			for _, latency := range []time.Duration{0, 10 * time.Millisecond, 500 * time.Millisecond} {
				p := &Policy{Random: func() float64 { return random }}
				end := t0.Add(latency).Add(life)
				expiresIn := end.Sub(t0.Add(2 * latency)).Truncate(time.Second)
				_, refresh := p.plan(Stable, t0, t0, expiresIn, false)
				if left := end.Sub(refresh); left > window || left < window/5 {
					t.Fatalf("a token of %s is asked for %s before its end, want within %s (latency %s, jitter %g)", life, left,
						window, latency, random)
				}
			}
		}
	}
}
