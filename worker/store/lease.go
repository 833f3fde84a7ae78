package store

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

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// Lease is the right to refresh one credential. It is held for one turn, never renewed, and the server ends it after its
// TTL. A Lease is used by one goroutine.
type Lease interface {
	// Deadline is the time until which the holder may act. It is before the end of the lease at the server.
	Deadline() time.Time
	// Publish writes the record of the lease's credential, with a TTL of the life it has left, and only if the lease is
	// still the current one: the server checks both in one step. It returns the record's revision.
	//
	// [ErrLeaseLost]: refused, nothing was written. messages.ErrInvalidCredential: not a record to publish, or less than a
	// second of its life is left. A lost answer is not an error: the record is read back, and published again if it is not
	// stored, until the lease's deadline; only then [ErrUnavailable] means that the outcome is unknown.
	Publish(ctx context.Context, c messages.Credential) (revision uint64, err error)
	// Release ends the lease, so that the next worker need not wait for its end. It has no error: a lease that cannot be
	// released ends by itself.
	Release(ctx context.Context)
}

// lease is a Lease of a Store.
type lease struct {
	s        *Store
	appid    string
	kind     messages.Kind
	revision uint64
	deadline time.Time
}

// leaseSafety is the part of a lease's life that its holder does not use: the server counts the life from the arrival of
// the request, the holder from before it was sent, so it covers only a difference in the rate of two clocks.
const leaseSafety = 5 // a fifth

// Acquire takes the lease of a credential for ttl (whole seconds, at least 1 s): [ErrLeaseHeld] if another worker holds it,
// [ErrUnavailable] if the outcome is unknown (the lease may then be taken until its TTL ends). If the answer of the server
// was lost, or nats.go has asked twice because of that, the lease is read back: it may be this worker's own.
func (s *Store) Acquire(ctx context.Context, appid string, kind messages.Kind, ttl time.Duration) (Lease, error) {
	creds, _, err := s.buckets()
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	asked := time.Now() // monotonic, and not the configured clock: the deadline is a duration, counted here and at the server
	owner := []byte(s.cfg.Worker + " " + rand.Text())
	key := bucket.LeaseKey(appid, kind)
	rev, err := creds.Create(asking, key, owner, jetstream.KeyTTL(ttl))
	if err != nil {
		switch got, there, readErr := s.leaderGet(ctx, s.cfg.Bucket, key); {
		case readErr == nil && bytes.Equal(got, owner):
			rev, err = there, nil
		case there > 0 && !isOwner(got): // it has no TTL, and would block all refreshes of this credential permanently
			if creds.Purge(asking, key, jetstream.LastRevision(there), jetstream.PurgeTTL(time.Second)) == nil {
				rev, err = creds.Create(asking, key, owner, jetstream.KeyTTL(ttl))
			}
		}
	}
	switch {
	case err == nil:
		return &lease{s: s, appid: appid, kind: kind, revision: rev, deadline: asked.Add(ttl - ttl/leaseSafety)}, nil
	case errors.Is(err, jetstream.ErrKeyExists), errors.Is(err, jetstream.ErrKeyRevisionMismatch), isConflict(err):
		return nil, fmt.Errorf("%w: %s", ErrLeaseHeld, messages.Key(appid, kind))
	default:
		return nil, unavailable("take the lease of "+messages.Key(appid, kind), err)
	}
}

// isOwner reports whether value has the form of what a worker stores as the owner of a lease. Anything else was stored by
// hand, or is the reply to a request that named the lease's subject as its reply subject: NATS checks no permission of the
// requester for that.
func isOwner(value []byte) bool {
	text := value[bytes.LastIndexByte(value, ' ')+1:]
	return len(text) < len(value) && len(text) == len(rand.Text()) && len(bytes.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")) == 0
}

// isConflict reports whether the server refused a write because another write came first or is in flight (10164). Create
// returns the server's own error if the key has the marker of a released lease.
func isConflict(err error) bool {
	var ae *jetstream.APIError
	return errors.As(err, &ae) &&
		(ae.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || ae.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

func (l *lease) Deadline() time.Time { return l.deadline }

func (l *lease) Publish(ctx context.Context, c messages.Credential) (uint64, error) {
	if c.AppID != l.appid || c.Kind != l.kind {
		return 0, fmt.Errorf("%w: the lease is for %s", messages.ErrInvalidCredential, messages.Key(l.appid, l.kind))
	}
	if err := c.Validate(); err != nil {
		return 0, err
	}
	c.Revision = 0 // the bucket gives the record its revision
	data, err := json.Marshal(c)
	if err != nil {
		return 0, err
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

func (l *lease) publishOnce(ctx context.Context, c messages.Credential, data []byte) (uint64, error) {
	// The server counts the TTL in whole seconds; rounding down ends the record early, never late.
	ttl := c.ExpiresAt.Sub(l.s.cfg.Now()).Truncate(time.Second)
	if ttl < time.Second {
		return 0, fmt.Errorf("%w: less than a second of its life is left", messages.ErrInvalidCredential)
	}
	// A lost answer must not use up the lease: half of the time that is left is for reading back and publishing again.
	ctx, cancel := context.WithTimeout(ctx, min(l.s.cfg.Timeout, time.Until(l.deadline)/2))
	defer cancel()
	ack, err := l.s.js.PublishMsg(ctx, &nats.Msg{Subject: l.subject(messages.Key(l.appid, l.kind)), Data: data},
		jetstream.WithExpectStream(bucket.Stream(l.s.cfg.Bucket)),
		jetstream.WithExpectLastSequenceForSubject(l.revision, l.subject(bucket.LeaseKey(l.appid, l.kind))),
		jetstream.WithMsgTTL(ttl))
	var ae *jetstream.APIError
	switch {
	case err == nil:
		return ack.Sequence, nil
	case errors.As(err, &ae) && ae.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence:
		return 0, fmt.Errorf("%w: %s", ErrLeaseLost, messages.Key(l.appid, l.kind))
	default: // also 10164: a write of this subject is in flight, so the outcome is not decided yet
		return 0, unavailable("publish "+messages.Key(l.appid, l.kind), err)
	}
}

func (l *lease) Release(ctx context.Context) {
	creds, _, err := l.s.buckets()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, l.s.cfg.Timeout)
	defer cancel()
	for pause := 5 * time.Millisecond; ; pause *= 2 {
		err := creds.Purge(ctx, bucket.LeaseKey(l.appid, l.kind), jetstream.LastRevision(l.revision), jetstream.PurgeTTL(time.Second))
		// 10164: with replicas, the record that this lease has just published counts as a write in flight for a moment.
		// Without another try the lease would be held for its whole TTL.
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

func (l *lease) subject(key string) string { return bucket.Subject(l.s.cfg.Bucket, key) }
