package safetext

import (
	"bytes"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON returns valid JSON that means the same as the valid JSON in text, and that has only visible characters, line
// breaks and tabs. Encoders of JSON escape only some control characters, and none that change the direction of
// writing. Invalid UTF-8 becomes \ufffd, as decoders read it.
func JSON(text []byte) []byte {
	if isSafe(string(text), true) {
		return text
	}
	var b bytes.Buffer
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\ufffd`)
		case isVisible(r), isLayout(r):
			b.WriteRune(r)
		case r == '\r': // in valid JSON it is white space between two values
			b.WriteByte(' ')
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
		i += n
	}
	return b.Bytes()
}
