package main

import (
	"testing"
	"time"
)

func TestTimesAreShortAndReadable(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0:                                     "0ms",
		250 * time.Millisecond:                "250ms",
		time.Second:                           "1.0s",
		9949 * time.Millisecond:               "9.9s",
		59*time.Second + 999*time.Millisecond: "59s",
		time.Minute:                           "1m00s",
		9*time.Minute + 59*time.Second:        "9m59s",
		59*time.Minute + 59*time.Second:       "59m",
		time.Hour + 52*time.Minute + 30*time.Second: "1h52m",
		47*time.Hour + 59*time.Minute:               "47h59m",
		73 * time.Hour:                              "3d1h",
		-time.Minute:                                "-1m00s",
	} {
		if got := duration(d); got != want {
			t.Errorf("duration(%s) = %q, want %q", d, got, want)
		}
	}
	for at, want := range map[time.Time]string{
		{}: "-", noon.Add(time.Hour + 52*time.Minute): "in 1h52m", noon.Add(-200 * time.Second): "3m20s ago",
		noon: "in 0ms",
	} {
		if got := relative(noon, at); got != want {
			t.Errorf("relative(%s) = %q, want %q", at, got, want)
		}
	}
}
