//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

const (
	callers = 8
	tickets = 100 // each with another code

	// One attempt may take as long as a worker may take for its reply. A caller repeats a request as
	// docs/operations.md advises: after silence, no responders, 503 and 504. A request without an answer within
	// lostAfter counts as lost.
	attemptTimeout = 5 * time.Second
	lostAfter      = 2 * time.Minute
)

// load are the clients of a stack: callers that resolve codes all the time, and a Reader of the token.
type load struct {
	s        *stack
	client   *messages.Client
	reader   *kv.Reader
	answered atomic.Int64
	retried  atomic.Int64
	stop     context.CancelFunc
	done     sync.WaitGroup

	mu   sync.Mutex
	lost []string // the first lost request of each caller
}

func openid(i int) string     { return fmt.Sprintf("openid-%d", i) }
func codeTicket(i int) string { return fmt.Sprintf("ticket-%d", i) }
func code(i int) string       { return fmt.Sprintf("%09d", i) }

// startLoad starts the clients of a service, and waits for their first answers.
func startLoad(s *stack, service *nats.Conn, appid string) *load {
	s.t.Helper()
	for i := range tickets {
		s.control("/codes", map[string]any{
			"openid": openid(i), "code_ticket": codeTicket(i),
			"reply": map[string]any{"errcode": 0, "errmsg": "ok", "code": code(i)},
		}, nil)
	}
	ctx, stop := context.WithCancel(s.ctx)
	l := &load{s: s, client: messages.NewClient(service, ""), stop: stop}
	var err error
	if l.reader, err = kv.NewReader(service, kv.ReaderConfig{AppIDs: []string{appid}}); err != nil {
		s.t.Fatal(err)
	}
	l.done.Go(func() { _ = l.reader.Run(ctx) }) // the end of ctx is its only error
	s.t.Cleanup(func() { stop(); l.done.Wait() })
	if _, err := l.reader.Wait(ctx, appid, messages.AccessToken); err != nil {
		s.t.Fatal(err)
	}
	for first := range callers {
		l.done.Go(func() { l.call(ctx, appid, first) })
	}
	l.awaitProgress("after the start")
	return l
}

// call resolves codes and reads the token until ctx ends or a request is lost.
func (l *load) call(ctx context.Context, appid string, first int) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := first; ; i += callers {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := l.resolve(ctx, appid, i%tickets)
		if _, missing := l.reader.AccessToken(appid); err == nil && missing != nil {
			err = fmt.Errorf("the Reader has no token: %w", missing)
		}
		if ctx.Err() == nil && err != nil {
			l.mu.Lock()
			l.lost = append(l.lost, time.Now().UTC().Format(time.TimeOnly)+" "+err.Error())
			l.mu.Unlock()
			return
		}
	}
}

// resolve resolves one code, and repeats the request until it is answered.
func (l *load) resolve(ctx context.Context, appid string, i int) error {
	ctx, cancel := context.WithTimeout(ctx, lostAfter)
	defer cancel()
	for again := time.NewTicker(100 * time.Millisecond); ; l.retried.Add(1) {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		request := messages.ResolveCodeRequest{AppID: appid, OpenID: openid(i), CodeTicket: codeTicket(i)}
		raw, err := l.client.ResolveCode(attempt, request)
		cancel()
		var refusal *messages.Error
		switch {
		case err == nil:
			var c messages.Code
			if err := json.Unmarshal(raw, &c); err != nil || c.Code != code(i) {
				return fmt.Errorf("another code: %s, want %s: %w", raw, code(i), err)
			}
			l.answered.Add(1)
			again.Stop()
			return nil
		case errors.As(err, &refusal) && refusal.Symbol.Code() < 503:
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("request lost, last attempt: %w", err)
		case <-again.C:
		}
	}
}

// awaitProgress waits for more answers, and fails the test if a request was lost.
func (l *load) awaitProgress(when string) {
	l.s.t.Helper()
	n := l.answered.Load()
	l.s.eventually("answers "+when, func() bool {
		l.mustLoseNothing(when)
		return l.answered.Load() >= n+5*callers
	})
}

func (l *load) mustLoseNothing(when string) {
	l.s.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lost) > 0 {
		l.s.t.Fatalf("%s: %q", when, l.lost)
	}
}
