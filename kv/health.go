package kv

import "time"

// Health is what a Reader says of itself, for a service's health page and metrics. It carries no secret.
//
// A service that has what it needs is healthy, however long NATS is away: decide readiness by whether Get returns the
// credentials that the service uses, and alert on Stale.
type Health struct {
	// Ready says that a snapshot of the bucket was complete once. Until then a credential that is not there may come yet,
	// and one that is there comes from CacheFile.
	Ready bool `json:"ready"`
	// Stale is for how long changes of the bucket have not been heard; 0: they are. What breaks is noticed within some
	// seconds, a silent line when the connection's pings tell, a bucket that does not answer within half a minute. A node of a
	// cluster that is cut off from the others still answers from its copy: only a Reader of all accounts notices that.
	Stale time.Duration `json:"stale"`
	// Trouble is why changes are not heard; "": they are, or it has not been tried yet.
	Trouble string `json:"trouble,omitempty"`
	// Valid and Expired are numbers of credentials: those that may be used now, and those that ended within the last hour
	// without a successor. One that ended before cannot be told from that of an account that was removed, which nobody
	// misses; Get says ErrExpired of both.
	Valid   int `json:"valid"`
	Expired int `json:"expired"`
	// NextEnd is when the first of the valid ones ends if nothing takes its place; zero: there is none.
	NextEnd time.Time `json:"next_end,omitzero"`
}

// expiredCounts is for how long an expired credential counts.
const expiredCounts = time.Hour

// Health looks at all credentials: it is for once in some seconds, not for each request. Safe for concurrent use.
func (r *Reader) Health() Health {
	now := r.cfg.Now()
	r.mu.Lock()
	h := Health{Ready: r.state.ready, Stale: r.state.stale(now)}
	if r.state.err != nil {
		h.Trouble = r.state.err.Error()
	}
	r.mu.Unlock()
	r.slots.Range(func(_, v any) bool {
		for i := range v.(*slots) {
			s := &v.(*slots)[i]
			held := s.held.Load()
			if held == nil {
				continue
			}
			c, err := s.current(now, "", "")
			if err != nil {
				if now.Sub(held.ExpiresAt) <= expiredCounts {
					h.Expired++
				}
				continue
			}
			h.Valid++
			if h.NextEnd.IsZero() || c.ExpiresAt.Before(h.NextEnd) {
				h.NextEnd = c.ExpiresAt
			}
		}
		return true
	})
	return h
}

// feedState is whether the source works.
type feedState struct {
	ready, works bool
	since        time.Time // since when works is what it is; at first, when the Reader was made
	err          error
}

func (s *feedState) up(now time.Time) { s.works, s.since, s.err = true, now, nil }

func (s *feedState) down(now time.Time, err error) {
	if s.works {
		s.works, s.since = false, now
	}
	s.err = err
}

func (s *feedState) stale(now time.Time) time.Duration {
	if s.works {
		return 0
	}
	return max(now.Sub(s.since), 1) // a Reader that has just been made has heard nothing either
}
