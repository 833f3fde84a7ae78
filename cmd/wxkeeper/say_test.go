package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// screen is a terminal of a test.
func screen(tty bool) (*terminal, *bytes.Buffer, *bytes.Buffer) {
	var out, err bytes.Buffer
	return &terminal{in: strings.NewReader(""), out: &out, err: &err, tty: tty, now: func() time.Time { return noon }}, &out, &err
}

func TestTimesAreSaidAsPeopleSayThem(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0ms", 250 * time.Millisecond: "250ms", time.Second: "1.0s", 9949 * time.Millisecond: "9.9s", 59*time.Second + 999*time.Millisecond: "59s",
		time.Minute: "1m00s", 9*time.Minute + 59*time.Second: "9m59s", 59*time.Minute + 59*time.Second: "59m",
		time.Hour + 52*time.Minute + 30*time.Second: "1h52m", 47*time.Hour + 59*time.Minute: "47h59m", 73 * time.Hour: "3d1h", -time.Minute: "-1m00s",
	} {
		if got := duration(d); got != want {
			t.Errorf("duration(%s) = %q, want %q", d, got, want)
		}
	}
	for at, want := range map[time.Time]string{
		{}: "-", noon.Add(time.Hour + 52*time.Minute): "in 1h52m", noon.Add(-200 * time.Second): "3m20s ago", noon: "in 0ms",
	} {
		if got := relative(noon, at); got != want {
			t.Errorf("relative(%s) = %q, want %q", at, got, want)
		}
	}
}

func TestGetMasksOnATerminalOnly(t *testing.T) {
	t.Parallel()
	c := messages.Credential{
		AppID: "wx1", Kind: "access_token", Value: "97_" + strings.Repeat(canary, 20), ExpiresAt: noon.Add(time.Hour + 52*time.Minute),
		Generation: 3, Revision: 42, Source: "stable_token", Worker: "host-1",
	}
	for _, tt := range []struct {
		name   string
		tty    bool
		verb   getVerb
		shown  bool
		alone  bool
		phrase string
	}{
		{"pipe", false, getVerb{}, true, true, ""},
		{"pipe, JSON", false, getVerb{JSON: true}, true, false, `"revision":42`},
		{"terminal", true, getVerb{}, false, false, "generation 3, revision 42, expires in 1h52m, from stable_token by host-1"},
		{"terminal, JSON", true, getVerb{JSON: true}, false, false, `"revision": 42`},
		{"terminal, revealed", true, getVerb{Reveal: true}, true, true, ""},
		{"terminal, JSON, revealed", true, getVerb{JSON: true, Reveal: true}, true, false, `"revision": 42`},
	} {
		term, out, _ := screen(tt.tty)
		if err := tt.verb.print(term, c); err != nil {
			t.Fatal(err)
		}
		switch got := out.String(); {
		case strings.Contains(got, canary) != tt.shown:
			t.Errorf("%s: %q", tt.name, got)
		case tt.alone && got != c.Value+"\n":
			t.Errorf("%s: %q is not the value alone", tt.name, got)
		case !strings.Contains(got, tt.phrase):
			t.Errorf("%s: %q lacks %q", tt.name, got, tt.phrase)
		}
	}
	if got := masked("short"); strings.Contains(got, "s") && strings.Contains(got, "short") {
		t.Errorf("masked shows a short secret: %q", got)
	}
}

func TestWatchNeverPrintsAValue(t *testing.T) {
	t.Parallel()
	record := &messages.Credential{
		AppID: "wx1", Kind: messages.AccessToken, Value: canary, ObtainedAt: noon, ExpiresAt: noon.Add(2 * time.Hour), RefreshAt: noon.Add(time.Hour),
		Generation: 3, Source: "token", Worker: "host-1", Revision: 42,
	}
	for _, tt := range []struct {
		json   bool
		record *messages.Credential
		want   string
	}{
		{false, record, "12:00:00  wx1                 access_token    generation 3  revision 42  expires in 2h00m  token by host-1\n"},
		{false, nil, "12:00:00  wx1                 access_token    gone: deleted or expired\n"},
		{true, record, `{"time":"2026-01-02T12:00:00Z","appid":"wx1","kind":"access_token","generation":3,"revision":42,` +
			`"obtained_at":"2026-01-02T12:00:00Z","expires_at":"2026-01-02T14:00:00Z","refresh_at":"2026-01-02T13:00:00Z","source":"token","worker":"host-1"}` + "\n"},
		{true, nil, `{"time":"2026-01-02T12:00:00Z","appid":"wx1","kind":"access_token","gone":true}` + "\n"},
	} {
		term, out, _ := screen(true)
		(&watchVerb{JSON: tt.json}).print(term, kv.Change{AppID: "wx1", Kind: messages.AccessToken, Record: tt.record})
		if d := cmp.Diff(tt.want, out.String()); d != "" {
			t.Errorf("-want +got\n%s", d)
		}
	}
}

func TestWatchSaysWhereThereIsNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		appids []string
		found  map[string]bool
		want   string
	}{
		{nil, map[string]bool{"": true}, "wxkeeper: nothing in the bucket yet\n"},
		{nil, map[string]bool{"": true, "wx1": true}, ""},
		{[]string{"wx1", "wx2"}, map[string]bool{"": true, "wx1": true}, "wxkeeper: nothing in the bucket for wx2 yet\n"},
	} {
		term, out, errs := screen(true)
		(&watchVerb{AppID: tt.appids}).nothing(term, tt.found)
		if errs.String() != tt.want || out.Len() > 0 {
			t.Errorf("%v of %v: %q", tt.appids, tt.found, errs)
		}
	}
}

func TestStatusSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	t.Parallel()
	st := messages.Status{
		Worker: "host-1", Version: "1.2.3", Time: noon, Accounts: 2, Summary: map[messages.State]int{"expired": 1, "missing": 3, "refused": 1, "failing": 1, "fresh": 2},
		Credentials: []messages.CredentialStatus{
			{
				AppID: "wx2", Name: "shop", Kind: "access_token", State: "expired", Reason: "backoff", ExpiresAt: noon.Add(-12 * time.Minute),
				NextAttempt: noon.Add(34 * time.Second), LastAttempt: noon.Add(-26 * time.Second), Attempts: 5, CallsToday: 41,
				Error: "stable_token: WeChat refused: errcode 40164 \"invalid ip\"", RID: "6789", Advice: "put 203.0.113.7 on the IP white list",
			},
			{AppID: "wx2", Name: "shop", Kind: "jsapi_ticket", State: "missing", Reason: "no_token"},
			{AppID: "wx2", Name: "shop", Kind: "wx_card_ticket", State: "missing", Reason: "no_token"},
			{AppID: "wx3", Kind: "jsapi_ticket", State: "missing", Reason: "no_token"},
			{
				AppID: "wx3", Kind: "access_token", State: "refused", Reason: "refused", ExpiresAt: noon.Add(time.Hour), NextAttempt: noon.Add(time.Minute),
				Conflicts: 2, LastConflict: noon.Add(-200 * time.Second),
			},
			{AppID: "wx1", Kind: "jsapi_ticket", State: "failing", Reason: "refreshing", ExpiresAt: noon.Add(time.Minute), Attempts: 1, LastAttempt: noon.Add(-time.Second)},
			{AppID: "wx1", Kind: "access_token", State: "fresh", Reason: "fresh", ExpiresAt: noon.Add(112 * time.Minute), NextAttempt: noon.Add(102 * time.Minute), CallsToday: 7},
			{AppID: "wx1", Kind: "wx_card_ticket", State: "fresh", Reason: "fresh", ExpiresAt: noon.Add(112 * time.Minute), NextAttempt: noon.Add(14 * time.Minute), CallsToday: 9},
		},
	}
	const want = `STATE    ACCOUNT     KIND            EXPIRES   NEXT                        CALLS TODAY
EXPIRED  wx2 (shop)  access_token    12m ago   new try in 34s              41
    the last value is dead and nothing has replaced it: consumers get none
    why: stable_token: WeChat refused: errcode 40164 "invalid ip" (rid 6789)
    tries: 5 failed in a row, the last 26s ago
    do: put 203.0.113.7 on the IP white list
MISSING  wx2 (shop)  jsapi_ticket    -         waits for the access_token  0
    there was never a value: consumers get none
MISSING  wx2 (shop)  wx_card_ticket  -         waits for the access_token  0
MISSING  wx3         jsapi_ticket    -         waits for the access_token  0
    there was never a value: consumers get none
REFUSED  wx3         access_token    in 1h00m  renewal in 1m00s            0
    WeChat refuses it though its life is not over
    conflicts: WeChat refused it long before its end 2 times, last conflict 3m20s ago
FAILING  wx1         jsapi_ticket    in 1m00s  being renewed now           0
    the old value is served until its end; renewing it fails
    tries: 1 failed in a row, the last 1.0s ago
fresh    wx1         access_token    in 1h52m  renewal in 1h42m            7
fresh    wx1         wx_card_ticket  in 1h52m  look in 14m                 9

2 accounts, 8 credentials: 1 expired, 3 missing, 1 refused, 1 failing, 2 fresh; worker host-1, version 1.2.3
`
	term, out, _ := screen(true)
	if err := printStatus(term, st); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestStatusFailsWhereConsumersGetNoGoodValue(t *testing.T) {
	t.Parallel()
	for _, s := range states {
		bad := s.name != messages.StateFresh && s.name != messages.StateFailing
		if got := dead(messages.Status{Summary: map[messages.State]int{messages.StateFresh: 3, s.name: 1}}); got != bad {
			t.Errorf("%s: %t", s.name, got)
		}
	}
}

func TestErrorsHaveTheirExitCode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		code int
		says string
	}{
		{nil, 0, ""},
		{errors.New("two\nlines\x1b[2J"), 1, "wxkeeper: two; lines [2J\n"},
		{usage(errors.New("--flag: wrong")), 2, "wxkeeper: --flag: wrong\n"},
		{fmt.Errorf("WXKEEPER_DATA_DIR: %w", errors.New("not yours")), 2, "wxkeeper: WXKEEPER_DATA_DIR: not yours\n"},
		{errors.New("another process listens on 127.0.0.1:8080: set WXKEEPER_HTTP_ADDR"), 1, "wxkeeper: another process listens on 127.0.0.1:8080: set WXKEEPER_HTTP_ADDR\n"},
		{errSaid, 1, ""},
		{fmt.Errorf("asking: %w", context.Canceled), 130, "wxkeeper: interrupted\n"},
		{
			&messages.Error{Symbol: messages.QuotaExhausted, Message: "the quota of the day is gone", Errcode: 45009, Errmsg: "reach max api daily quota limit", RID: "6789-abc", RetryAfterMS: 3_600_000},
			1, "wxkeeper: quota_exhausted (429): the quota of the day is gone\n  errcode: 45009 reach max api daily quota limit\n  rid: 6789-abc\n  try again in: 1h00m\n",
		},
		{ // the message has said it all
			&messages.Error{Symbol: messages.Rejected, Message: `tickettocode: WeChat refused: errcode 40097 "invalid args" (rid 6789-abc)`, Errcode: 40097, Errmsg: "invalid args", RID: "6789-abc"},
			1, "wxkeeper: rejected (422): tickettocode: WeChat refused: errcode 40097 \"invalid args\" (rid 6789-abc)\n",
		},
	} {
		term, out, errs := screen(false)
		if code := term.fail(tt.err); code != tt.code || errs.String() != tt.says || out.Len() > 0 {
			t.Errorf("%v: exit code %d, %q; want %d, %q", tt.err, code, errs, tt.code, tt.says)
		}
	}
}
