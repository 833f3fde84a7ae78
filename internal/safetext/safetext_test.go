package safetext_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/safetext"
)

// attacks are texts that manipulate a terminal or a reader, and what is shown of them.
var attacks = map[string]string{
	"clear\x1b[2Jthe screen":                  `clear\x1b[2Jthe screen`,
	"title\x1b]0;root\x07":                    `title\x1b]0;root\x07`,
	"the same in one byte\xc2\x9b2J":          `the same in one byte\u009b2J`,
	"the same, invalid\x9b2J":                 `the same, invalid\x9b2J`,
	"one line\nFAIL  another":                 `one line\nFAIL  another`,
	"overwritten\rok":                         `overwritten\rok`,
	"back\b\b\b\bspace, bell\a, delete\x7f":   `back\x08\x08\x08\x08space, bell\x07, delete\x7f`,
	"tab\tvertical\vform\fnull\x00":           `tab\tvertical\x0bform\x0cnull\x00`,
	"next line\u0085here":                     `next line\u0085here`,
	"separators\u2028and\u2029":               `separators\u2028and\u2029`,
	"right to left\u202etxt.exe":              `right to left\u202etxt.exe`,
	"all of them\u202a\u202b\u202c\u202d":     `all of them\u202a\u202b\u202c\u202d`,
	"isolates\u2066\u2067\u2068\u2069":        `isolates\u2066\u2067\u2068\u2069`,
	"marks\u200e\u200f\u061c":                 `marks\u200e\u200f\u061c`,
	"invisible\u200b\u200c\u200d\u2060\ufeff": `invisible\u200b\u200c\u200d\u2060\ufeff`,
	"soft\u00adhyphen":                        `soft\u00adhyphen`,
	"fillers\u115f\u1160\u3164\uffa0\u034f":   `fillers\u115f\u1160\u3164\uffa0\u034f`,
	"selectors\ufe0f\U000e0101":               `selectors\ufe0f\U000e0101`,
	"tags\U000e0041\U000e007f":                `tags\U000e0041\U000e007f`,
	"private\ue000, not assigned\U000e0fff":   `private\ue000, not assigned\U000e0fff`,
	"invalid\xff\xc0\x80\xed\xa0\x80":         `invalid\xff\xc0\x80\xed\xa0\x80`,
	"cut off \xe4\xb8":                        `cut off \xe4\xb8`,
}

// harmless texts stay as they are.
var harmless = []string{
	"", "errcode 40164 \"invalid ip\"", `C:\data\nats`, "微信支付，门店（上海）　一号", "Größe, naïve, Ελληνικά, עברית, العربية",
	"e\u0301 and a no-break\u00a0space", "🎉", "� as it was sent",
}

func TestTextFromElsewhereIsShownVisibly(t *testing.T) {
	t.Parallel()
	for text, want := range attacks {
		if got := safetext.Line(text); got != want {
			t.Errorf("Line(%+q) = %q, want %q", text, got, want)
		}
		if got := safetext.Line(want); got != want {
			t.Errorf("Line changes what it has made: %q becomes %q", want, got)
		}
	}
	for _, text := range harmless {
		if got := safetext.Line(text); got != text {
			t.Errorf("Line(%q) = %q", text, got)
		}
	}
}

func TestLongTextIsCutWithAMarker(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		strings.Repeat("x", 1<<20), strings.Repeat("微", 1<<19), strings.Repeat("\x1b", 1<<20), strings.Repeat("x", 4097),
		strings.Repeat("x", 4090) + "\u202e\u202e",
	} {
		got := safetext.Line(text)
		if marker := fmt.Sprintf("… (cut: %d bytes)", len(text)); len(got) > 4096 || !strings.HasSuffix(got, marker) {
			t.Errorf("%d bytes, the end is %q", len(got), got[max(0, len(got)-40):])
		}
		if !utf8.ValidString(got) || safetext.Line(got) != got {
			t.Errorf("%.20q was not cut at the end of a character", text)
		}
	}
	if whole := strings.Repeat("x", 4096); safetext.Line(whole) != whole {
		t.Error("a text of 4 KiB was cut")
	}
}

// Every argument is made safe, whatever its type.
func TestNoArgumentGetsThrough(t *testing.T) {
	t.Parallel()
	type name string
	const bad = "a\x1b[2J\nb\u202e"
	for _, arg := range []any{
		bad, name(bad), []byte(bad), errors.New(bad), fmt.Errorf("wrapped: %w", errors.New(bad)), stringer(bad),
		&[]string{bad}, []name{bad}, map[string]int{bad: 1}, struct{ Name any }{bad}, formatter(bad),
		slog.StringValue(bad),
	} {
		for _, verb := range []string{"%s", "%v", "%+v", "%-40s|", "%q"} {
			var b bytes.Buffer
			safetext.Fprintf(&b, "got "+verb, arg)
			for _, got := range []string{b.String(), safetext.Sprintf("got "+verb, arg)} {
				if !onlyVisible(got) {
					t.Errorf("%T with %s: %q", arg, verb, got)
				}
			}
		}
	}
	got := safetext.Sprintf("%d %.1f %t %s %5d %v", 7, 1.5, true, 1500*time.Millisecond, uint8(3), nil)
	if want := "7 1.5 true 1.5s     3 <nil>"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

type stringer string

func (s stringer) String() string { return string(s) }

type formatter string

func (f formatter) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, string(f)) }

// errors.Join separates its errors by line breaks.
func TestJoinedErrorsAreOneLine(t *testing.T) {
	t.Parallel()
	err := errors.Join(errors.New("first"), errors.New("second\x1b[2J"))
	if got, want := safetext.Sprintf("wrong: %v", err), `wrong: first; second\x1b[2J`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestJSONIsVisibleAndMeansTheSame(t *testing.T) {
	t.Parallel()
	for text := range attacks {
		for _, indent := range []string{"", "  "} {
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetIndent("", indent)
			if err := e.Encode(map[string]string{"key " + text: text}); err != nil {
				t.Fatal(err)
			}
			checkJSON(t, b.Bytes())
		}
	}
	// What another responder may have encoded.
	for _, text := range []string{
		"{\"a\":\"\u202e\u009b\x7f\U000e0041\"}", "{\"a\":\"\xff\"}", "{\r\"a\":\r1}\r", "[\"\\u202e\",\n\t1]",
	} {
		checkJSON(t, []byte(text))
	}
}

func checkJSON(t *testing.T, text []byte) {
	t.Helper()
	safe := safetext.JSON(text)
	for line := range strings.SplitSeq(string(safe), "\n") {
		if !onlyVisible(strings.ReplaceAll(line, "\t", "")) {
			t.Errorf("%q is not safe", safe)
		}
	}
	var before, after any
	if err := errors.Join(json.Unmarshal(text, &before), json.Unmarshal(safe, &after)); err != nil {
		t.Fatalf("%q: %v", safe, err)
	}
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("%q means something else (-before +after):\n%s", safe, d)
	}
}

func TestWritersKeepLinesAndEscapeTheRest(t *testing.T) {
	t.Parallel()
	var text, js bytes.Buffer
	for _, w := range []io.Writer{safetext.Writer(&text), safetext.JSONWriter(&js)} {
		for _, line := range []string{"{\"a\":\t\"plain\"}\n", "{\"b\":\"\u202e\u009b\"}\n"} {
			if n, err := io.WriteString(w, line); n != len(line) || err != nil {
				t.Errorf("%d of %d bytes: %v", n, len(line), err)
			}
		}
	}
	const want = "{\"a\":\t\"plain\"}\n{\"b\":\"\\u202e\\u009b\"}\n"
	if text.String() != want || js.String() != want {
		t.Errorf("%q and %q, want %q", text.String(), js.String(), want)
	}
	if n, err := safetext.Writer(broken{}).Write([]byte("x")); n != 0 || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%d, %v: the error of the writer is lost", n, err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func FuzzLine(f *testing.F) {
	for text := range attacks {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := safetext.Line(text)
		if !onlyVisible(got) || len(got) > 4096 || safetext.Line(got) != got {
			t.Errorf("Line(%q) = %q", text, got)
		}
	})
}

// onlyVisible reports whether nothing in a text can manipulate its reader. It is stricter than a terminal needs.
func onlyVisible(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return unicode.In(r, unicode.C, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point,
			unicode.Variation_Selector)
	})
}
