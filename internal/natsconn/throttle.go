package natsconn

import (
	"sync"
	"time"
)

const (
	throttleEvery = 10 * time.Second

	// throttleKeys bounds the memory: texts of errors carry subjects, which have no end.
	throttleKeys = 256
)

// throttle lets one line of a kind through in throttleEvery: a server that is away, or a permission that is missing on a
// busy path, says the same thing many times a second.
type throttle struct {
	now func() time.Time

	mu   sync.Mutex
	last map[string]*said
}

type said struct {
	at      time.Time
	dropped int
}

func newThrottle() *throttle { return &throttle{now: time.Now, last: map[string]*said{}} }

// allow tells whether the line may be logged now, and how many like it were not since the last.
func (t *throttle) allow(key string) (dropped int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if s := t.last[key]; s != nil {
		if now.Sub(s.at) < throttleEvery {
			s.dropped++
			return 0, false
		}
		dropped = s.dropped
	} else if len(t.last) >= throttleKeys {
		clear(t.last)
	}
	t.last[key] = &said{at: now}
	return dropped, true
}

// repeated is args, with how many lines like this one were not logged since the last, where there were any.
func repeated(notLogged int, args ...any) []any {
	if notLogged > 0 {
		args = append(args, "times_not_logged", notLogged)
	}
	return args
}
