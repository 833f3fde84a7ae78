package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/safetext"
	"github.com/wxkeeper/wxkeeper/internal/setting"
	"github.com/wxkeeper/wxkeeper/messages"
)

// The exit codes of all verbs.
const (
	exitOK          = 0   // done; run, simulate and watch: stopped cleanly by SIGINT or SIGTERM
	exitFailure     = 1   // refused, not answered, not started, and further failures of single verbs: see exitCodes
	exitUsage       = 2   // the command line or the environment is wrong
	exitInterrupted = 130 // a signal before the answer, or a second signal before the clean stop was complete
)

// exitCodes is their description in --help.
const exitCodes = "Exit codes: 0 done, or stopped cleanly by a signal; 1 refused, not answered or not started, and " +
	"for status: a credential is expired, missing or refused, for health: not healthy, for check: something would " +
	"fail; 2 wrong command line or environment; 130 interrupted by a signal, or by a second signal."

// usageError is a fault of the command line. A fault of the environment is a [setting.Error].
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(err error) error { return usageError{err} }

// errPrinted ends a verb that has already printed what is wrong.
var errPrinted = errors.New("already printed")

// fail prints an error and returns the exit code for it. For nil it prints nothing and returns 0.
func (t *terminal) fail(err error) int {
	var reply *messages.Error
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errPrinted):
	case errors.Is(err, context.Canceled): // only a signal cancels a verb
		t.complain("interrupted")
		return exitInterrupted
	case errors.As(err, &reply):
		t.printReply(reply)
		return exitFailure
	default:
		t.complain("%v", err)
	}
	if errors.As(err, new(usageError)) || errors.As(err, new(*setting.Error)) {
		return exitUsage
	}
	return exitFailure
}

// complain prints one line on standard error.
func (t *terminal) complain(format string, args ...any) {
	safetext.Fprintf(t.err, "wxkeeper: "+format+"\n", args...)
}

// printReply prints the error reply of a worker: the symbol for scripts, the message for people, and the
// errcode and rid of WeChat, for which its support asks, if the message does not contain them.
func (t *terminal) printReply(e *messages.Error) {
	t.complain("%s (%d): %s", e.Symbol, e.Code(), e.Message)
	if e.Errcode != 0 && !regexp.MustCompile(fmt.Sprintf(`errcode %d\b`, e.Errcode)).MatchString(e.Message) {
		safetext.Fprintf(t.err, "  errcode: %d %s\n", e.Errcode, e.Errmsg)
	}
	if e.RID != "" && !strings.Contains(e.Message, e.RID) {
		safetext.Fprintf(t.err, "  rid: %s\n", e.RID)
	}
	if d := e.RetryAfter(); d > 0 {
		safetext.Fprintf(t.err, "  try again in: %s\n", duration(d))
	}
}
