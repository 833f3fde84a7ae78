package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
)

// bridge is the server's logger. The stock one ends the process in Fatalf; this one remembers the error, which is the
// only report of a listener that could not be opened or of a store that could not be read.
type bridge struct {
	log *slog.Logger

	mu  sync.Mutex
	err error
}

// Noticef, Debugf and Tracef are of no interest in a running system.
func (b *bridge) Noticef(format string, v ...any) { b.say(slog.LevelDebug, format, v) }
func (b *bridge) Debugf(format string, v ...any)  { b.say(slog.LevelDebug, format, v) }
func (b *bridge) Tracef(format string, v ...any)  { b.say(slog.LevelDebug, format, v) }
func (b *bridge) Warnf(format string, v ...any)   { b.say(slog.LevelWarn, format, v) }
func (b *bridge) Errorf(format string, v ...any)  { b.say(slog.LevelError, format, v) }

func (b *bridge) say(level slog.Level, format string, v []any) {
	if ctx := context.Background(); b.log.Enabled(ctx, level) {
		b.log.Log(ctx, level, "nats-server", "says", fmt.Sprintf(format, v...))
	}
}

// Fatalf keeps the error among its arguments, so that the caller of Start can tell an address that is taken from others.
func (b *bridge) Fatalf(format string, v ...any) {
	err := fmt.Errorf(format, v...)
	for _, a := range v {
		if e, ok := a.(error); ok {
			err = e
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil { // the first is the cause
		b.err = err
	}
}

func (b *bridge) fatal() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
