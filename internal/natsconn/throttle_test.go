package natsconn

import (
	"strconv"
	"testing"
	"time"
)

func TestThrottleLetsOneLineOfAKindThrough(t *testing.T) {
	t.Parallel()
	now := time.Unix(1, 0)
	th := newThrottle()
	th.now = func() time.Time { return now }
	want := func(key string, dropped int, ok bool) {
		t.Helper()
		if d, o := th.allow(key); d != dropped || o != ok {
			t.Errorf("allow(%q) = %d, %v, want %d, %v", key, d, o, dropped, ok)
		}
	}
	want("a", 0, true)
	want("a", 0, false)
	want("b", 0, true)
	now = now.Add(throttleEvery)
	want("a", 1, true)
	want("a", 0, false)

	for i := range 10 * throttleKeys {
		th.allow(strconv.Itoa(i))
	}
	if n := len(th.last); n > throttleKeys {
		t.Errorf("%d keys are kept", n)
	}
}
