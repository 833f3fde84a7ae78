package natsconn

import (
	"errors"
	"log/slog"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/redact"
)

// handlers returns the handlers that log what NATS reports only asynchronously. They must be set when the
// connection is made: micro.AddService calls the handlers that it finds, but a handler that is set later
// replaces micro's own.
func (c *Conn) handlers(log *slog.Logger) []nats.Option {
	lines := newThrottle()
	return []nats.Option{
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if c.closing.Load() || err == nil {
				log.Debug("disconnected from NATS")
				return
			}
			log.Warn("disconnected from NATS, reconnecting", "error", err)
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("reconnected to NATS", "server", server(nc), "reconnects", nc.Stats().Reconnects)
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if n, ok := lines.allow("reconnect " + err.Error()); ok {
				log.Warn("NATS cannot be reached, trying again", withDropped(n, withAdvice(adviceFor(err), "error", err)...)...)
			}
		}),
		nats.LameDuckModeHandler(func(nc *nats.Conn) {
			log.Info("the NATS server is about to stop", "server", server(nc))
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject, dropped := "", 0
			if sub != nil {
				subject = sub.Subject
				dropped, _ = sub.Dropped() // the error means that the subscription has ended
			}
			n, ok := lines.allow(subject + " " + err.Error())
			if !ok {
				return
			}
			switch {
			// The caller sees no error in the first two cases: its request times out.
			case errors.Is(err, nats.ErrPermissionViolation):
				attrs := []any{"error", err}
				if denied, ok := Denied(err); ok && denied.Inbox() {
					attrs = append(attrs, "advice", InboxAdvice)
				}
				log.Error("this NATS user has no permission for a subject", withDropped(n, attrs...)...)
			case errors.Is(err, nats.ErrSlowConsumer):
				log.Error("NATS messages were dropped, this process is too slow for a subscription",
					withDropped(n, "subject", subject, "dropped", dropped, "error", err)...)
			case refused(err):
				log.Error("NATS refuses this client, trying again", withDropped(n, "error", err)...)
			default:
				log.Warn("NATS connection error", withDropped(n, "subject", subject, "error", err)...)
			}
		}),
		nats.ClosedHandler(func(nc *nats.Conn) {
			if c.closing.Load() {
				log.Debug("NATS connection closed")
			} else {
				log.Error("NATS connection closed by the client library, it will not reconnect", "error",
					nc.LastError())
			}
			close(c.closed)
		}),
	}
}

// server is the URL of the connected server. ConnectedUrlRedacted of nats.go shows a token, because a token is in the
// place of a user name.
func server(nc *nats.Conn) string { return redact.URLs(nc.ConnectedUrl()) }
