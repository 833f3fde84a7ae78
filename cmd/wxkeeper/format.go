package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/safetext"
)

// duration formats a length of time with at most two units, and with the smaller unit only if it matters.
func duration(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "-" + duration(-d)
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 10*time.Minute:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	}
}

// relative formats a time relative to now: "in 1h52m", "3m20s ago", or "-" for the zero time.
func relative(now, at time.Time) string {
	switch d := at.Sub(now); {
	case at.IsZero():
		return "-"
	case d >= 0:
		return "in " + duration(d)
	default:
		return duration(-d) + " ago"
	}
}

// masked shows four characters of a long secret, by which people can tell two secrets apart, and nothing of a
// short one.
func masked(value string) string {
	shown := ""
	if len(value) >= 32 {
		shown = value[:4]
	}
	return fmt.Sprintf("%s… (%s, hidden: --reveal)", shown, count(len(value), "character"))
}

// count formats a number of things: "1 account", "2 accounts".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// json prints v as JSON, with indentation on a terminal.
func (t *terminal) json(v any) error { return t.encode(v, t.tty) }

// encode prints v as JSON. On a terminal everything that is not visible is escaped; to a pipe or a file JSON is
// printed as its encoder writes it.
func (t *terminal) encode(v any, indent bool) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if indent {
		e.SetIndent("", "  ")
	}
	if err := e.Encode(v); err != nil {
		return err
	}
	text := b.Bytes()
	if t.tty {
		text = safetext.JSON(text)
	}
	_, err := t.out.Write(text)
	return err
}
