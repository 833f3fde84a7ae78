package policy

import (
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func testPolicy(random float64) *policy {
	return &policy{refreshBefore: 10 * time.Minute, random: func() float64 { return random }}
}

func record(generation uint64, obtained time.Time, life time.Duration) *messages.Credential {
	return &messages.Credential{
		AppID: "wx1", Kind: messages.AccessToken, Value: "v" + string(rune('0'+generation)), ObtainedAt: obtained, ExpiresAt: obtained.Add(life),
		RefreshAt: obtained.Add(life - life/3), Generation: generation, Source: messages.SourceStableToken,
	}
}

func TestNextDecides(t *testing.T) {
	t.Parallel()
	rec := record(5, t0, 2*time.Hour)
	planned := store.Ledger{Generation: 5, ValueSHA256: messages.ValueSHA256(rec.Value), NextAttempt: t0.Add(time.Hour), ExpiresAt: rec.ExpiresAt, LastAttempt: t0}
	failing := planned
	failing.Attempts, failing.NextAttempt = 3, t0.Add(30*time.Second)
	refused := failing
	refused.Failure, refused.Refused = &store.Failure{Class: wechat.ClassAccount.String()}, []string{"older", "old"}
	paced := planned
	paced.Pace = t0.Add(90 * time.Minute).Add(paceBurst * paceEvery)
	ahead := planned
	ahead.Generation = 6
	longer := planned
	longer.ExpiresAt = rec.ExpiresAt.Add(15 * time.Minute)
	other := planned
	other.ValueSHA256 = messages.ValueSHA256("minted by another worker")
	aheadAndFailing := failing
	aheadAndFailing.Generation = 6
	clock := planned
	clock.NextAttempt = t0.AddDate(10, 0, 0)
	dead := store.Ledger{Generation: 5, ExpiresAt: t0.Add(-time.Second)}
	deadAndWaiting := dead
	deadAndWaiting.Attempts, deadAndWaiting.NextAttempt = 2, t0.Add(time.Hour)
	told := deadAndWaiting
	told.Expired = 5
	waitingLong := failing
	waitingLong.NextAttempt = t0.Add(5 * time.Hour)
	probedDead := planned
	probedDead.Probe = &store.Probe{At: t0, Generation: 5, Verdict: verdictDead}
	throttled := probedDead
	throttled.LastForced = t0.Add(-10 * time.Second)
	unwritten := store.Ledger{Generation: 4, Attempts: 1, LastAttempt: t0, NextAttempt: t0.Add(time.Second)}
	long := store.Ledger{Generation: 5, NextAttempt: t0.Add(47 * time.Hour), ExpiresAt: t0.Add(48 * time.Hour), LastAttempt: t0}
	fromTheFuture := store.Ledger{Attempts: 3, LastAttempt: t0.Add(3 * time.Hour), NextAttempt: t0.Add(3*time.Hour + time.Minute), Pace: t0.Add(9 * time.Hour)}

	for name, tc := range map[string]struct {
		at   time.Duration
		view view
		want decision
	}{
		"nothing known":                      {0, view{}, decision{fetch, t0, reasonMissing}},
		"ticket without a token":             {0, view{rule: ticketRule}, decision{wait, time.Time{}, reasonNoToken}},
		"ticket with a token":                {0, view{rule: ticketRule, hasToken: true}, decision{fetch, t0, reasonMissing}},
		"fresh":                              {0, view{record: rec, ledger: planned}, decision{wait, t0.Add(time.Hour), reasonFresh}},
		"due":                                {time.Hour, view{record: rec, ledger: planned}, decision{fetch, t0.Add(time.Hour), reasonDue}},
		"ledger lost":                        {0, view{record: rec}, decision{wait, rec.RefreshAt, reasonFresh}},
		"ledger behind":                      {0, view{record: rec, ledger: store.Ledger{Generation: 4, NextAttempt: t0}}, decision{wait, rec.RefreshAt, reasonFresh}},
		"obtained but not published":         {2 * time.Second, view{record: rec, ledger: ahead}, decision{fetch, t0.Add(2 * time.Second), reasonUnpublished}},
		"longer life not published":          {2 * time.Second, view{rule: ticketRule, hasToken: true, record: rec, ledger: longer}, decision{fetch, t0.Add(2 * time.Second), reasonUnpublished}},
		"failed, waiting":                    {0, view{record: rec, ledger: failing}, decision{wait, t0.Add(30 * time.Second), reasonBackoff}},
		"failed, waited":                     {30 * time.Second, view{record: rec, ledger: failing}, decision{fetch, t0.Add(30 * time.Second), reasonRetry}},
		"failed and no record":               {0, view{ledger: failing}, decision{wait, t0.Add(30 * time.Second), reasonBackoff}},
		"refused, settings as then":          {2 * time.Second, view{ledger: refused, settings: "old"}, decision{wait, t0.Add(30 * time.Second), reasonBackoff}},
		"refused, settings changed":          {2 * time.Second, view{ledger: refused, settings: "new"}, decision{fetch, t0.Add(2 * time.Second), reasonNewSettings}},
		"expired in the bucket":              {3 * time.Hour, view{record: rec, ledger: planned}, decision{fetch, t0.Add(3 * time.Hour), reasonExpired}},
		"expired and removed":                {0, view{ledger: dead}, decision{fetch, t0, reasonExpired}},
		"due but paced":                      {time.Hour, view{record: rec, ledger: paced}, decision{wait, t0.Add(90 * time.Minute), reasonPaced}},
		"called a moment ago":                {0, view{ledger: store.Ledger{LastAttempt: t0.Add(-minGap / 2)}}, decision{wait, t0.Add(minGap / 2), reasonPaced}},
		"a wrong clock wrote the ledger":     {2 * time.Second, view{record: rec, ledger: clock}, decision{fetch, t0.Add(2 * time.Second), reasonDue}},
		"expired, and the next try far away": {0, view{ledger: deadAndWaiting}, decision{tell, t0, reasonBackoff}},
		"expired and told":                   {0, view{ledger: told}, decision{wait, t0.Add(time.Hour), reasonBackoff}},
		"expires before the next try":        {2 * time.Second, view{record: rec, ledger: waitingLong}, decision{wait, rec.ExpiresAt, reasonBackoff}},
		"ticket expired, no token":           {0, view{rule: ticketRule, ledger: deadAndWaiting}, decision{tell, t0, reasonNoToken}},
		"WeChat refuses it":                  {2 * time.Second, view{record: rec, ledger: probedDead}, decision{fetch, t0.Add(2 * time.Second), reasonReported}},
		"WeChat refuses it, throttled":       {0, view{record: rec, ledger: throttled}, decision{wait, t0.Add(50 * time.Second), reasonRefused}},
		"success not written down":           {2 * time.Second, view{record: rec, ledger: unwritten}, decision{wait, rec.RefreshAt, reasonFresh}},
		"a life of two days":                 {2 * time.Second, view{record: record(5, t0, 48*time.Hour), ledger: long}, decision{wait, t0.Add(47 * time.Hour), reasonFresh}},
		"a clock ahead wrote the ledger":     {0, view{ledger: fromTheFuture}, decision{fetch, t0, reasonRetry}},
		"record lost, value held":            {0, view{held: rec, ledger: planned}, decision{publish, t0, reasonLost}},
		"record lost, others may hold it":    {0, view{ledger: planned, lostAt: t0}, decision{wait, t0.Add(othersPublish), reasonOthers}},
		"record lost, nobody publishes it":   {othersPublish, view{ledger: planned, lostAt: t0}, decision{fetch, t0.Add(othersPublish), reasonMissing}},
		"record lost, and due soon":          {0, view{ledger: store.Ledger{Generation: 5, ExpiresAt: rec.ExpiresAt, NextAttempt: t0.Add(time.Second)}, lostAt: t0}, decision{wait, t0.Add(time.Second), reasonOthers}},
		"record gone backwards, value held":  {0, view{record: record(4, t0, time.Hour), held: rec, ledger: planned}, decision{publish, t0, reasonLost}},
		"record lost, held value replaced":   {2 * time.Second, view{held: rec, ledger: ahead}, decision{fetch, t0.Add(2 * time.Second), reasonMissing}},
		"record older, held value replaced":  {2 * time.Second, view{record: record(4, t0, time.Hour), held: rec, ledger: ahead}, decision{fetch, t0.Add(2 * time.Second), reasonUnpublished}},
		"lost, held value not the latest":    {2 * time.Second, view{held: rec, ledger: other}, decision{fetch, t0.Add(2 * time.Second), reasonMissing}},
		"lost, replaced, and WeChat fails":   {0, view{held: rec, ledger: aheadAndFailing}, decision{publish, t0, reasonLost}},
		"record lost, held value dead":       {3 * time.Hour, view{held: rec, ledger: planned}, decision{fetch, t0.Add(3 * time.Hour), reasonExpired}},
		"record newer than what is held":     {0, view{record: rec, held: record(4, t0, time.Hour), ledger: planned}, decision{wait, t0.Add(time.Hour), reasonFresh}},
		"lost, held, and a ticket, no token": {0, view{rule: ticketRule, held: rec, ledger: planned}, decision{publish, t0, reasonLost}},
	} {
		now := t0.Add(tc.at)
		got := testPolicy(0).next(now, tc.view)
		if got.action != tc.want.action || got.reason != tc.want.reason || got.action == wait && !got.at.Equal(tc.want.at) || got.action != wait && (got.at.After(now) || got.at.IsZero()) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

// Each kind by its own rule (design §5.8).
func TestPlanFollowsTheRuleOfEachKind(t *testing.T) {
	t.Parallel()
	const life = 2 * time.Hour
	for _, random := range []float64{0, 0.5, 0.999} {
		p := testPolicy(random)
		if end, at := p.plan(classicRule, t0, t0, life, false); !end.Equal(t0.Add(life)) || at.After(end.Add(-10*time.Minute)) || at.Before(end.Add(-13*time.Minute)) {
			t.Errorf("classic: ends %s, refreshed %s", end.Sub(t0), at.Sub(t0))
		}
		if end, at := p.plan(stableRule, t0, t0, life, false); !end.Equal(t0.Add(life)) || at.Before(end.Add(-stableWindow)) || at.After(end.Add(-3*time.Minute)) {
			t.Errorf("stable: ends %s, refreshed %s: want within its last five minutes", end.Sub(t0), at.Sub(t0))
		}
		// The same token, 4 minutes before its end: half of what is left.
		sent := t0.Add(life - 4*time.Minute)
		if _, at := p.plan(stableRule, t0, sent, 4*time.Minute, true); !at.Equal(sent.Add(2*time.Minute)) && at.Before(sent) {
			t.Errorf("stable, same token: asked again after %s", at.Sub(sent))
		}
		// A ticket: looked at every 15 minutes, dead 2 h after its first sight …
		end, at := p.plan(ticketRule, t0, t0, life, false)
		if !end.Equal(t0.Add(life)) || at.After(t0.Add(15*time.Minute)) || at.Before(t0.Add(13*time.Minute)) {
			t.Errorf("ticket: ends %s, looked at %s", end.Sub(t0), at.Sub(t0))
		}
		if again, _ := p.plan(ticketRule, t0, t0.Add(time.Hour), life, true); !again.Equal(end) {
			t.Errorf("ticket seen again after an hour: ends %s, its age counts from the first sight", again.Sub(t0))
		}
		// … and looked at just after that, however the looks before it fell: WeChat turns to a new one then.
		for before := time.Duration(0); before < 14*time.Minute; before += time.Minute {
			if _, at := p.plan(ticketRule, t0, end.Add(-before-time.Second), life, true); at.Before(end) || at.After(end.Add(time.Minute)) {
				t.Errorf("ticket, seen %s before its end: looked at %s after it", before, at.Sub(end))
			}
		}
		// But it is good for as long as WeChat gives it out.
		if later, _ := p.plan(ticketRule, t0, t0.Add(life), life, true); !later.Equal(t0.Add(life + 30*time.Minute)) {
			t.Errorf("ticket still given out at its end: ends %s", later.Sub(t0))
		}
	}
}

func TestSettlePublishesOnChangeOnly(t *testing.T) {
	t.Parallel()
	p := testPolicy(0.5)
	rec := record(5, t0, 2*time.Hour)
	ledger := store.Ledger{Generation: 5, ValueSHA256: messages.ValueSHA256(rec.Value), FirstSeen: t0, Attempts: 2, Failure: &store.Failure{}}
	sent := t0.Add(time.Hour)
	for name, tc := range map[string]struct {
		view       view
		issued     wechat.Issued
		generation uint64
		changed    bool
	}{
		"same value, same end":           {view{rule: stableRule, record: rec}, wechat.Issued{Value: rec.Value, ExpiresIn: time.Hour, SentAt: sent}, 5, false},
		"same value, other end":          {view{rule: stableRule, record: rec}, wechat.Issued{Value: rec.Value, ExpiresIn: 50 * time.Minute, SentAt: sent}, 5, true},
		"new value":                      {view{rule: stableRule, record: rec}, wechat.Issued{Value: "new", ExpiresIn: 2 * time.Hour, SentAt: sent}, 6, true},
		"same value, record lost":        {view{rule: stableRule}, wechat.Issued{Value: rec.Value, ExpiresIn: time.Hour, SentAt: sent}, 5, true},
		"ticket repeated, constant life": {view{rule: ticketRule, record: rec}, wechat.Issued{Value: rec.Value, ExpiresIn: 2 * time.Hour, SentAt: sent}, 5, false},
		"ticket repeated, record lost":   {view{rule: ticketRule}, wechat.Issued{Value: rec.Value, ExpiresIn: 2 * time.Hour, SentAt: sent}, 5, true},
		"an older record's value again":  {view{rule: stableRule, record: record(4, t0, 2*time.Hour)}, wechat.Issued{Value: record(4, t0, 0).Value, ExpiresIn: time.Hour, SentAt: sent}, 6, true},
		"first value":                    {view{rule: classicRule}, wechat.Issued{Value: "new", ExpiresIn: 2 * time.Hour, SentAt: sent}, 6, true},
	} {
		c, changed, l := p.settle(tc.view, ledger, "wx1", messages.AccessToken, tc.issued)
		if c.Generation != tc.generation || changed != tc.changed {
			t.Errorf("%s: generation %d, changed %t; want %d, %t", name, c.Generation, changed, tc.generation, tc.changed)
		}
		if l.Attempts != 0 || l.Failure != nil || !l.NextAttempt.After(sent) || l.Generation != c.Generation {
			t.Errorf("%s: the ledger after a success is %+v", name, l)
		}
		if tc.view.rule == ticketRule && !c.ExpiresAt.Equal(t0.Add(2*time.Hour)) {
			t.Errorf("%s: ends %s, want two hours after the first sight", name, c.ExpiresAt.Sub(t0))
		}
	}
}

// Nobody knows of one, and nobody knows that there is none.
func TestValueThatWeChatGivesOutForMonthsIsPublishedAllTheTime(t *testing.T) {
	t.Parallel()
	for _, r := range []rule{classicRule, stableRule, ticketRule} {
		rec := record(5, t0, 2*time.Hour)
		ledger := store.Ledger{Generation: 5, ValueSHA256: messages.ValueSHA256(rec.Value), FirstSeen: t0}
		for day := range 100 {
			issued := wechat.Issued{Value: rec.Value, ExpiresIn: 2 * time.Hour, SentAt: t0.AddDate(0, 0, day)}
			c, _, l := testPolicy(0).settle(view{rule: r, record: rec}, ledger, "wx1", messages.AccessToken, issued)
			if err := c.Validate(); err != nil || !c.Valid(issued.SentAt) || c.Generation != 5 {
				t.Fatalf("%v, on day %d: %v, %v", r, day, c, err)
			}
			rec, ledger = &c, l
		}
	}
}

func TestRestorePublishesTheNewerValueUnderAHigherGeneration(t *testing.T) {
	t.Parallel()
	held := record(17, t0, 2*time.Hour)
	if c := restore(t0, view{held: held}); c.Value != held.Value || c.Generation != 17 {
		t.Errorf("bucket empty: %v", c)
	}
	older := record(1, t0.Add(-time.Hour), 2*time.Hour)
	if c := restore(t0, view{held: held, record: older}); c.Value != held.Value || c.Generation != 17 {
		t.Errorf("an older value in the bucket: %v", c)
	}
	// Another worker, which knew nothing, fetched anew: its value is the one that WeChat accepts.
	newer := record(1, t0.Add(time.Minute), 2*time.Hour)
	if c := restore(t0.Add(2*time.Minute), view{held: held, record: newer}); c.Value != newer.Value || c.Generation != 18 {
		t.Errorf("a newer value in the bucket: %v", c)
	}
}

func TestReportsKeepAReserveOfTheQuota(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, shanghai)
	ledger := func(calls int) store.Ledger {
		return store.Ledger{Day: day(noon), Calls: calls, LastForced: noon}
	}
	if at := forcedAt(noon, store.Ledger{}, classicRule); !at.IsZero() {
		t.Errorf("the first report has to wait until %s", at)
	}
	if at := forcedAt(noon, ledger(10), classicRule); !at.Equal(noon.Add(forcedGap)) {
		t.Errorf("the second may be served at %s, want a minute later", at)
	}
	if at := forcedAt(noon, ledger(1700), classicRule); !at.After(noon.Add(5 * time.Minute)) {
		t.Errorf("with 100 calls left for 12 hours the next is at %s", at)
	}
	if at := forcedAt(noon, ledger(1800), classicRule); !at.Equal(noon.Add(12 * time.Hour)) {
		t.Errorf("with the reserve reached the next is at %s, want the next day", at)
	}
	yesterday := ledger(1900)
	yesterday.Day = "2026-01-01"
	if at := forcedAt(noon, yesterday, classicRule); at.After(noon.Add(forcedGap)) {
		t.Errorf("yesterday's calls count today: %s", at)
	}
}

func TestRetryAtGrowsAndCaps(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		class     wechat.Class
		first, hi time.Duration
	}{
		{wechat.ClassBusy, retryMin, retryMin + retryMax},
		{wechat.ClassTransport, retryMin, retryMin + retryMax},
		{wechat.ClassBroken, retryMin, retryMin + retryMax},
		{wechat.ClassUnknown, unknownMin, unknownMax + unknownMax/4},
		{wechat.ClassAccount, permanentMin, permanentMax + permanentMax/4},
		{wechat.ClassDailyQuota, quotaWait, quotaWait + quotaWait/4},
	} {
		p := testPolicy(1)
		gap := time.Duration(0)
		for attempt := 1; attempt < 20; attempt++ {
			next := p.retryAt(t0, tc.class, 0, attempt).Sub(t0)
			if next < gap || next < tc.first || next > tc.hi {
				t.Errorf("%s, attempt %d: %s after %s, want growing within [%s, %s]", tc.class, attempt, next, gap, tc.first, tc.hi)
			}
			gap = next
		}
		if gap != tc.hi {
			t.Errorf("%s: grown to %s, want the cap %s", tc.class, gap, tc.hi)
		}
		if soonest := testPolicy(0).retryAt(t0, tc.class, 0, 19).Sub(t0); soonest < min(tc.first, retryMin) {
			t.Errorf("%s: jitter brings a retry after %s", tc.class, soonest)
		}
		if asked := p.retryAt(t0, tc.class, 24*time.Hour, 1).Sub(t0); asked < 24*time.Hour {
			t.Errorf("%s: WeChat asked for a day, the retry comes after %s", tc.class, asked)
		}
	}
}
