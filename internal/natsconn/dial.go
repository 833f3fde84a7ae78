package natsconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

// UnreachableError is returned if no server of the list could be reached.
type UnreachableError struct {
	URL string // of the servers, without user names, passwords and tokens
	Why string // the causes, short: "connection refused"
	// Advice says what to do about each cause; "" if no cause is known.
	Advice string
	// Reached: something listens at one of the addresses, and the connection to it failed later.
	Reached bool
	Err     error // the error of nats.go
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no NATS server can be reached at %s, see NATS_URL: %s", e.URL, e.Reason())
}

// Reason is Why, and Advice if there is one.
func (e *UnreachableError) Reason() string {
	if e.Advice == "" {
		return e.Why
	}
	return e.Why + "; " + e.Advice
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// dialer ends the dials of Connect with the context of Connect, but not later reconnects. It also records why
// each address could not be reached: nats.go returns "no servers available for connection" for a refused
// connection, and of several servers only the error of the last.
type dialer struct {
	ctx     context.Context //nolint:containedctx // nats.go's dialer interface has no context
	timeout time.Duration
	started atomic.Bool // Connect has returned

	// failed has the dials that failed before. Connect makes them one after another.
	failed []failedDial
}

type failedDial struct{ address, why, advice string }

func (d *dialer) Dial(network, address string) (net.Conn, error) {
	nd := net.Dialer{Timeout: d.timeout}
	if d.started.Load() {
		return nd.Dial(network, address)
	}
	c, err := nd.DialContext(d.ctx, network, address)
	if err != nil {
		d.failed = append(d.failed, failedDial{address, dialCause(err, d.timeout), adviceFor(err)})
	}
	return c, err
}

// advice says what to do about each cause; err is the error of nats.go.
func (d *dialer) advice(err error) string {
	var all []string
	add := func(advice string) {
		if advice != "" && !slices.Contains(all, advice) {
			all = append(all, advice)
		}
	}
	for _, f := range d.failed {
		add(f.advice)
	}
	if d.reached(err) {
		add(adviceFor(err))
	}
	return strings.Join(all, "; ")
}

// reached reports whether a connection was made, and failed later with err.
func (d *dialer) reached(err error) bool { return !isDialError(err) || len(d.failed) == 0 }

// isDialError reports whether nats.go made no connection.
func isDialError(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return errors.Is(err, nats.ErrNoServers) || ok && op.Op == "dial"
}

// why describes why no server was reached: the cause for each address, or only the cause if it is the same
// for all; and err, the error of nats.go, if a connection was made and then failed.
func (d *dialer) why(err error) string {
	atDial := isDialError(err)
	same := atDial && len(d.failed) > 0
	var all []string
	for _, f := range d.failed {
		same = same && f.why == d.failed[0].why
		all = append(all, f.address+": "+f.why)
	}
	if same {
		return d.failed[0].why
	}
	switch {
	case errors.Is(err, nats.ErrNoServers) && len(all) == 0: // nats.go returns no cause
		all = append(all, "the connection was closed before it was ready")
	case !atDial || len(all) == 0:
		all = append(all, err.Error())
	}
	return strings.Join(all, "; ")
}

// dialCause is the cause of a failed dial, without the text that the net package adds.
func dialCause(err error, timeout time.Duration) string {
	var dns *net.DNSError
	var errno syscall.Errno
	var timed interface{ Timeout() bool }
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host " + dns.Name
	case errors.As(err, &dns):
		return "look up " + dns.Name + ": " + dns.Err
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &timed) && timed.Timeout():
		return fmt.Sprintf("no answer within %s", timeout)
	}
	return err.Error()
}
