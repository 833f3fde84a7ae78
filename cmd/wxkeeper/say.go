package main

import (
	"encoding/json"
	"fmt"
	"time"
)

// duration is a length of time as people say it: at most two units, the smaller one only where it matters.
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

// relative is a time as seen from now: "in 1h52m", "3m20s ago", or "-" for none.
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

// masked shows of a secret only as much as tells two of them apart by eye, and nothing of a short one.
func masked(value string) string {
	shown := ""
	if len(value) >= 32 {
		shown = value[:4]
	}
	return fmt.Sprintf("%s… (%d characters, hidden: --reveal)", shown, len(value))
}

// json prints v, indented for people.
func (t *terminal) json(v any) error {
	e := json.NewEncoder(t.out)
	e.SetEscapeHTML(false)
	if t.tty {
		e.SetIndent("", "  ")
	}
	return e.Encode(v)
}
