package kv

import (
	"fmt"
	"time"
)

// Get returns the current credential. [ErrNotFound]: none was ever seen. [ErrExpired]: the last one seen is dead.
//
// It asks the clock at each call; where that counts, use a [Handle].
func (r *Reader) Get(appid string, kind Kind) (Credential, error) {
	s := r.find(appid, kind)
	if s == nil {
		return Credential{}, errNotFound(appid, kind)
	}
	c, err := s.current(r.cfg.Now(), appid, kind)
	if err != nil {
		return Credential{}, err
	}
	return *c, nil
}

// AccessToken returns the current access_token of an account; errors as of [Reader.Get].
func (r *Reader) AccessToken(appid string) (string, error) {
	c, err := r.Get(appid, AccessToken)
	return c.Value, err
}

// Held returns the last credential seen, expired or not, or nil. Workers use it; it must not be changed.
func (r *Reader) Held(appid string, kind Kind) *Credential {
	if s := r.find(appid, kind); s != nil {
		return s.held.Load()
	}
	return nil
}

// find finds the slot of a credential; nil: there is none yet.
func (r *Reader) find(appid string, kind Kind) *slot {
	i := kind.index()
	if i < 0 {
		return nil
	}
	v, ok := r.slots.Load(appid)
	if !ok {
		return nil
	}
	return &v.(*slots)[i]
}

// current is what may be handed out at now.
func (s *slot) current(now time.Time, appid string, kind Kind) (*Credential, error) {
	c := s.held.Load()
	if c != nil && c.Valid(now) {
		return c, nil
	}
	if o := s.other.Load(); o != nil && o.Valid(now) {
		return o, nil
	}
	c = s.held.Load() // again: other is given up for a newer one
	switch {
	case c == nil:
		return nil, errNotFound(appid, kind)
	case c.Valid(now):
		return c, nil
	}
	return nil, fmt.Errorf("%w: %s at %s", ErrExpired, Key(appid, kind), c.ExpiresAt.Format(time.RFC3339))
}

func errNotFound(appid string, kind Kind) error {
	return fmt.Errorf("%w: %s", ErrNotFound, Key(appid, kind))
}
