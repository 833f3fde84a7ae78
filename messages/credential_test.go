package messages

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sampleCredential() Credential {
	obtained := time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	return Credential{
		AppID: "wx1", Kind: AccessToken, Value: "SECRET-VALUE", ObtainedAt: obtained,
		ExpiresAt: obtained.Add(2 * time.Hour),
		RefreshAt: obtained.Add(time.Hour), Generation: 7, Source: SourceToken, Worker: "w",
	}
}

// A record with a wrong, distant end would outlive every correct one, and a time outside of int64 nanoseconds
// would wrap around to another century.
func TestTimesThatNoCredentialHasAreRefused(t *testing.T) {
	t.Parallel()
	date := func(year int) time.Time { return time.Date(year, 4, 1, 0, 0, 0, 0, time.UTC) }
	for name, tt := range map[string]struct {
		from time.Time
		life time.Duration
		want error
	}{
		"the longest life": {date(2026), MaxLife, nil},
		"the earliest":     {time.Unix(0, 0), time.Hour, nil},
		"the latest":       {date(2262), time.Hour, nil},
		"a longer life":    {date(2026), MaxLife + 1, ErrInvalidCredential},
		"before 1970":      {date(1500), time.Hour, ErrInvalidCredential}, // wraps around to 2084
		"after 2262":       {date(2263), time.Hour, ErrInvalidCredential},
		"for centuries":    {date(1970), date(2261).Sub(date(1970)), ErrInvalidCredential},
	} {
		c := sampleCredential()
		c.ObtainedAt, c.ExpiresAt = tt.from, tt.from.Add(tt.life)
		if err := c.Validate(); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
}

// This covers every verb of fmt, also those that are wrong for a struct, and slog; and the credential itself, a
// pointer to it, and a credential inside other values.
func TestCredentialNeverShowsItsValueWhenItIsPrinted(t *testing.T) {
	t.Parallel()
	c := sampleCredential()
	type holder struct {
		C Credential
		P *Credential
	}
	for _, v := range []any{c, &c, []Credential{c}, map[string]Credential{"c": c}, holder{c, &c}, &holder{c, &c}} {
		for verb := 'A'; verb <= 'z'; verb++ {
			if verb == 'p' || verb == 'w' { // fmt calls no method for them, and go vet refuses them
				continue
			}
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "20", ".3"} {
				text := fmt.Sprintf("%"+flags+string(verb), v)
				for _, form := range []string{"%s", "%x", "%X", "% x"} {
					if strings.Contains(text, fmt.Sprintf(form, c.Value)) {
						t.Errorf("%%%s%c of %T shows the value: %s", flags, verb, v, text)
					}
				}
			}
		}
	}
	var logged bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&logged, nil), slog.NewJSONHandler(&logged, nil)} {
		log := slog.New(h)
		log.Info("credential", "value", c, "pointer", &c, slog.Group("group", "value", c))
		log.Info("error", "error", fmt.Errorf("publish %v: %+v", c, &c))
	}
	if strings.Contains(logged.String(), c.Value) {
		t.Errorf("slog shows the value: %s", logged.String())
	}
	if n := strings.Count(logged.String(), "wx1"); n == 0 {
		t.Error("slog does not name the credential")
	}
}

// The reply to credential.get has the revision. The stored record does not: the bucket numbers the write
// itself.
func TestCredentialJSONIsTheContract(t *testing.T) {
	t.Parallel()
	c := sampleCredential()
	const record = `{"appid":"wx1","kind":"access_token","value":"SECRET-VALUE","obtained_at":"2026-04-01T00:00:00Z",` +
		`"expires_at":"2026-04-01T02:00:00Z","refresh_at":"2026-04-01T01:00:00Z","generation":7,"source":"token","worker":"w"`
	for want, revision := range map[string]uint64{record + "}": 0, record + `,"revision":12}`: 12} {
		c.Revision = revision
		got, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Error(diff)
		}
	}
}
