// Package safetext makes text from elsewhere safe to show on a terminal, on a page and in a log.
//
// Text from elsewhere is what WeChat, NATS, another responder, a record, a file or the command line says. In such a
// text, control characters can move the cursor, change the title of a terminal or forge a line; characters that
// change the direction of writing show other words than the text has; invisible characters make two different names
// look equal. This package escapes all of them visibly: \n, \x1b, \u202e.
//
// [Fprintf] and [Sprintf] are for output in lines: the format is ours, and each argument is made safe. [JSON] is for
// JSON, and [Writer] and [JSONWriter] are for logs, whose lines are made elsewhere. The linter forbids fmt.Fprint in
// the packages that print.
//
// A backslash stays as it is: a text that was made safe twice is the same as a text that was made safe once.
package safetext

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxLine limits what Line returns. The longest texts of wxkeeper itself, for example an advice, have some hundred
// bytes.
const maxLine = 4096

// Line returns s as one line of at most 4 KiB, in which everything that is not visible is escaped, and line breaks
// and tabs too. A longer text is cut, and the line ends with a marker that has its length.
func Line(s string) string {
	if len(s) <= maxLine && isSafe(s, false) {
		return s
	}
	end := "… (cut: " + fmt.Sprint(len(s)) + " bytes)"
	var b strings.Builder
	fits := 0 // the length up to which b leaves room for the marker
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		writeRune(&b, r, n, s[i], false)
		if b.Len() > maxLine {
			return b.String()[:fits] + end
		}
		if b.Len() <= maxLine-len(end) {
			fits = b.Len()
		}
		i += n
	}
	return b.String()
}

// lines returns text with everything escaped that Line escapes, except line breaks and tabs. It is not cut.
func lines(text []byte) []byte {
	s := string(text)
	if isSafe(s, true) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		writeRune(&b, r, n, s[i], true)
		i += n
	}
	return []byte(b.String())
}

// Err returns the text of an error as [Line] does. The lines of errors.Join are separated by semicolons.
func Err(err error) string {
	return Line(strings.NewReplacer("\r\n", "; ", "\n", "; ").Replace(err.Error()))
}

// Sprintf is fmt.Sprintf with arguments that are made safe: an error by [Err], and every other argument by [Line],
// unless it is a number or a boolean.
func Sprintf(format string, args ...any) string {
	makeSafe(args)
	return fmt.Sprintf(format, args...)
}

// Fprintf is fmt.Fprintf with arguments that are made safe as in [Sprintf].
func Fprintf(w io.Writer, format string, args ...any) (int, error) {
	makeSafe(args)
	return fmt.Fprintf(w, format, args...)
}

// makeSafe replaces arguments in place: go vet checks a format only if its function passes args on itself.
func makeSafe(args []any) {
	for i, arg := range args {
		switch a := arg.(type) {
		case nil:
		case string:
			args[i] = Line(a)
		case []byte:
			args[i] = Line(string(a))
		case error:
			args[i] = Err(a)
		default:
			if !isNumber(arg) {
				args[i] = Line(fmt.Sprint(arg))
			}
		}
	}
}

// isNumber reports whether the text of an argument comes from its type only: a number, also one with a method String,
// as time.Duration has, or a boolean.
func isNumber(arg any) bool {
	k := reflect.TypeOf(arg).Kind()
	return k >= reflect.Bool && k <= reflect.Complex128
}

// isSafe reports whether all characters of s are visible. layout allows line breaks and tabs.
func isSafe(s string, layout bool) bool {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !isVisible(r) && (!layout || !isLayout(r)) {
			return false
		}
		i += n
	}
	return true
}

func isLayout(r rune) bool { return r == '\n' || r == '\t' }

// isVisible reports whether a terminal shows r as a character that people see. That excludes control and format
// characters, line and paragraph separators, private and unassigned characters, and the characters that Unicode
// calls ignorable, for example fillers and variation selectors.
func isVisible(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= ' ' && r != 0x7f
	}
	return unicode.IsGraphic(r) &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// writeRune writes r, or its escape. first is the first byte of its n bytes: an invalid byte is a RuneError of one.
func writeRune(b *strings.Builder, r rune, n int, first byte, layout bool) {
	switch {
	case r == utf8.RuneError && n == 1:
		fmt.Fprintf(b, `\x%02x`, first)
	case isVisible(r), layout && isLayout(r):
		b.WriteRune(r)
	case r == '\n':
		b.WriteString(`\n`)
	case r == '\r':
		b.WriteString(`\r`)
	case r == '\t':
		b.WriteString(`\t`)
	case r < utf8.RuneSelf:
		fmt.Fprintf(b, `\x%02x`, r)
	case r <= 0xffff:
		fmt.Fprintf(b, `\u%04x`, r)
	default:
		fmt.Fprintf(b, `\U%08x`, r)
	}
}
