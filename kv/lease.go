package kv

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/messages"
)

// Lease is the right to refresh one credential. It is held for one refresh, never renewed, and ends by itself at the
// server. A Lease is used by one goroutine.
type Lease struct {
	s        *Store
	appid    string
	kind     messages.Kind
	revision uint64
	deadline time.Time
}

// leaseSafety is the part of a lease's life that its holder leaves unused: the server counts the life from when the
// request reached it, the holder from before it was sent, so only a difference in the rate of two clocks is left.
const leaseSafety = 5 // a fifth

// Acquire takes the lease of a credential for ttl (whole seconds, at least 1 s): [ErrLeaseHeld] where another has it,
// [ErrUnavailable] where the outcome is unknown (the lease may then stand until its TTL ends). Where the answer of the
// server was lost, and where nats.go has asked twice because of that, the lease is read back: it may be this worker's own.
func (s *Store) Acquire(ctx context.Context, appid string, kind messages.Kind, ttl time.Duration) (*Lease, error) {
	creds, _, err := s.buckets()
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	asked := time.Now() // monotonic; not the configured clock: this deadline is a duration, counted here and at the server
	mark := []byte(s.cfg.Worker + " " + rand.Text())
	key := leaseKey(appid, kind)
	rev, err := creds.Create(asking, key, mark, jetstream.KeyTTL(ttl))
	if err != nil {
		switch got, there, readErr := s.leaderGet(ctx, s.cfg.Bucket, key); {
		case readErr == nil && bytes.Equal(got, mark):
			rev, err = there, nil
		case there > 0 && !isMark(got): // it has no TTL: nobody would ever refresh this credential again
			if creds.Purge(asking, key, jetstream.LastRevision(there), jetstream.PurgeTTL(time.Second)) == nil {
				rev, err = creds.Create(asking, key, mark, jetstream.KeyTTL(ttl))
			}
		}
	}
	switch {
	case err == nil:
		return &Lease{s: s, appid: appid, kind: kind, revision: rev, deadline: asked.Add(ttl - ttl/leaseSafety)}, nil
	case errors.Is(err, jetstream.ErrKeyExists), errors.Is(err, jetstream.ErrKeyRevisionMismatch), isConflict(err):
		return nil, fmt.Errorf("%w: %s", ErrLeaseHeld, messages.Key(appid, kind))
	default:
		return nil, unavailable("taking the lease of "+messages.Key(appid, kind), err)
	}
}

// isMark tells what a worker writes into a lease from what else may stand there: the reply to a request that named the
// lease's subject for it (NATS asks for no permission for that), or a hand's work.
func isMark(value []byte) bool {
	text := value[bytes.LastIndexByte(value, ' ')+1:]
	return len(text) < len(value) && len(text) == len(rand.Text()) && len(bytes.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")) == 0
}

// isConflict reports whether the server refused a write because another came first, or is just coming (10164): over the
// marker of a released lease, Create returns the bare answer.
func isConflict(err error) bool {
	var ae *jetstream.APIError
	return errors.As(err, &ae) &&
		(ae.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || ae.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// Deadline is until when the holder may act. It lies before the end of the lease at the server.
func (l *Lease) Deadline() time.Time { return l.deadline }

// Publish writes the record of the lease's credential, with a TTL of the life it has left, and only if the lease
// still stands: the server checks both in one step. It returns the record's revision.
//
// [ErrLeaseLost]: refused, nothing was written. [ErrInvalid]: not a record to publish, or without a second to live.
// A lost answer is not an error: the record is read back, and published again if it is not there, until the lease's
// deadline; only then [ErrUnavailable] says that its fate is unknown.
func (l *Lease) Publish(ctx context.Context, c messages.Credential) (uint64, error) {
	if c.AppID != l.appid || c.Kind != l.kind {
		return 0, fmt.Errorf("%w: the lease is for %s", messages.ErrInvalidCredential, messages.Key(l.appid, l.kind))
	}
	if err := c.Validate(); err != nil {
		return 0, err
	}
	c.Revision = 0 // the bucket gives the record its revision
	data, err := json.Marshal(c)
	if err != nil {
		return 0, fmt.Errorf("kv: %w", err)
	}
	ctx, cancel := context.WithDeadline(ctx, l.deadline)
	defer cancel()
	for pause := 50 * time.Millisecond; ; pause *= 2 {
		rev, err := l.publishOnce(ctx, c, data)
		if err == nil || errors.Is(err, ErrLeaseLost) || errors.Is(err, messages.ErrInvalidCredential) {
			return rev, err
		}
		if have, getErr := l.s.Get(ctx, c.AppID, c.Kind); getErr == nil && have.Generation == c.Generation && have.Value == c.Value && have.ExpiresAt.Equal(c.ExpiresAt) {
			return have.Revision, nil
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-time.After(pause):
		}
	}
}

func (l *Lease) publishOnce(ctx context.Context, c messages.Credential, data []byte) (uint64, error) {
	// The server counts the TTL in whole seconds; rounding down ends the record early, never late.
	ttl := c.ExpiresAt.Sub(l.s.cfg.Now()).Truncate(time.Second)
	if ttl < time.Second {
		return 0, fmt.Errorf("%w: it has no second to live", messages.ErrInvalidCredential)
	}
	// An answer that does not come must not use up the lease: half of what is left is for reading back and for once more.
	ctx, cancel := context.WithTimeout(ctx, min(l.s.cfg.Timeout, time.Until(l.deadline)/2))
	defer cancel()
	ack, err := l.s.js.PublishMsg(ctx, &nats.Msg{Subject: l.subject(messages.Key(l.appid, l.kind)), Data: data},
		jetstream.WithExpectStream(streamName(l.s.cfg.Bucket)),
		jetstream.WithExpectLastSequenceForSubject(l.revision, l.subject(leaseKey(l.appid, l.kind))),
		jetstream.WithMsgTTL(ttl))
	var ae *jetstream.APIError
	switch {
	case err == nil:
		return ack.Sequence, nil
	case errors.As(err, &ae) && ae.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence:
		return 0, fmt.Errorf("%w: %s", ErrLeaseLost, messages.Key(l.appid, l.kind))
	default: // also 10164, a write of this subject in flight: not decided yet
		return 0, unavailable("publishing "+messages.Key(l.appid, l.kind), err)
	}
}

// Release gives the lease back, so that the next worker need not wait for its end. A lease that has already gone, or
// cannot be given back, is no error: it ends by itself.
func (l *Lease) Release(ctx context.Context) {
	creds, _, err := l.s.buckets()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, l.s.cfg.Timeout)
	defer cancel()
	for pause := 5 * time.Millisecond; ; pause *= 2 {
		err := creds.Purge(ctx, leaseKey(l.appid, l.kind), jetstream.LastRevision(l.revision), jetstream.PurgeTTL(time.Second))
		// 10164: on replicas, the record that this lease has just published counts for a moment as a write in flight. Given up
		// here, the lease would stand for its whole life.
		var ae *jetstream.APIError
		if !errors.As(err, &ae) || ae.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequenceConstant {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (l *Lease) subject(key string) string { return keyPrefix(l.s.cfg.Bucket) + key }
