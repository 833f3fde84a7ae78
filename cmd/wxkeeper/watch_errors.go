package main

import (
	"context"
	"errors"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/safetext"
)

// watchErrors prints why a watch delivers no records: each cause once, and not at every attempt.
type watchErrors struct {
	t *terminal

	mu         sync.Mutex      // violations come from another goroutine than the other errors
	last       string          // the last error printed
	violations map[string]bool // the subjects printed
}

// reset forgets what was printed. It is called when the watch has delivered something.
func (w *watchErrors) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = ""
	clear(w.violations)
}

func (w *watchErrors) printViolation(err *violationError) {
	w.mu.Lock()
	defer w.mu.Unlock()
	about := err.Subject
	if err.Inbox() {
		about = "" // each attempt has another inbox
	}
	if !w.violations[about] {
		w.violations[about] = true
		w.t.complain("%v", err)
	}
}

func (w *watchErrors) print(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case errors.Is(err, nats.ErrPermissionViolation): // printViolation prints it, maybe a moment later
		return
	case len(w.violations) > 0 && isSilence(err): // the violation is the cause, and was printed
		return
	}
	text := safetext.Err(err)
	if text != w.last {
		w.t.complain("%s (trying again)", text)
	}
	w.last = text
}

// isSilence reports whether err is an error with which a request ends if its subject is not permitted.
func isSilence(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout)
}
