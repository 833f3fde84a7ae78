package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// troubles says of a watch why nothing comes: each thing once, not at every new try.
type troubles struct {
	t      *terminal
	bucket string

	mu      sync.Mutex // refusals come from another goroutine than the rest
	said    string
	refused map[string]bool
}

// over is called when something has come.
func (l *troubles) over() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said, l.refused = "", nil
}

func (l *troubles) refusal(err *refusalError) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// From the sixth token on the subject names a consumer, a new one at every try.
	tokens := strings.SplitN(err.Subject, ".", 6)
	about := strings.Join(tokens[:min(len(tokens), 5)], ".")
	if err.Inbox() {
		about = tokens[0]
	}
	if l.refused[about] {
		return
	}
	if l.refused == nil {
		l.refused = map[string]bool{}
	}
	l.refused[about] = true
	fmt.Fprintln(l.t.err, "wxkeeper: "+oneLine(err.Error()))
}

func (l *troubles) trouble(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := oneLine(err.Error())
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		text = fmt.Sprintf("there is no bucket %s: no worker has run here yet, or see WXKEEPER_BUCKET", l.bucket)
	case len(l.refused) > 0 && silence(err): // the refusal was said, which is why
		return
	}
	if text != l.said {
		fmt.Fprintln(l.t.err, "wxkeeper: "+text+" (looking again until it is there)")
	}
	l.said = text
}

// silence tells what a request, or a subscription, that is refused ends with.
func silence(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrPermissionViolation)
}
