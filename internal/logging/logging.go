// Package logging makes the logger of a process from WXKEEPER_LOG_FORMAT and WXKEEPER_LOG_LEVEL.
package logging

import (
	"io"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// DefaultLevel is the level of [New] if none is given.
const DefaultLevel = "info"

// New returns a logger that writes to w. The format is text or json. If it is empty, the format is text if w
// is a terminal, where people read, and else json, which log collectors read. The level is debug, info, warn
// or error; empty means [DefaultLevel]. The error is a [setting.Error].
func New(w io.Writer, format, level string) (*slog.Logger, error) {
	if level == "" {
		level = DefaultLevel
	}
	opts := &slog.HandlerOptions{}
	switch strings.ToLower(level) {
	case "debug":
		opts.Level = slog.LevelDebug
	case "info":
		opts.Level = slog.LevelInfo
	case "warn":
		opts.Level = slog.LevelWarn
	case "error":
		opts.Level = slog.LevelError
	default: // slog's own parser would also accept "warn+3"
		return nil, setting.Errorf("WXKEEPER_LOG_LEVEL", "%q is not one of debug, info, warn, error", level)
	}
	if format == "" {
		format = "json"
		if isTerminal(w) {
			format = "text"
		}
	}
	switch strings.ToLower(format) {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	default:
		return nil, setting.Errorf("WXKEEPER_LOG_FORMAT", "%q is not one of text, json", format)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
