package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

func TestWatchNeverPrintsAValue(t *testing.T) {
	t.Parallel()
	record := &messages.Credential{
		AppID: "wx1", Kind: messages.AccessToken, Value: canary, ObtainedAt: noon, ExpiresAt: noon.Add(2 * time.Hour),
		RefreshAt:  noon.Add(time.Hour),
		Generation: 3, Source: "token", Worker: "host-1", Revision: 42,
	}
	for _, tt := range []struct {
		json   bool
		record *messages.Credential
		want   string
	}{
		{false, record, "12:00:00  wx1                 access_token    generation 3  revision 42  expires in 2h00m  " +
			"token by host-1\n"},
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

func TestWatchPrintsForWhichAccountsThereIsNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		appids []string
		found  map[string]bool
		want   string
	}{
		{nil, map[string]bool{"": true}, "wxkeeper: nothing in the bucket yet\n"},
		{nil, map[string]bool{"": true, "wx1": true}, ""},
		{[]string{"wx1", "wx2"}, map[string]bool{"": true, "wx1": true},
			"wxkeeper: nothing in the bucket for wx2 yet\n"},
	} {
		term, out, errs := screen(true)
		(&watchVerb{AppID: tt.appids}).nothing(term, tt.found)
		if errs.String() != tt.want {
			t.Errorf("--appid %v, found %v: %q, want %q", tt.appids, tt.found, errs, tt.want)
		}
		if out.Len() > 0 {
			t.Errorf("--appid %v: standard output: %q", tt.appids, out)
		}
	}
}
