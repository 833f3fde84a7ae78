package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/safetext"
)

// printer prints lines: the time, a word that names what happened, and a text.
type printer struct {
	color bool

	mu    sync.Mutex
	out   io.Writer
	ended bool
}

// The first words of the lines. The steps of the story have the same names.
const (
	wordPublished = "published"
	wordRefreshed = "refreshed"
	wordResolved  = "resolved"
	wordRefused   = "refused"
	wordKilled    = "killed"
	wordConflict  = "conflict"
	wordHealed    = "healed"
	wordFailed    = "failed"
	wordRecovered = "recovered"
	wordExpired   = "expired"
	wordRemoved   = "removed"
	wordEnded     = "ended"
)

// colors are SGR parameters of terminals.
var colors = map[string]string{
	wordPublished: "32", wordRefreshed: "32", wordResolved: "36", wordHealed: "1;32", wordRecovered: "32",
	wordRefused: "33", wordFailed: "33", wordExpired: "31", wordRemoved: "31", wordKilled: "1;31", wordConflict: "1;31",
}

const (
	columns = 120 // of a line
	margin  = 21  // before the text: the time, the word, and the spaces after them
)

// printLine prints one line, or several if the text is long. Events and answers come from NATS, so the arguments are
// made safe.
func (p *printer) printLine(word, format string, args ...any) {
	p.print(p.line(word, safetext.Sprintf(format, args...)))
}

func (p *printer) line(word, text string) string {
	clock, shown := time.Now().Format(time.TimeOnly), fmt.Sprintf("%-9s", word)
	if sgr := colors[word]; p.color && sgr != "" {
		clock, shown = "\x1b[2m"+clock+"\x1b[0m", "\x1b["+sgr+"m"+shown+"\x1b[0m"
	}
	return clock + "  " + shown + "  " + fold(text) + "\n"
}

// print prints a text unchanged. After the last text it prints nothing.
func (p *printer) print(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		_, _ = io.WriteString(p.out, text)
	}
}

// printLast prints the last text.
func (p *printer) printLast(text string) {
	p.print(text)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
}

// fold breaks a long text between words and indents the new lines to the column of the text.
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

// mask shows enough of a value to distinguish it from another value.
func mask(value string) string { return value[:min(6, len(value)/2)] + "…" }

// span formats a duration for people.
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
