package main

import (
	"strings"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
)

func TestGetMasksOnATerminalOnly(t *testing.T) {
	t.Parallel()
	c := messages.Credential{
		AppID: "wx1", Kind: "access_token", Value: "97_" + strings.Repeat(canary, 20),
		ExpiresAt:  noon.Add(time.Hour + 52*time.Minute),
		Generation: 3, Revision: 42, Source: "stable_token", Worker: "host-1",
	}
	for _, tt := range []struct {
		name   string
		tty    bool
		verb   getVerb
		shown  bool
		only   bool // only the value is printed
		phrase string
	}{
		{"pipe", false, getVerb{}, true, true, ""},
		{"pipe, JSON", false, getVerb{JSON: true}, true, false, `"revision":42`},
		{"terminal", true, getVerb{}, false, false,
			"generation 3, revision 42, expires in 1h52m, from stable_token by host-1"},
		{"terminal, JSON", true, getVerb{JSON: true}, false, false, `"revision": 42`},
		{"terminal, revealed", true, getVerb{Reveal: true}, true, true, ""},
		{"terminal, JSON, revealed", true, getVerb{JSON: true, Reveal: true}, true, false, `"revision": 42`},
	} {
		term, out, _ := screen(tt.tty)
		if err := tt.verb.print(term, c); err != nil {
			t.Fatal(err)
		}
		got := out.String()
		if shown := strings.Contains(got, canary); shown != tt.shown {
			t.Errorf("%s: the value is shown: %t, want %t: %q", tt.name, shown, tt.shown, got)
		}
		if tt.only && got != c.Value+"\n" {
			t.Errorf("%s: %q is not only the value", tt.name, got)
		}
		if !strings.Contains(got, tt.phrase) {
			t.Errorf("%s: %q lacks %q", tt.name, got, tt.phrase)
		}
	}
	if got := masked("zzzz"); strings.Contains(got, "z") {
		t.Errorf("masked shows a short secret: %q", got)
	}
}
