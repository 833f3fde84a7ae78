package kv

import (
	"errors"
	"testing"
	"time"
)

// A mistake in a date would be believed for longer than any true value, or turn up as a time of another century.
func TestTimesThatNoCredentialHasAreRefused(t *testing.T) {
	t.Parallel()
	date := func(year int) time.Time { return time.Date(year, 4, 1, 0, 0, 0, 0, time.UTC) }
	for name, tt := range map[string]struct {
		from time.Time
		life time.Duration
		good bool
	}{
		"the longest life": {date(2026), MaxLife, true},
		"the earliest":     {time.Unix(0, 0), time.Hour, true},
		"the latest":       {date(2262), time.Hour, true},
		"a longer life":    {date(2026), MaxLife + 1, false},
		"of before 1970":   {date(1500), time.Hour, false}, // in nanoseconds, that is in 2084
		"of after 2262":    {date(2263), time.Hour, false},
		"for centuries":    {date(1970), date(2261).Sub(date(1970)), false},
	} {
		c := credential(1, time.Hour)
		c.ObtainedAt, c.ExpiresAt = tt.from, tt.from.Add(tt.life)
		if err := c.Validate(); (err == nil) != tt.good || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
