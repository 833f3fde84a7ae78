package messages

import (
	"math"
	"strings"
	"testing"
	"time"
)

// A number of years in milliseconds overflows a time.Duration: the caller would not wait at all.
func TestWaitOfAnErrorIsBounded(t *testing.T) {
	t.Parallel()
	for ms, want := range map[int64]time.Duration{
		0: 0, -1: 0, math.MinInt64: 0, 1500: 1500 * time.Millisecond, 86_400_000: 24 * time.Hour,
		9_223_372_036_855: 7 * 24 * time.Hour, math.MaxInt64: 7 * 24 * time.Hour,
	} {
		e := &Error{Symbol: Throttled, Message: "m", RetryAfterMS: ms}
		if got := e.RetryAfter(); got != want {
			t.Errorf("retry_after_ms %d is a wait of %s, want %s", ms, got, want)
		}
		if strings.Contains(e.Error(), "-") {
			t.Errorf("retry_after_ms %d is shown as %q", ms, e)
		}
	}
}

func TestZeroCredentialIsShownWithoutTheYear1(t *testing.T) {
	t.Parallel()
	if s := (Credential{}).String(); strings.Contains(s, "0001") {
		t.Errorf("it is shown as %q", s)
	}
}
