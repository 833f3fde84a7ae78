package main

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			// by default, the race detector delays the end of each process by a second
			env.Setenv("GORACE", "atexit_sleep_ms=10")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"refuses": refuses,
		},
	})
}

// exits CODE COMMAND… runs a command and checks its exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// refuses TEXT… checks that `wxkeeper run` does not start in this environment: exit code 2, no standard
// output, and one line of standard error, which begins with the first text, contains the others, and shows no
// secret.
func refuses(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: refuses BEGIN [TEXT]...")
	}
	exits(ts, false, []string{"2", "wxkeeper", "run"})
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("standard output: %q", out)
	}
	line, rest, ok := strings.Cut(ts.ReadFile("stderr"), "\n")
	switch {
	case !ok, rest != "":
		ts.Fatalf("standard error is not one line: %q %q", line, rest)
	case !strings.HasPrefix(line, "wxkeeper: "+args[0]):
		ts.Fatalf("%q does not begin with %q", line, "wxkeeper: "+args[0])
	case strings.Contains(line, canary):
		ts.Fatalf("%q shows a secret", line)
	}
	for _, text := range args[1:] {
		if !strings.Contains(line, text) {
			ts.Fatalf("%q lacks %q", line, text)
		}
	}
}
