package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

const (
	// patience is the limit for events that must happen: only a test that hangs reaches it.
	patience = 3 * time.Minute

	// canary is part of every secret of these tests. Nothing may show it.
	canary = "S3CRET"
)

// With the argument of a script, the test binary is the command itself.
func TestMain(m *testing.M) {
	testscript.Main(leakFree{m}, map[string]func(){"wxkeeper": main})
}

// leakFree runs the tests, then the cleanups, and then checks that no goroutine is left: a verb waits for the
// goroutines that it has started.
type leakFree struct{ m *testing.M }

var cleanups []func()

func (l leakFree) Run() int {
	code := l.m.Run()
	for _, f := range cleanups {
		f()
	}
	if code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// screen returns a terminal for a test, at noon, with its standard output and standard error.
func screen(tty bool) (t *terminal, out, errs *bytes.Buffer) {
	out, errs = new(bytes.Buffer), new(bytes.Buffer)
	return &terminal{in: strings.NewReader(""), out: out, err: errs, tty: tty, now: func() time.Time { return noon }},
		out, errs
}

// writer calls a function with each text that is written.
type writer func(string)

func (w writer) Write(p []byte) (int, error) { w(string(p)); return len(p), nil }

// startVerb runs a verb, and waits until it has printed text to the standard output or the standard error.
func startVerb(t *testing.T, text string, args ...string) (stop func() (exitCode int, printed string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	term, _, _ := screen(false)
	var mu sync.Mutex
	var all strings.Builder
	printed := make(chan struct{})
	w := writer(func(s string) {
		mu.Lock()
		defer mu.Unlock()
		before := strings.Contains(all.String(), text)
		all.WriteString(s)
		if !before && strings.Contains(all.String(), text) {
			close(printed)
		}
	})
	term.out, term.err = w, w
	ended := make(chan int, 1)
	go func() { ended <- execute(ctx, term, args) }()
	output := func() string {
		mu.Lock()
		defer mu.Unlock()
		return all.String()
	}
	select {
	case <-printed:
	case code := <-ended:
		t.Fatalf("%v: exit code %d: %s", args, code, output())
	case <-ctx.Done():
		t.Fatalf("%v does not print %q: %s", args, text, output())
	}
	return func() (int, string) {
		cancel()
		return <-ended, output()
	}
}
