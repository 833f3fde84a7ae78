package kv

import (
	"fmt"
	"slices"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
)

// Get returns the current credential. [ErrNotFound]: none was ever seen. [ErrExpired]: the last one seen is dead.
//
// It asks the clock at each call; where that counts, use a [Handle].
func (r *Reader) Get(appid string, kind messages.Kind) (messages.Credential, error) {
	s := r.find(appid, kind)
	if s == nil {
		return messages.Credential{}, errNotFound(appid, kind)
	}
	c, err := s.current(r.cfg.Now(), appid, kind)
	if err != nil {
		return messages.Credential{}, err
	}
	return *c, nil
}

// AccessToken returns the current access_token of an account; errors as of [Reader.Get].
func (r *Reader) AccessToken(appid string) (string, error) {
	c, err := r.Get(appid, messages.AccessToken)
	return c.Value, err
}

// Held returns the last credential seen, expired or not, or nil. Workers use it; it must not be changed.
func (r *Reader) Held(appid string, kind messages.Kind) *messages.Credential {
	if s := r.find(appid, kind); s != nil {
		return s.held.Load()
	}
	return nil
}

// find finds the slot of a credential; nil: there is none yet.
func (r *Reader) find(appid string, kind messages.Kind) *slot {
	i := kindIndex(kind)
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
func (s *slot) current(now time.Time, appid string, kind messages.Kind) (*messages.Credential, error) {
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
	return nil, fmt.Errorf("%w: %s at %s", ErrExpired, messages.Key(appid, kind), c.ExpiresAt.Format(time.RFC3339))
}

func errNotFound(appid string, kind messages.Kind) error {
	return fmt.Errorf("%w: %s", ErrNotFound, messages.Key(appid, kind))
}

// kindIndex is the place of a kind in messages.Kinds, or -1.
func kindIndex(kind messages.Kind) int { return slices.Index(messages.Kinds[:], kind) }
