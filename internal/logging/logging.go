// Package logging makes the logger of a process from its two variables.
package logging

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/term"
)

// New returns a logger that writes to w. The format is text or json; empty means text where w is a terminal and json
// elsewhere, because a person reads the one and a collector the other. The level is debug, info, warn or error; empty
// means info. The error names the variable that is wrong.
func New(w io.Writer, format, level string) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{}
	switch strings.ToLower(level) {
	case "debug":
		opts.Level = slog.LevelDebug
	case "", "info":
		opts.Level = slog.LevelInfo
	case "warn":
		opts.Level = slog.LevelWarn
	case "error":
		opts.Level = slog.LevelError
	default: // slog's own parser would also take "warn+3"
		return nil, fmt.Errorf("WXKEEPER_LOG_LEVEL: %q is not one of debug, info, warn, error", level)
	}
	switch strings.ToLower(format) {
	case "":
		if terminal(w) {
			return slog.New(slog.NewTextHandler(w, opts)), nil
		}
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	default:
		return nil, fmt.Errorf("WXKEEPER_LOG_FORMAT: %q is not one of text, json", format)
	}
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
