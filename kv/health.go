package kv

import (
	"time"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
)

// Health is the state of a Reader, for a service's health page and metrics. It contains no secret.
//
// A service that has what it needs is healthy, however long NATS is not available: decide readiness by whether Get returns the
// credentials that the service uses, and alert on Stale.
type Health struct {
	// Ready is true after a snapshot of the bucket was complete once. Before that, a missing credential may still arrive, and
	// an existing one comes from CacheFile.
	Ready bool `json:"ready"`
	// Stale is for how long no changes of the bucket were received; 0: they are received. An error is noticed within some
	// seconds, a silent connection when its pings fail, a bucket that does not answer within half a minute. A node of a
	// cluster that is cut off from the others still answers from its copy: only a Reader of all accounts notices that.
	Stale time.Duration `json:"stale"`
	// Error is why changes are not received; "": they are, or Run has not tried yet.
	Error string `json:"error,omitempty"`
	// Valid and Expired are numbers of credentials: those that may be used now, and those that ended within the last hour
	// without a newer one. A credential that ended earlier does not count: its account may have been removed. Get returns
	// ErrExpired for both.
	Valid   int `json:"valid"`
	Expired int `json:"expired"`
	// NextEnd is when the first of the valid credentials ends if nothing replaces it; zero: there is none.
	NextEnd time.Time `json:"next_end,omitzero"`
}

// expiredCounts is for how long an expired credential counts.
const expiredCounts = time.Hour

// Health visits all credentials: call it once in some seconds, not for each request. Safe for concurrent use.
func (r *Reader) Health() Health {
	now := r.cfg.Now()
	r.mu.Lock()
	h := Health{Ready: r.state.ready, Stale: r.state.stale(now)}
	if r.state.err != nil {
		h.Error = r.state.err.Error()
	}
	r.mu.Unlock()
	r.latest.Each(func(n bucket.Name, s *bucket.Slot) {
		held := s.Held()
		if held == nil {
			return
		}
		c, err := s.Get(now, n.AppID, n.Kind)
		switch {
		case err == nil:
			h.Valid++
			if h.NextEnd.IsZero() || c.ExpiresAt.Before(h.NextEnd) {
				h.NextEnd = c.ExpiresAt
			}
		case now.Sub(held.ExpiresAt) <= expiredCounts:
			h.Expired++
		}
	})
	return h
}

// feedState is whether the source works.
type feedState struct {
	ready, works bool
	since        time.Time // of the last change of works; at first, when the Reader was made
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
	return max(now.Sub(s.since), 1) // a Reader that was just made has received nothing yet
}
