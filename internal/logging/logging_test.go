package logging_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/wxkeeper/wxkeeper/internal/logging"
)

func TestFormats(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{
		"":     `{"time":`, // a buffer is no terminal
		"json": `{"time":`,
		"JSON": `{"time":`,
		"text": "time=",
	} {
		var b bytes.Buffer
		log, err := logging.New(&b, format, "")
		if err != nil {
			t.Fatal(err)
		}
		log.Info("said")
		if !strings.HasPrefix(b.String(), want) || !strings.Contains(b.String(), "said") {
			t.Errorf("format %q wrote %q", format, b.String())
		}
	}
}

func TestLevels(t *testing.T) {
	t.Parallel()
	for level, want := range map[string]slog.Level{
		"": slog.LevelInfo, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "ERROR": slog.LevelError,
	} {
		log, err := logging.New(&bytes.Buffer{}, "text", level)
		if err != nil {
			t.Fatal(err)
		}
		if !log.Enabled(context.Background(), want) || log.Enabled(context.Background(), want-1) {
			t.Errorf("level %q does not begin at %s", level, want)
		}
	}
}

func TestErrorsNameTheVariable(t *testing.T) {
	t.Parallel()
	if _, err := logging.New(&bytes.Buffer{}, "xml", ""); err == nil || !strings.Contains(err.Error(), `WXKEEPER_LOG_FORMAT: "xml" is not one of text, json`) {
		t.Errorf("wrong format: %v", err)
	}
	if _, err := logging.New(&bytes.Buffer{}, "", "loud"); err == nil || !strings.Contains(err.Error(), `WXKEEPER_LOG_LEVEL: "loud" is not one of debug`) {
		t.Errorf("wrong level: %v", err)
	}
}
