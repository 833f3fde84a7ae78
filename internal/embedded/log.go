package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/nats-io/nats-server/v2/server"
)

// bridge is the server's logger. The logger of nats-server ends the process in Fatalf; this one keeps the
// error, because the server returns no other error if it cannot open its listener or read its store.
type bridge struct {
	log     *slog.Logger
	clients *perSecond // lines about single clients, which a stranger can cause
	rebuilt sync.Once  // the line that JetStream rebuilds its indexes

	mu  sync.Mutex
	err error
}

func newBridge(log *slog.Logger) *bridge {
	return &bridge{log: log, clients: newPerSecond(func(times int, last string) {
		log.Warn("nats-server complains of clients", "times", times, "says", last)
	})}
}

// stop writes what was not written yet.
func (b *bridge) stop() { b.clients.stop() }

// Noticef, Debugf and Tracef log at debug level: operators of wxkeeper do not need these lines.
func (b *bridge) Noticef(format string, v ...any) { b.write(slog.LevelDebug, format, v) }
func (b *bridge) Debugf(format string, v ...any)  { b.write(slog.LevelDebug, format, v) }
func (b *bridge) Tracef(format string, v ...any)  { b.write(slog.LevelDebug, format, v) }
func (b *bridge) Warnf(format string, v ...any)   { b.write(slog.LevelWarn, format, v) }
func (b *bridge) Errorf(format string, v ...any)  { b.write(slog.LevelError, format, v) }

func (b *bridge) write(level slog.Level, format string, v []any) {
	ctx := context.Background()
	if !b.log.Enabled(ctx, level) {
		return
	}
	text := fmt.Sprintf(format, v...)
	switch {
	case level < slog.LevelWarn:
	case strings.Contains(text, server.ErrAuthentication.Error()):
		return // the guard logs it; this line has the user name that the client has sent, which may be a misplaced token
	case level == slog.LevelWarn && isRebuild(text):
		b.rebuilt.Do(func() {
			b.log.Info("the last stop was not clean: JetStream rebuilds the indexes of its store, and loses nothing")
		})
		b.log.Debug("nats-server", "says", text)
		return
	case strings.Contains(text, " - cid:"):
		b.clients.add(text)
		return
	}
	b.log.Log(ctx, level, "nats-server", "says", text)
}

// isRebuild reports whether a warning is about indexes of the store that are older than the store, as they are after a
// process was killed: "TTL state is outdated; attempting to recover …", "Stream state outdated, … will rebuild".
func isRebuild(text string) bool {
	return strings.Contains(text, "state is outdated; attempting to recover") ||
		strings.Contains(text, "Stream state outdated, ")
}

// Fatalf keeps the error among its arguments, because Start treats an address in use differently from other errors.
func (b *bridge) Fatalf(format string, v ...any) {
	err := fmt.Errorf(format, v...)
	for _, a := range v {
		if e, ok := a.(error); ok {
			err = e
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil { // the first error is the cause of the others
		b.err = err
	}
}

func (b *bridge) fatal() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
