// Package logging makes the logger of a process from WXKEEPER_LOG_FORMAT and WXKEEPER_LOG_LEVEL.
package logging

import (
	"cmp"
	"io"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/wxkeeper/wxkeeper/internal/safetext"
	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// DefaultLevel is the level of [New] if none is given.
const DefaultLevel = "info"

// levels are the values of WXKEEPER_LOG_LEVEL. slog's own parser would also accept "warn+3".
var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

// New returns a logger that writes to w. The format is text or json. If it is empty, the format is text if w
// is a terminal, where people read, and else json, which log collectors read. The level is debug, info, warn
// or error; empty means [DefaultLevel]. The error is a [setting.Error].
//
// Messages and values of a log come from WeChat, NATS and files too. slog escapes most of what can manipulate a
// terminal, but not all of it, and less of it in JSON; package safetext escapes the rest.
func New(w io.Writer, format, level string) (*slog.Logger, error) {
	lowest, known := levels[strings.ToLower(cmp.Or(level, DefaultLevel))]
	if !known {
		return nil, setting.Errorf("WXKEEPER_LOG_LEVEL", "%q is not one of debug, info, warn, error", level)
	}
	opts := &slog.HandlerOptions{Level: lowest, ReplaceAttr: withoutNever}
	if format == "" {
		format = "json"
		if isTerminal(w) {
			format = "text"
		}
	}
	switch strings.ToLower(format) {
	case "text":
		return slog.New(slog.NewTextHandler(safetext.Writer(w), opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(safetext.JSONWriter(w), opts)), nil
	default:
		return nil, setting.Errorf("WXKEEPER_LOG_FORMAT", "%q is not one of text, json", format)
	}
}

// withoutNever leaves out times that are not known: slog would print the year 1.
func withoutNever(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindTime && a.Value.Time().IsZero() {
		return slog.Attr{}
	}
	return a
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
