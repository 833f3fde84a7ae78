package logging_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/logging"
)

type said string

func (s said) String() string { return string(s) }

type encoded string

func (e encoded) MarshalText() ([]byte, error) { return []byte(e), nil }

type valued string

func (v valued) LogValue() slog.Value {
	return slog.GroupValue(slog.String(string(v), string(v)), slog.Any("error", errors.New(string(v))))
}

// Messages, keys and values come from WeChat, NATS and files, and people read logs on terminals.
func TestNoTextManipulatesTheReaderOfALog(t *testing.T) {
	t.Parallel()
	const bad = "a\x1b]0;title\x07\x1b[2J\nlevel=ERROR\tmsg=forged\rover\u202e\u2066\u009b2J\u200b\x7f\u3164\ufe0f" +
		"\U000e0041\xffz"
	for _, format := range []string{"text", "json"} {
		var b bytes.Buffer
		log, err := logging.New(&b, format, "debug")
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []any{
			bad, said(bad), encoded(bad), valued(bad), errors.New(bad), fmt.Errorf("wrapped: %w", errors.New(bad)), []byte(bad),
			[]string{bad}, map[string]any{bad: bad}, struct{ Text string }{bad}, &struct{ Text any }{said(bad)},
			[]slog.Attr{slog.String(bad, bad)},
		} {
			log.Info(bad, "value", v)
			log.With(slog.String(bad, bad)).WithGroup(bad).Warn("message", slog.Group(bad, slog.Any(bad, v)))
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if len(lines) != 24 {
			t.Errorf("%s: %d lines of 24 records", format, len(lines))
		}
		for _, line := range lines {
			if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool {
				return unicode.In(r, unicode.C, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point,
					unicode.Variation_Selector)
			}) {
				t.Errorf("%s: not safe: %q", format, line)
			}
		}
	}
}

// Log collectors get the text as it was.
func TestJSONOfALogMeansWhatWasLogged(t *testing.T) {
	t.Parallel()
	const text = "微信 \x1b[2J \u202e \u009b \x7f \U000e0041"
	var b bytes.Buffer
	log, err := logging.New(&b, "json", "info")
	if err != nil {
		t.Fatal(err)
	}
	log.Info(text, "error", errors.New(text))
	var got struct{ Msg, Error string }
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{text, text}, []string{got.Msg, got.Error}); d != "" {
		t.Errorf("-logged +read\n%s", d)
	}
}
