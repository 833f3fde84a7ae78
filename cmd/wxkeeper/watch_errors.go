package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/safetext"
)

// watchErrors prints why a watch delivers no records: each cause once, and not at every attempt.
type watchErrors struct {
	t      *terminal
	bucket string

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
	// From the sixth token on, the subject names a consumer, which is another one at every attempt.
	tokens := strings.SplitN(err.Subject, ".", 6)
	about := strings.Join(tokens[:min(len(tokens), 5)], ".")
	if err.Inbox() {
		about = tokens[0]
	}
	if !w.violations[about] {
		w.violations[about] = true
		w.t.complain("%v", err)
	}
}

func (w *watchErrors) print(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := safetext.Err(err)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		text = fmt.Sprintf("there is no bucket %s: no worker has run here yet, or WXKEEPER_BUCKET is another one",
			w.bucket)
	case len(w.violations) > 0 && isSilence(err): // the violation is the cause, and was printed
		return
	}
	if text != w.last {
		w.t.complain("%s (trying again)", text)
	}
	w.last = text
}

// isSilence reports whether err is an error with which a request, or a subscription, ends if its subject is not
// permitted.
func isSilence(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrPermissionViolation)
}
