package logging_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/logging"
	"github.com/wxkeeper/wxkeeper/internal/setting"
)

func TestFormats(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{
		"":     `{"time":`, // a buffer is not a terminal
		"json": `{"time":`,
		"JSON": `{"time":`,
		"text": "time=",
	} {
		var b bytes.Buffer
		log, err := logging.New(&b, format, "")
		if err != nil {
			t.Fatal(err)
		}
		log.Info("message")
		if !strings.HasPrefix(b.String(), want) || !strings.Contains(b.String(), "message") {
			t.Errorf("format %q wrote %q", format, b.String())
		}
	}
}

func TestLevels(t *testing.T) {
	t.Parallel()
	for level, want := range map[string]slog.Level{
		"": slog.LevelInfo, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn,
		"ERROR": slog.LevelError,
	} {
		log, err := logging.New(&bytes.Buffer{}, "text", level)
		if err != nil {
			t.Fatal(err)
		}
		if !log.Enabled(context.Background(), want) || log.Enabled(context.Background(), want-1) {
			t.Errorf("level %q does not mean %s", level, want)
		}
	}
}

func TestErrorsNameTheVariable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ format, level, variable, text string }{
		{"xml", "", "WXKEEPER_LOG_FORMAT", `WXKEEPER_LOG_FORMAT: "xml" is not one of text, json`},
		{"", "loud", "WXKEEPER_LOG_LEVEL", `WXKEEPER_LOG_LEVEL: "loud" is not one of debug, info, warn, error`},
	} {
		_, err := logging.New(&bytes.Buffer{}, tt.format, tt.level)
		var se *setting.Error
		if !errors.As(err, &se) {
			t.Fatalf("%s: %v is not a setting.Error", tt.variable, err)
		}
		if se.Variable != tt.variable {
			t.Errorf("the error is about %s, want %s", se.Variable, tt.variable)
		}
		if err.Error() != tt.text {
			t.Errorf("error %q, want %q", err, tt.text)
		}
	}
}

func TestTimesThatAreNotKnownAreNotLogged(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		var b bytes.Buffer
		log, err := logging.New(&b, format, "")
		if err != nil {
			t.Fatal(err)
		}
		log.Info("message", "never", time.Time{}, slog.Group("credential", slog.Time("expires_at", time.Time{})),
			"once", time.Unix(0, 0).UTC())
		if s := b.String(); strings.Contains(s, "0001") || strings.Contains(s, "never") || !strings.Contains(s, "1970") {
			t.Errorf("format %q wrote %q", format, s)
		}
	}
}
