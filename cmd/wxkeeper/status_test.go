package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/messages"
)

func TestStatusPrintsWhatIsWrongAndWhatToDo(t *testing.T) {
	t.Parallel()
	st := messages.Status{
		Worker: "host-1", Version: "1.2.3", Time: noon, Accounts: 2,
		Summary: map[messages.State]int{"expired": 1, "missing": 3, "refused": 1, "failing": 1, "fresh": 2},
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
			{AppID: "wx1", Kind: "access_token", State: "fresh", Reason: "fresh",
				ExpiresAt: noon.Add(112 * time.Minute), NextAttempt: noon.Add(102 * time.Minute), CallsToday: 7},
			{AppID: "wx1", Kind: "wx_card_ticket", State: "fresh", Reason: "fresh",
				ExpiresAt: noon.Add(112 * time.Minute), NextAttempt: noon.Add(14 * time.Minute), CallsToday: 9},
		},
	}
	const want = `STATE    ACCOUNT     KIND            EXPIRES   NEXT                        CALLS TODAY
EXPIRED  wx2 (shop)  access_token    12m ago   next attempt in 34s         41
    the last value has expired and was not replaced yet: consumers get no value
    why: stable_token: WeChat refused: errcode 40164 "invalid ip" (rid 6789)
    attempts: 5 failed in a row, the last 26s ago
    do: put 203.0.113.7 on the IP white list
MISSING  wx2 (shop)  jsapi_ticket    -         waits for the access_token  0
    there was never a value: consumers get no value
MISSING  wx2 (shop)  wx_card_ticket  -         waits for the access_token  0
MISSING  wx3         jsapi_ticket    -         waits for the access_token  0
    there was never a value: consumers get no value
REFUSED  wx3         access_token    in 1h00m  refresh in 1m00s            0
    WeChat refuses the value although it has not expired
    conflicts: WeChat refused the value long before its expiry 2 times, last conflict 3m20s ago
FAILING  wx1         jsapi_ticket    in 1m00s  being refreshed now         0
    refreshing fails; consumers get the old value until it expires
    attempts: 1 failed in a row, the last 1.0s ago
fresh    wx1         access_token    in 1h52m  refresh in 1h42m            7
fresh    wx1         wx_card_ticket  in 1h52m  check in 14m                9

3 accounts, 8 credentials: 1 expired, 3 missing, 1 refused, 1 failing, 2 fresh; worker host-1, version 1.2.3
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
		bad := s.name != messages.StateFresh && s.name != messages.StateFailing
		if got := dead(messages.Status{Summary: map[messages.State]int{messages.StateFresh: 3,
			s.name: 1}}); got != bad {
			t.Errorf("%s: dead returns %t", s.name, got)
		}
	}
}
