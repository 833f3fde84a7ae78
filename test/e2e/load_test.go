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
	tickets = 100 // each with a code of its own

	// A caller gives one attempt as long as a worker may take, and asks again where docs/operations.md says so: no
	// answer, nobody there, 503, 504. A request that has no answer by the end is lost.
	attempt = 5 * time.Second
	enough  = 30 * time.Second
)

// load are the clients of a fleet: callers that have codes resolved all the time, and a reader of the token.
type load struct {
	f        *fleet
	client   *messages.Client
	reader   *kv.Reader
	answered atomic.Int64
	retried  atomic.Int64
	stop     context.CancelFunc
	done     sync.WaitGroup

	mu   sync.Mutex
	lost []string // the first of each caller
}

func openid(i int) string     { return fmt.Sprintf("openid-%d", i) }
func codeTicket(i int) string { return fmt.Sprintf("ticket-%d", i) }
func code(i int) string       { return fmt.Sprintf("%09d", i) }

// startLoad starts the clients, and waits for their first answers.
func startLoad(f *fleet, nc *nats.Conn, appid string) *load {
	f.t.Helper()
	for i := range tickets {
		f.ask("/codes", map[string]any{"openid": openid(i), "code_ticket": codeTicket(i), "reply": map[string]any{"errcode": 0, "errmsg": "ok", "code": code(i)}}, nil)
	}
	ctx, stop := context.WithCancel(f.ctx)
	l := &load{f: f, client: messages.NewClient(nc, ""), stop: stop}
	var err error
	if l.reader, err = kv.NewReader(nc, kv.ReaderConfig{}); err != nil {
		f.t.Fatal(err)
	}
	l.done.Go(func() { _ = l.reader.Run(ctx) }) // the end of its context is its only error
	f.t.Cleanup(func() { stop(); l.done.Wait() })
	if _, err := l.reader.Wait(ctx, appid, messages.AccessToken); err != nil {
		f.t.Fatal(err)
	}
	for c := range callers {
		l.done.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for i := c; ; i += callers {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				err := l.resolve(ctx, i%tickets)
				if _, dead := l.reader.AccessToken(appid); err == nil && dead != nil {
					err = fmt.Errorf("a consumer has no token: %w", dead)
				}
				if ctx.Err() == nil && err != nil {
					l.mu.Lock()
					l.lost = append(l.lost, time.Now().UTC().Format(time.TimeOnly)+" "+err.Error())
					l.mu.Unlock()
					return
				}
			}
		})
	}
	l.goesOn("after the start")
	return l
}

// resolve has one code resolved, as a patient client does.
func (l *load) resolve(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, enough)
	defer cancel()
	for again := time.NewTicker(100 * time.Millisecond); ; l.retried.Add(1) {
		once, cancel := context.WithTimeout(ctx, attempt)
		raw, err := l.client.ResolveCode(once, messages.ResolveCodeRequest{OpenID: openid(i), CodeTicket: codeTicket(i)})
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
			return fmt.Errorf("lost: the last attempt: %w", err)
		case <-again.C:
		}
	}
}

// goesOn waits for more answers, and that no request was lost.
func (l *load) goesOn(when string) {
	l.f.t.Helper()
	n := l.answered.Load()
	l.f.until("answers "+when, func() bool {
		l.failed(when)
		return l.answered.Load() >= n+5*callers
	})
}

func (l *load) failed(when string) {
	l.f.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lost) > 0 {
		l.f.t.Fatalf("%s: %q", when, l.lost)
	}
}
