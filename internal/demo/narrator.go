package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// narrator writes lines: the time, what happened, and to what.
type narrator struct {
	color bool

	mu    sync.Mutex
	out   io.Writer
	ended bool
}

// What happens. The chapters have the same names.
const (
	wordPublished = "published"
	wordRenewed   = "renewed"
	wordResolved  = "resolved"
	wordRefused   = "refused"
	wordKilled    = "killed"
	wordConflict  = "conflict"
	wordHealed    = "healed"
	wordFailed    = "failed"
	wordRecovered = "recovered"
	wordExpired   = "expired"
	wordGone      = "gone"
	wordEnded     = "ended"
)

// colors are SGR parameters.
var colors = map[string]string{
	wordPublished: "32", wordRenewed: "32", wordResolved: "36", wordHealed: "1;32", wordRecovered: "32",
	wordRefused: "33", wordFailed: "33", wordExpired: "31", wordGone: "31", wordKilled: "1;31", wordConflict: "1;31",
}

const (
	columns = 120 // of a line
	margin  = 21  // of the text: a clock, a word, and what separates them
)

// say writes one line, or more where the text is long.
func (n *narrator) say(word, format string, args ...any) {
	n.print(n.line(word, fmt.Sprintf(format, args...)))
}

func (n *narrator) line(word, text string) string {
	clock, shown := time.Now().Format(time.TimeOnly), fmt.Sprintf("%-9s", word)
	if sgr := colors[word]; n.color && sgr != "" {
		clock, shown = "\x1b[2m"+clock+"\x1b[0m", "\x1b["+sgr+"m"+shown+"\x1b[0m"
	}
	return clock + "  " + shown + "  " + fold(text) + "\n"
}

// print writes a text as it is, unless the end has been told.
func (n *narrator) print(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.ended {
		fmt.Fprint(n.out, text)
	}
}

// end writes the last text.
func (n *narrator) end(text string) {
	n.print(text)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended = true
}

// fold breaks a text between words, so that its lines stand below each other in the text's column.
func fold(text string) string {
	var b strings.Builder
	used := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case used+1+len(word) > columns-margin:
			b.WriteString("\n" + strings.Repeat(" ", margin))
			used = 0
		default:
			b.WriteByte(' ')
			used++
		}
		b.WriteString(word)
		used += len(word)
	}
	return b.String()
}

// mask shows enough of a value to tell it from another.
func mask(value string) string { return value[:min(6, len(value)/2)] + "…" }

// span is a duration as people say it.
func span(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		text := d.Round(time.Second).String()
		if minutes, whole := strings.CutSuffix(text, "m0s"); whole {
			return minutes + "m"
		}
		return text
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(100 * time.Microsecond).String()
	}
}
