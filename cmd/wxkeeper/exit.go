package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/messages"
)

// The exit codes of every verb.
const (
	exitOK          = 0   // done; for run, simulate and watch: stopped cleanly by SIGINT or SIGTERM
	exitFailure     = 1   // refused, not answered, not started; status: a credential is expired, missing or refused; health: not healthy; check: something would fail
	exitUsage       = 2   // the command line or the environment is wrong
	exitInterrupted = 130 // a signal came before the answer, or a second one before the clean stop was over
)

// exitCodes is what --help says of them.
const exitCodes = `Exit codes: 0 done, or stopped cleanly by a signal; 1 refused, not answered or not started, and for status: a ` +
	`credential is expired, missing or refused, for health: not healthy, for check: something would fail; 2 wrong command line or environment; 130 interrupted by a signal, or by a second one.`

// usageError is a fault of the command line or of the environment.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(err error) error { return usageError{err} }

// errSaid ends a verb that has printed what is wrong already.
var errSaid = errors.New("said already")

// fail prints an error, and returns the exit code for it. Where it is nil, that is 0.
func (t *terminal) fail(err error) int {
	var refusal *messages.Error
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errSaid):
		if errors.As(err, new(usageError)) {
			return exitUsage
		}
		return exitFailure
	case errors.Is(err, context.Canceled): // only a signal cancels a verb
		fmt.Fprintln(t.err, "wxkeeper: interrupted")
		return exitInterrupted
	case errors.As(err, &refusal):
		t.refused(refusal)
		return exitFailure
	}
	fmt.Fprintln(t.err, "wxkeeper: "+oneLine(err.Error()))
	var u usageError
	if errors.As(err, &u) || namesVariable(err) {
		return exitUsage
	}
	return exitFailure
}

// refused prints the error reply of a worker: the symbol for scripts, the words for people, and what support asks for
// where the words have not said it.
func (t *terminal) refused(e *messages.Error) {
	fmt.Fprintf(t.err, "wxkeeper: %s (%d): %s\n", e.Symbol, e.Code(), oneLine(e.Message))
	if e.Errcode != 0 && !regexp.MustCompile(fmt.Sprintf(`errcode %d\b`, e.Errcode)).MatchString(e.Message) {
		fmt.Fprintf(t.err, "  errcode: %d %s\n", e.Errcode, oneLine(e.Errmsg))
	}
	if e.RID != "" && !strings.Contains(e.Message, e.RID) {
		fmt.Fprintf(t.err, "  rid: %s\n", oneLine(e.RID))
	}
	if e.RetryAfterMS > 0 {
		fmt.Fprintf(t.err, "  try again in: %s\n", duration(time.Duration(e.RetryAfterMS)*time.Millisecond))
	}
}

// namesVariable tells an error about the environment: every such error of this program begins with the variable's name
// (internal/config), also those that only the server or the connection can find.
func namesVariable(err error) bool {
	text := err.Error()
	for _, row := range config.Table() {
		if rest, ok := strings.CutPrefix(text, row.Name); ok && (rest == "" || strings.ContainsAny(rest[:1], ": ,")) {
			return true
		}
	}
	return false
}

// oneLine makes a text fit for one line of a terminal: no line break, no escape sequence.
func oneLine(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.Join(lines, "; "))
}
