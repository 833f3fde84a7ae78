package demo

import (
	"strings"
	"sync"
)

// tailLines is how many lines a tail keeps.
const tailLines = 30

// tail keeps the last lines of a log, to print them if the demo fails. slog writes one line at a time.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (t *tail) Write(line []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == tailLines {
		t.lines = append(t.lines[:0], t.lines[1:]...)
	}
	t.lines = append(t.lines, string(line))
	return len(line), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "")
}
