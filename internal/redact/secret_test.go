package redact_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/wxkeeper/wxkeeper/internal/redact"
)

func TestSecretNeverShowsItselfWhenItIsPrinted(t *testing.T) {
	t.Parallel()
	const s redact.Secret = "SECRET-VALUE"
	type holder struct {
		Name string
		S    redact.Secret
		P    *redact.Secret
	}
	p := s
	h := holder{"named", s, &p}
	values := []any{
		s, &p, []redact.Secret{s}, [1]redact.Secret{s}, map[string]redact.Secret{"s": s},
		h, &h, []holder{h}, map[string]holder{"h": h}, fmt.Errorf("wrong secret %v: %s", s, s),
	}
	forms := []string{s.Reveal(), fmt.Sprintf("%x", s.Reveal()), fmt.Sprintf("%X", s.Reveal()),
		fmt.Sprintf("% x", s.Reveal())}
	hidden := func(where, text string) {
		t.Helper()
		for _, form := range forms {
			if strings.Contains(text, form) {
				t.Errorf("%s shows the secret: %s", where, text)
			}
		}
	}
	for _, v := range values {
		for verb := 'A'; verb <= 'z'; verb++ {
			if verb == 'p' || verb == 'w' { // fmt calls no method for them, and go vet refuses them
				continue
			}
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "20", ".3"} {
				hidden(fmt.Sprintf("%%%s%c of %T", flags, verb, v), fmt.Sprintf("%"+flags+string(verb), v))
			}
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Errorf("JSON of %T: %v", v, err)
		}
		hidden(fmt.Sprintf("JSON of %T", v), string(text))
		var logged bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&logged, nil), slog.NewJSONHandler(&logged, nil)} {
			slog.New(h).Info("secret", "value", v, slog.Group("group", "value", v))
		}
		hidden(fmt.Sprintf("slog of %T", v), logged.String())
	}
	if got := fmt.Sprint(h); !strings.Contains(got, "named") || !strings.Contains(got, "***") {
		t.Errorf("a struct with a secret prints as %q", got)
	}
}

func TestSecretIsReadFromJSON(t *testing.T) {
	t.Parallel()
	var v struct{ Secret redact.Secret }
	if err := json.Unmarshal([]byte(`{"secret":"SECRET-VALUE"}`), &v); err != nil {
		t.Fatal(err)
	}
	if got := v.Secret.Reveal(); got != "SECRET-VALUE" {
		t.Errorf("read %q", got)
	}
}
