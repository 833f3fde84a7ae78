package worker

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/wxkeeper/wxkeeper/messages"
)

// Every verb of fmt, and slog with both handlers: of an account, of a pointer, and of lists and maps of them.
func TestAccountNeverShowsItsSecretWhenItIsPrinted(t *testing.T) {
	t.Parallel()
	const hidden = "SECRET-VALUE"
	a := Account{AppID: "wx1", Secret: hidden, Name: "shop", Tickets: []messages.Kind{messages.JSAPITicket}}
	values := []any{
		a, &a, []Account{a}, []*Account{&a}, map[string]Account{"wx1": a}, map[string]*Account{"wx1": &a},
		Config{Accounts: []Account{a}}.Accounts, struct{ Accounts []Account }{[]Account{a}},
	}
	for _, v := range values {
		for verb := 'A'; verb <= 'z'; verb++ {
			if verb == 'p' || verb == 'w' { // fmt calls no method for them, and go vet refuses them
				continue
			}
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "20", ".3"} {
				text := fmt.Sprintf("%"+flags+string(verb), v)
				for _, form := range []string{hidden, fmt.Sprintf("%x", hidden), fmt.Sprintf("%X", hidden),
					fmt.Sprintf("% x", hidden)} {
					if strings.Contains(text, form) {
						t.Errorf("%%%s%c of %T shows the secret: %s", flags, verb, v, text)
					}
				}
			}
		}
		var logged bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&logged, nil), slog.NewJSONHandler(&logged, nil)} {
			slog.New(h).Info("accounts", "value", v, slog.Group("group", "value", v))
		}
		if strings.Contains(logged.String(), hidden) {
			t.Errorf("slog of %T shows the secret: %s", v, logged.String())
		}
		if !strings.Contains(logged.String(), "wx1") {
			t.Errorf("slog of %T does not name the account: %s", v, logged.String())
		}
	}
	if got := a.Secret.Reveal(); got != hidden {
		t.Errorf("Reveal returns %q", got)
	}
}
