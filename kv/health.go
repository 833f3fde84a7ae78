package kv

import (
	"errors"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
)

// Health is the state of a [Reader], for a service's health page and metrics. It contains no secret.
//
// A service that has the credentials which it uses is ready, however long NATS is not available: let
// readiness depend on [Reader.Get], and alert on Stale.
type Health struct {
	// Ready is true when the first snapshot of the bucket is complete. Before that, a missing credential may
	// still arrive, and an existing one comes from CacheFile.
	Ready bool `json:"ready"`
	// Stale is for how long no changes of the bucket were received; 0: they are received. An error is noticed
	// within some seconds, a silent connection when its pings fail, a bucket or workers that do not answer within
	// half a minute. A node of a cluster that is cut off from the other nodes still answers from its copy: of the
	// feeds that read the bucket, only a watch of all accounts notices that.
	Stale time.Duration `json:"stale"`
	// Error is why changes are not received; "": they are, or Run has not tried yet.
	Error string `json:"error,omitempty"`
	// Valid is the number of credentials that may be used now. Expired is the number of credentials that
	// expired within the last hour and were not replaced. A credential that expired earlier does not count,
	// because its account may have been removed; Get still returns ErrExpired for it.
	Valid   int `json:"valid"`
	Expired int `json:"expired"`
	// NextEnd is the time at which the next credential expires if nothing replaces it; zero: no credential is
	// valid.
	NextEnd time.Time `json:"next_end,omitzero"`
}

// expiredCounts is for how long an expired credential counts.
const expiredCounts = time.Hour

// Health returns the state of the Reader. It visits all credentials: call it once in some seconds, not for
// each request.
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
	since        time.Time // when works changed last; at first, when the Reader was made
	err          error
	told         string // the reason that OnError was called with last; "": it works
}

// ErrRecovered is what OnError is called with when the changes of the bucket are received again after it was called
// because they were not.
var ErrRecovered = errors.New("the changes of the bucket are received again")

// up notes that the source works. It returns what OnError must be called with, or nil.
func (s *feedState) up(now time.Time) error {
	told := s.told
	s.works, s.since, s.err, s.told = true, now, nil, ""
	if told != "" {
		return ErrRecovered
	}
	return nil
}

// down notes that the source does not work. It returns what OnError must be called with, or nil if it was called with
// the same reason already, or the reason is part of normal operation.
func (s *feedState) down(now time.Time, err error) error {
	if s.works {
		s.works, s.since = false, now
	}
	s.err = err
	if bucket.IsRoutine(err) || err.Error() == s.told {
		return nil
	}
	s.told = err.Error()
	return err
}

func (s *feedState) stale(now time.Time) time.Duration {
	if s.works {
		return 0
	}
	return max(now.Sub(s.since), 1) // a Reader that was just made has received nothing yet
}
