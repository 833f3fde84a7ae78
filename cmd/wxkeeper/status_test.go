package main

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/messages"
)

func TestStatusPrintsWhatIsWrongAndWhatToDo(t *testing.T) {
	t.Parallel()
	st := messages.Status{
		Worker: "w", Version: "1.2", Time: noon, Accounts: 2,
		Summary: map[messages.State]int{"expired": 1, "missing": 3, "refused": 1, "failing": 2, "not_permitted": 1,
			"fresh": 2},
		Credentials: []messages.CredentialStatus{
			{
				AppID: "wx2", Name: "shop", Kind: "access_token", State: "expired", Reason: "backoff",
				ExpiresAt:   noon.Add(-12 * time.Minute),
				NextAttempt: noon.Add(34 * time.Second), LastAttempt: noon.Add(-26 * time.Second), Attempts: 5,
				CallsToday: 41,
				Error:      "stable_token: WeChat refused: errcode 40164 \"invalid ip\"", RID: "6789",
				Advice: "put 203.0.113.7 on the IP white list",
			},
			{AppID: "wx2", Name: "shop", Kind: "jsapi_ticket", State: "missing", Reason: "no_token"},
			{AppID: "wx2", Name: "shop", Kind: "wx_card_ticket", State: "missing", Reason: "no_token"},
			{AppID: "wx3", Kind: "jsapi_ticket", State: "missing", Reason: "no_token"},
			{
				AppID: "wx3", Kind: "access_token", State: "refused", Reason: "refused",
				ExpiresAt: noon.Add(time.Hour), NextAttempt: noon.Add(time.Minute),
				Conflicts: 2, LastConflict: noon.Add(-200 * time.Second),
			},
			{AppID: "wx1", Kind: "jsapi_ticket", State: "failing", Reason: "refreshing",
				ExpiresAt: noon.Add(time.Minute), Attempts: 1, LastAttempt: noon.Add(-time.Second)},
			{
				AppID: "wx4", Kind: "access_token", State: "failing", Reason: "unwritable",
				ExpiresAt: noon.Add(time.Minute), NextAttempt: noon.Add(374 * time.Millisecond),
				HinderedSince: noon.Add(-200 * time.Second), Error: "take the lease of wx4.access_token: maximum bytes exceeded",
				ErrorClass: "unwritable", Advice: "look at the storage",
			},
			{
				AppID: "wx4", Kind: "wx_card_ticket", State: "not_permitted", Reason: "not_permitted",
				NextAttempt: noon.Add(23 * time.Hour), Error: "getticket: WeChat refused: errcode 48001", RID: "6790",
				Advice: "take its kind out of WECHAT_TICKETS",
			},
			{AppID: "wx1", Kind: "access_token", State: "fresh", Reason: "fresh",
				ExpiresAt: noon.Add(112 * time.Minute), NextAttempt: noon.Add(102 * time.Minute), CallsToday: 7},
			{AppID: "wx1", Kind: "wx_card_ticket", State: "fresh", Reason: "fresh",
				ExpiresAt: noon.Add(112 * time.Minute), NextAttempt: noon.Add(14 * time.Minute), CallsToday: 9},
		},
	}
	const want = `STATE          ACCOUNT     KIND            EXPIRES   NEXT                        CALLS TODAY
EXPIRED        wx2 (shop)  access_token    12m ago   next attempt in 34s         41
    the last value has expired and was not replaced yet: consumers get no value
    why: stable_token: WeChat refused: errcode 40164 "invalid ip" (rid 6789)
    attempts: 5 failed in a row, the last 26s ago
    do: put 203.0.113.7 on the IP white list
MISSING        wx2 (shop)  jsapi_ticket    -         waits for the access_token  0
    there was never a value: consumers get no value
MISSING        wx2 (shop)  wx_card_ticket  -         waits for the access_token  0
MISSING        wx3         jsapi_ticket    -         waits for the access_token  0
    there was never a value: consumers get no value
REFUSED        wx3         access_token    in 1h00m  refresh in 1m00s            0
    WeChat refuses the value although it has not expired
    conflicts: WeChat refused the value long before its expiry 2 times, last conflict 3m20s ago
FAILING        wx1         jsapi_ticket    in 1m00s  being refreshed now         0
    refreshing fails; consumers get the old value until it expires
    attempts: 1 failed in a row, the last 1.0s ago
FAILING        wx4         access_token    in 1m00s  next attempt in 374ms       0
    refreshing fails; consumers get the old value until it expires
    why: take the lease of wx4.access_token: maximum bytes exceeded
    no refresh could be made since: 3m20s ago
    do: look at the storage
NOT_PERMITTED  wx4         wx_card_ticket  -         next attempt in 23h00m      0
    WeChat does not permit this kind of ticket to the account, and never issued one
    why: getticket: WeChat refused: errcode 48001 (rid 6790)
    do: take its kind out of WECHAT_TICKETS
fresh          wx1         access_token    in 1h52m  refresh in 1h42m            7
fresh          wx1         wx_card_ticket  in 1h52m  check in 14m                9

4 accounts, 10 credentials: 1 expired, 3 missing, 1 refused, 2 failing, 1 not_permitted, 2 fresh; worker w, version 1.2
`
	term, out, _ := screen(true)
	if err := printStatus(term, st); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestStatusFailsIfConsumersGetNoGoodValue(t *testing.T) {
	t.Parallel()
	for _, s := range states {
		bad := s.name == messages.StateExpired || s.name == messages.StateMissing || s.name == messages.StateRefused
		if got := dead(messages.Status{Summary: map[messages.State]int{messages.StateFresh: 3,
			s.name: 1}}); got != bad {
			t.Errorf("%s: dead returns %t", s.name, got)
		}
	}
}

// NEXT is a sentence about what happens next. A reason beside a time, such as "expired in 374ms", says something else.
func TestNextStepIsNeverAReasonBesideATime(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("../../messages/messages.go")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`Reason\w+ +Reason = "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(found) < 20 {
		t.Fatalf("only %d reasons found", len(found))
	}
	for _, m := range found {
		reason := messages.Reason(m[1])
		if _, ok := outcomes[reason]; ok {
			continue // of a report
		}
		if _, ok := steps[reason]; !ok {
			t.Errorf("there is no step for the reason %s", reason)
		}
	}
	for _, reason := range append(slices.Collect(maps.Keys(steps)), "of_a_later_version") {
		for _, kind := range messages.Kinds {
			step := nextStep(noon, messages.CredentialStatus{Kind: kind, Reason: reason,
				NextAttempt: noon.Add(374 * time.Millisecond)})
			if strings.HasPrefix(step, string(reason)+" in ") {
				t.Errorf("%s: the next step is %q", reason, step)
			}
			if strings.Contains(step, "{") {
				t.Errorf("%s: a placeholder is left in %q", reason, step)
			}
		}
	}
}
