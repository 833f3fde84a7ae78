package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/messages"
)

// Lease is the right to refresh one credential. It is held for one turn and never renewed, and the server ends
// it after its TTL. A Lease must not be used by two goroutines at once.
type Lease interface {
	// Deadline is the time until which the holder may act. It is before the end of the lease at the server.
	Deadline() time.Time
	// Publish writes the record of the lease's credential, with the life that it has left as its TTL, only if
	// this lease is still the current one: the server checks the lease and writes the record in one step.
	// Publish returns the record's revision.
	//
	// [ErrLeaseLost]: the server refused, nothing was written. messages.ErrInvalidCredential: c must not be
	// published, or less than a second of its life is left. If the answer is lost, Publish reads the record
	// back, and publishes it again if it is not stored, until the lease's deadline. [ErrUnavailable]: until
	// then the outcome was not known.
	Publish(ctx context.Context, c messages.Credential) (revision uint64, err error)
	// Release ends the lease, so that the next worker need not wait for its TTL. It returns no error, because a
	// lease that cannot be released ends after its TTL.
	Release(ctx context.Context)
}

// lease is the Lease of a Store.
type lease struct {
	s        *Store
	appid    string
	kind     messages.Kind
	revision uint64
	deadline time.Time
}

// leaseSafety is the part of a lease's life that its holder does not use: a fifth. The server counts the life
// from the arrival of the request, the holder from before it sent the request, so the part only covers clocks
// of different rates.
const leaseSafety = 5

// Acquire takes the lease of a credential for ttl (whole seconds, at least 1 s). [ErrLeaseHeld]: another worker
// holds it. [ErrUnavailable]: the outcome is unknown, and the lease may be taken until its TTL ends. If the
// answer of the server was lost (nats.go may then have asked twice), Acquire reads the lease back: it may be
// this worker's own.
func (s *Store) Acquire(ctx context.Context, appid string, kind messages.Kind, ttl time.Duration) (Lease, error) {
	creds, _, err := s.buckets()
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	asked := time.Now() // not the configured clock: the deadline is a duration, which the server counts too
	key := bucket.LeaseKey(appid, kind)
	owner, err := s.leaseOwner(appid, key, ttl)
	if err != nil {
		return nil, err
	}
	rev, err := creds.Create(asking, key, owner, jetstream.KeyTTL(ttl))
	if err != nil {
		switch got, there, readErr := s.leaderGet(ctx, s.cfg.Bucket, key); {
		case readErr == nil && bytes.Equal(got, owner):
			rev, err = there, nil
		case errors.Is(readErr, ErrNotFound) && there == 0 && isConflict(err):
			// The marker of a released lease has expired between the two requests of Create, so its revision is no
			// longer the last one of the key. No worker holds the lease.
			rev, err = creds.Create(asking, key, owner, jetstream.KeyTTL(ttl))
		case there > 0 && s.isAbandoned(appid, kind, key, got, ttl):
			if creds.Purge(asking, key, jetstream.LastRevision(there), jetstream.PurgeTTL(time.Second)) == nil {
				rev, err = creds.Create(asking, key, owner, jetstream.KeyTTL(ttl))
			}
		}
	}
	switch {
	case err == nil:
		return &lease{s: s, appid: appid, kind: kind, revision: rev, deadline: asked.Add(ttl - ttl/leaseSafety)}, nil
	case errors.Is(err, jetstream.ErrKeyExists), errors.Is(err, jetstream.ErrKeyRevisionMismatch), isConflict(err):
		return nil, fmt.Errorf("take the lease of %s: %w", messages.Key(appid, kind), ErrLeaseHeld)
	default:
		return nil, unavailable("take the lease of "+messages.Key(appid, kind), err)
	}
}

// leaseGrace is how far the clocks of two workers may differ when they look at the end of a lease.
const leaseGrace = time.Minute

// leaseOwner makes the text that a worker stores in its lease: its name, a random text, the end of the lease in Unix
// milliseconds, and the seal.
func (s *Store) leaseOwner(appid, key string, ttl time.Duration) ([]byte, error) {
	k, err := s.sealKey(appid)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("%s %s %d", s.cfg.Worker, rand.Text(), s.cfg.Now().Add(ttl).UnixMilli())
	return seal.Text(k, seal.Place{Bucket: s.cfg.Bucket, Key: key}, []byte(text)), nil
}

// isAbandoned reports whether what is stored under the key of a lease may be removed: it is no lease of a worker, or
// a lease that should have ended. The server ends a lease after its TTL, but what others store there has none: a copy
// of a lease, or the reply to a request with the lease's subject as its reply subject. It would prevent all refreshes
// of the credential permanently. A lease that is sealed with another AppSecret counts until its end, if it may
// be a worker's. ttl is the longest life of a lease.
func (s *Store) isAbandoned(appid string, kind messages.Kind, key string, stored []byte, ttl time.Duration) bool {
	if len(stored) == 0 { // the marker of a released lease, which another worker has left since
		return true
	}
	text, verdict := seal.CheckText(s.cfg.Keys(appid), seal.Place{Bucket: s.cfg.Bucket, Key: key}, stored)
	millis, err := strconv.ParseInt(string(text[bytes.LastIndexByte(text, ' ')+1:]), 10, 64)
	if verdict == seal.Forged || err != nil { // a worker's text ends with a number
		s.cfg.OnForgedLease(appid, kind)
		return true
	}
	if verdict == seal.Foreign && !s.cfg.IsForeignLease(appid, kind) {
		return true
	}
	now, end := s.cfg.Now(), time.UnixMilli(millis)
	tooLong := verdict == seal.Foreign && end.After(now.Add(ttl+leaseGrace)) // what others seal may say anything
	return tooLong || now.After(end.Add(leaseGrace))
}

// isConflict reports whether the server refused a write because another write came first, or is in flight.
// Create of the KV client returns the server's own error if the key has the marker of a released lease.
func isConflict(err error) bool {
	return hasCode(err, jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// hasCode reports whether err is the server's answer with one of some error codes.
func hasCode(err error, codes ...jetstream.ErrorCode) bool {
	var ae *jetstream.APIError
	return errors.As(err, &ae) && slices.Contains(codes, ae.ErrorCode)
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
	data, err := l.s.sealed(l.s.cfg.Bucket, c.AppID, messages.Key(c.AppID, c.Kind), c)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithDeadline(ctx, l.deadline)
	defer cancel()
	inDoubt := false // an earlier try may have been stored, though its answer was lost
	for pause := 50 * time.Millisecond; ; pause *= 2 {
		rev, err := l.publishOnce(ctx, c, data)
		lost := errors.Is(err, ErrLeaseLost)
		if err == nil || lost && !inDoubt || errors.Is(err, messages.ErrInvalidCredential) {
			return rev, err
		}
		reading := ctx
		if lost { // maybe because the lease has ended, and with it ctx
			reading = context.WithoutCancel(ctx)
		}
		if have, getErr := l.s.Get(reading, c.AppID, c.Kind); getErr == nil && isPublication(have, c) {
			return have.Revision, nil
		}
		if lost {
			return 0, err
		}
		inDoubt = true
		select {
		case <-ctx.Done():
			return 0, err
		case <-time.After(pause):
		}
	}
}

// isPublication reports whether the stored record is the publication of c, and not the record before it: a
// ticket keeps its value and its generation when its life becomes longer.
func isPublication(stored, c messages.Credential) bool {
	return stored.Generation == c.Generation && stored.Value == c.Value && stored.ExpiresAt.Equal(c.ExpiresAt)
}

func (l *lease) publishOnce(ctx context.Context, c messages.Credential, data []byte) (uint64, error) {
	// The server counts the TTL in whole seconds. Rounding down removes the record early, never late.
	ttl := c.ExpiresAt.Sub(l.s.cfg.Now()).Truncate(time.Second)
	if ttl < time.Second {
		return 0, fmt.Errorf("%w: less than a second of its life is left", messages.ErrInvalidCredential)
	}
	// A lost answer must not use up the lease: half of its time is left for reading back and publishing again.
	ctx, cancel := context.WithTimeout(ctx, min(l.s.cfg.Timeout, time.Until(l.deadline)/2))
	defer cancel()
	subject := bucket.InDomain(l.s.cfg.JSDomain, l.subject(messages.Key(l.appid, l.kind)))
	ack, err := l.s.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: data},
		jetstream.WithExpectStream(bucket.Stream(l.s.cfg.Bucket)),
		jetstream.WithExpectLastSequenceForSubject(l.revision, l.subject(bucket.LeaseKey(l.appid, l.kind))),
		jetstream.WithMsgTTL(ttl))
	switch {
	case err == nil:
		return ack.Sequence, nil
	case hasCode(err, jetstream.JSErrCodeStreamWrongLastSequence):
		return 0, fmt.Errorf("publish %s: %w", messages.Key(l.appid, l.kind), ErrLeaseLost)
	default: // also 10164: a write of this subject is in flight, so the outcome is still open
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
		key := bucket.LeaseKey(l.appid, l.kind)
		err := creds.Purge(ctx, key, jetstream.LastRevision(l.revision), jetstream.PurgeTTL(time.Second))
		// With replicas, the record that this lease has just published counts as a write in flight for a moment
		// (10164). Without another try the lease would last for its whole TTL.
		if !hasCode(err, jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
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
