package natsconn

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/redact"
)

// Conn is a connection that reconnects after every outage.
type Conn struct {
	*nats.Conn

	closed  chan struct{}
	closing atomic.Bool // Drain or Close was called
}

// Closed returns a channel that is closed when the connection is closed permanently: by Drain or Close, or because
// nats.go gave up. Err returns the cause. A worker whose connection nats.go has closed must end, because nothing
// reconnects it.
func (c *Conn) Closed() <-chan struct{} { return c.closed }

// Err returns why nats.go closed the connection. It returns nil while the connection is open, and after Drain
// or Close.
func (c *Conn) Err() error {
	if c.closing.Load() || !c.IsClosed() {
		return nil
	}
	return fmt.Errorf("the NATS connection was closed: %w", errors.Join(nats.ErrConnectionClosed, c.LastError()))
}

// Close closes the connection at once. Messages that were received but not yet handled are lost.
func (c *Conn) Close() {
	c.closing.Store(true)
	c.Conn.Close()
}

// Drain stops the subscriptions, waits until their handlers have handled all received messages, sends what is
// buffered, and closes the connection. Unlike Drain of nats.go it blocks until all this is done. When ctx
// ends it closes the connection at once and returns the error of ctx. It does not wait for goroutines that
// handlers have started: wait for them before.
func (c *Conn) Drain(ctx context.Context) error {
	c.closing.Store(true)
	if err := c.Conn.Drain(); err != nil {
		c.Conn.Close()
		<-c.closed
		if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrConnectionReconnecting) {
			return nil // a connection that is down buffers nothing
		}
		return fmt.Errorf("drain the NATS connection: %w", err)
	}
	select {
	case <-c.closed:
		return nil
	case <-ctx.Done():
		c.Conn.Close()
		<-c.closed
		return fmt.Errorf("drain the NATS connection: %w", ctx.Err())
	}
}

// Connect connects to NATS; extra options are applied last. If no server can be reached, Connect tries again
// until ctx ends, and logs this from time to time; with FailFast it returns an [UnreachableError] after the
// first attempt. Errors that waiting cannot repair are returned at once: the server refuses the credentials,
// one side does not trust the certificate of the other, or [Config.Check] fails. After Connect has returned,
// ctx does not affect the connection.
func Connect(ctx context.Context, cfg Config, extra ...nats.Option) (*Conn, error) {
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	cfg.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, defaultTimeout)
	opts, err := cfg.options()
	if err != nil {
		return nil, err
	}
	url := cmp.Or(cfg.URL, nats.DefaultURL)
	shown := redact.URLs(url)
	lines := newThrottle()

	for {
		c := &Conn{closed: make(chan struct{})}
		dial := &dialer{ctx: ctx, timeout: cfg.ConnectTimeout}
		handlers := append(c.handlers(cfg.Logger), nats.SetCustomDialer(dial))
		nc, err := nats.Connect(url, slices.Concat(opts, handlers, extra)...)
		if err == nil {
			dial.started.Store(true)
			c.Conn = nc
			cfg.Logger.Info("connected to NATS", "server", server(nc), "server_name", nc.ConnectedServerName(),
				"server_version", nc.ConnectedServerVersion())
			return c, nil
		}
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("connect to NATS at %s: %w", shown, ctx.Err())
		case refused(err):
			return nil, fmt.Errorf("NATS at %s refuses this client, which has sent %s; see NATS_CREDS, NATS_NKEY, NATS_USER, "+
				"NATS_PASSWORD, NATS_TOKEN: %w", shown, cfg.sends(), err)
		case untrusted(err):
			return nil, fmt.Errorf("no TLS with NATS at %s, see NATS_URL, NATS_CA, NATS_CERT, NATS_KEY: %w; %s", shown, err,
				adviceForTLS(err))
		}
		why, advice := dial.why(err), dial.advice(err)
		if cfg.FailFast {
			return nil, &UnreachableError{URL: shown, Why: why, Advice: advice, Reached: dial.reached(err), Err: err}
		}
		if n, ok := lines.allow(why); ok {
			cfg.Logger.Warn("NATS cannot be reached, trying again", withDropped(n, withAdvice(advice, "url", shown, "error",
				why)...)...)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnectWait):
		}
	}
}

// refused reports whether the server refuses the credentials of this client. nats.go tries the servers of the list in
// random order and returns the last error: if other servers cannot be reached, it can take several attempts until the
// error of the refusing server is returned.
func refused(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) ||
		errors.Is(err, nats.ErrAuthRevoked) || errors.Is(err, nats.ErrAccountAuthExpired) ||
		errors.Is(err, nats.ErrNkeysNotSupported)
}

// untrusted reports whether TLS cannot be established: because one side wants none, or does not trust the other.
func untrusted(err error) bool {
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	// In this form crypto/tls returns that the peer has refused our certificate.
	op, refused := errors.AsType[*net.OpError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	return errors.Is(err, nats.ErrSecureConnWanted) || errors.Is(err, nats.ErrSecureConnRequired) || unverified ||
		noTLS || refused && op.Op == "remote error"
}
