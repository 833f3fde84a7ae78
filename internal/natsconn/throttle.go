package natsconn

import (
	"sync"
	"time"
)

const (
	throttleEvery = 10 * time.Second

	// throttleKeys bounds the memory: error texts contain subjects, of which there is no end.
	throttleKeys = 256
)

// throttle lets one log line of each kind through per throttleEvery. While a server is away, or a permission
// is missing on a busy path, the same line would otherwise be logged many times a second.
type throttle struct {
	now func() time.Time

	mu   sync.Mutex
	last map[string]*logged
}

type logged struct {
	at      time.Time
	dropped int // lines of this kind that were dropped since
}

func newThrottle() *throttle { return &throttle{now: time.Now, last: map[string]*logged{}} }

// allow reports whether the line may be logged now, and how many lines of its kind were dropped since the last one.
func (t *throttle) allow(key string) (dropped int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if l := t.last[key]; l != nil {
		if now.Sub(l.at) < throttleEvery {
			l.dropped++
			return 0, false
		}
		dropped = l.dropped
	} else if len(t.last) >= throttleKeys {
		clear(t.last)
	}
	t.last[key] = &logged{at: now}
	return dropped, true
}

// withDropped adds to the attributes of a line how many lines of its kind were dropped, if any.
func withDropped(dropped int, attrs ...any) []any {
	if dropped > 0 {
		attrs = append(attrs, "times_not_logged", dropped)
	}
	return attrs
}

// withAdvice adds an advice to the attributes of a line, if there is one.
func withAdvice(advice string, attrs ...any) []any {
	if advice != "" {
		attrs = append(attrs, "advice", advice)
	}
	return attrs
}
