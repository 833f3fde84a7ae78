package worker

import (
	"context"
	"time"
)

// clock is the time of refreshes. Tests replace it by a virtual one.
type clock interface {
	// Now is the time by which credentials expire. It may be wrong, as the clock of a machine may be.
	Now() time.Time
	// Until is the time until a deadline of a lease. It is measured as a duration and does not depend on Now
	// being right.
	Until(deadline time.Time) time.Duration
	// WithDeadline is context.WithDeadline, measured like Until.
	WithDeadline(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc)
	// Wait returns after d, or when wake is closed, or when ctx ends. wake may be nil.
	Wait(ctx context.Context, d time.Duration, wake <-chan struct{})
}

// systemClock is the clock of production.
type systemClock struct{ now func() time.Time }

func (c systemClock) Now() time.Time { return c.now() }

func (systemClock) Until(deadline time.Time) time.Duration { return time.Until(deadline) }

func (systemClock) WithDeadline(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc) {
	return context.WithDeadline(ctx, deadline)
}

func (systemClock) Wait(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-ctx.Done():
	}
}
