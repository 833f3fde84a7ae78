package natsconn

import (
	"errors"
	"log/slog"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/redact"
)

// handlers log what NATS tells only asynchronously. They must be there from the start: micro.AddService keeps those it
// finds, and one that is set later replaces micro's own.
func (c *Conn) handlers(log *slog.Logger) []nats.Option {
	quiet := newThrottle()
	return []nats.Option{
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if c.asked.Load() || err == nil {
				log.Debug("disconnected from NATS")
				return
			}
			log.Warn("disconnected from NATS, reconnecting", "error", err)
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("reconnected to NATS", "server", server(nc), "reconnects", nc.Stats().Reconnects)
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if n, ok := quiet.allow("reconnect " + err.Error()); ok {
				log.Warn("NATS cannot be reached, trying again", repeated(n, "error", err)...)
			}
		}),
		nats.LameDuckModeHandler(func(nc *nats.Conn) {
			log.Info("the NATS server is about to stop", "server", server(nc))
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject, dropped := "", 0
			if sub != nil {
				subject = sub.Subject
				dropped, _ = sub.Dropped() // fails on a subscription that has ended: then nothing is known
			}
			n, ok := quiet.allow(subject + " " + err.Error())
			if !ok {
				return
			}
			switch {
			// A caller sees neither of these: the request it sent times out.
			case errors.Is(err, nats.ErrPermissionViolation):
				attrs := []any{"error", err}
				if r, ok := RefusalOf(err); ok && r.Inbox() {
					attrs = append(attrs, "advice", InboxAdvice)
				}
				log.Error("NATS refuses a subject to this user: its permissions are too narrow", repeated(n, attrs...)...)
			case errors.Is(err, nats.ErrSlowConsumer):
				log.Error("NATS messages were dropped: this process is too slow for its subscription", repeated(n, "subject", subject, "dropped", dropped, "error", err)...)
			case refused(err):
				log.Error("NATS refuses this client, trying again", repeated(n, "error", err)...)
			default:
				log.Warn("NATS reports an error", repeated(n, "subject", subject, "error", err)...)
			}
		}),
		nats.ClosedHandler(func(nc *nats.Conn) {
			if c.asked.Load() {
				log.Debug("the NATS connection is closed")
			} else {
				log.Error("the NATS connection is closed for good", "error", nc.LastError())
			}
			close(c.closed)
		}),
	}
}

// server is the server of the connection. nats.go's own ConnectedUrlRedacted shows a token, which stands in a URL where a
// user name does.
func server(nc *nats.Conn) string { return redact.URLs(nc.ConnectedUrl()) }
