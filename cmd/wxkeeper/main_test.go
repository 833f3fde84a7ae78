package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
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
