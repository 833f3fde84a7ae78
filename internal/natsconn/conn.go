package natsconn

import (
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

// Conn is a connection that comes back by itself after every outage.
type Conn struct {
	*nats.Conn

	closed chan struct{}
	asked  atomic.Bool // closing was asked for through this Conn
}

// Closed returns a channel that is closed when the connection is closed for good: by Drain or Close, or because nats.go
// gave up, which Err then tells. A worker that did not ask for it should end: nothing reconnects it.
func (c *Conn) Closed() <-chan struct{} { return c.closed }

// Err returns why nats.go closed the connection, and nil while it is open or when it was closed on purpose.
func (c *Conn) Err() error {
	select {
	case <-c.closed:
	default:
		return nil
	}
	if c.asked.Load() {
		return nil
	}
	return fmt.Errorf("the NATS connection was closed: %w", errors.Join(nats.ErrConnectionClosed, c.LastError()))
}

// Close closes the connection at once. Messages that were received and not yet handled are lost.
func (c *Conn) Close() {
	c.asked.Store(true)
	c.Conn.Close()
}

// Drain stops the subscriptions, lets their handlers finish what was received, sends what is buffered, and closes the
// connection. Unlike that of nats.go it waits until all that is done; it closes at once when ctx ends, and then returns
// its error. It does not know of goroutines that handlers have started: wait for those first.
func (c *Conn) Drain(ctx context.Context) error {
	c.asked.Store(true)
	if err := c.Conn.Drain(); err != nil {
		c.Conn.Close()
		<-c.closed
		if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrConnectionReconnecting) {
			return nil // nothing is buffered on a connection that is down
		}
		return fmt.Errorf("draining the NATS connection: %w", err)
	}
	select {
	case <-c.closed:
		return nil
	case <-ctx.Done():
		c.Conn.Close()
		<-c.closed
		return fmt.Errorf("draining the NATS connection: %w", ctx.Err())
	}
}

// Connect connects to NATS; extra options come last. While no server can be reached it tries again until ctx ends, and
// says so in the log now and then; with FailFast it returns an [UnreachableError] after the first attempt. What time does
// not heal is an error at once: credentials that the server refuses, a certificate that one side does not trust, and what
// [Config.Check] finds. Once it has returned, ctx has no meaning for the connection.
func Connect(ctx context.Context, cfg Config, extra ...nats.Option) (*Conn, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = defaultTimeout
	}
	opts, err := cfg.options()
	if err != nil {
		return nil, err
	}
	url := cfg.URL
	if url == "" {
		url = nats.DefaultURL
	}
	shown := redact.URLs(url)
	dial := &dialer{ctx: ctx, timeout: cfg.ConnectTimeout}
	opts = append(opts, nats.SetCustomDialer(dial))
	quiet := newThrottle()

	for {
		c := &Conn{closed: make(chan struct{})}
		dial.forget()
		nc, err := nats.Connect(url, slices.Concat(opts, c.handlers(cfg.Logger), extra)...)
		if err == nil {
			dial.started.Store(true)
			c.Conn = nc
			cfg.Logger.Info("connected to NATS", "server", server(nc), "server_name", nc.ConnectedServerName(), "server_version", nc.ConnectedServerVersion())
			return c, nil
		}
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("connecting to NATS at %s: %w", shown, ctx.Err())
		case refused(err):
			return nil, fmt.Errorf("NATS at %s refuses this client, see NATS_CREDS, NATS_NKEY, NATS_USER, NATS_PASSWORD, NATS_TOKEN: %w", shown, err)
		case untrusted(err):
			return nil, fmt.Errorf("no TLS with NATS at %s, see NATS_URL, NATS_CA, NATS_CERT, NATS_KEY: %w", shown, err)
		}
		why := dial.why(err)
		if cfg.FailFast {
			return nil, &UnreachableError{URL: shown, Why: why, Err: err}
		}
		if n, ok := quiet.allow(why); ok {
			cfg.Logger.Warn("NATS cannot be reached, trying again", repeated(n, "url", shown, "error", why)...)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnectWait):
		}
	}
}

// refused tells an answer of the server about who we are. nats.go returns the error of the last server of the list that
// it tried, in random order: where others cannot be reached it may take some attempts until this one is seen.
func refused(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) ||
		errors.Is(err, nats.ErrAuthRevoked) || errors.Is(err, nats.ErrAccountAuthExpired) ||
		errors.Is(err, nats.ErrNkeysNotSupported)
}

func untrusted(err error) bool {
	if errors.Is(err, nats.ErrSecureConnWanted) || errors.Is(err, nats.ErrSecureConnRequired) {
		return true
	}
	var verify *tls.CertificateVerificationError
	if errors.As(err, &verify) {
		return true
	}
	var op *net.OpError // how crypto/tls reports that the peer has refused our certificate
	return errors.As(err, &op) && op.Op == "remote error"
}
