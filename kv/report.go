package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
)

// How long the outcome of a report stands: a stream of requests that goes on meeting a refused token reports it again no
// sooner. It is what the workers ask for, within bounds, because an operator may act before the time is over.
const (
	reportStands    = 10 * time.Second // where they ask for nothing
	reportStandsMin = time.Second
	reportStandsMax = time.Minute
)

// reports are the reports of refused access_tokens to the workers: the last one of each account. The zero value works.
type reports struct {
	mu   sync.Mutex
	last map[string]*report // by appid
}

// report is one report, shared by all requests that meet the same dead value.
type report struct {
	value string
	done  chan struct{} // closed when the Reader shows another value, or nobody expects one any more
	until time.Time     // how long the outcome stands; set before done is closed
}

func (p *report) stands(now time.Time) bool {
	select {
	case <-p.done:
		return now.Before(p.until)
	default:
		return true
	}
}

// join returns the report of a value, and whether the caller must make it.
func (s *reports) join(appid, value string) (p *report, leads bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p = s.last[appid]; p != nil && p.value == value && p.stands(time.Now()) {
		return p, false
	}
	p = &report{value: value, done: make(chan struct{})}
	if s.last == nil {
		s.last = make(map[string]*report)
	}
	s.last[appid] = p
	return p, true
}

// other returns the current access_token if it is not dead, the one that a caller was refused with.
func (r *Reader) other(appid, dead string) (value string, ok bool) {
	c, err := r.Get(appid, messages.AccessToken)
	return c.Value, err == nil && c.Value != dead
}

// reportDead has the workers told that WeChat refuses a value, unless they were told already. It does not wait for them.
func (r *Reader) reportDead(appid, dead string) *report {
	p, leads := r.reports.join(appid, dead)
	if leads {
		// Its owner is its deadline: the request that met the dead value first may go away, the others wait on.
		go r.settle(appid, p)
	}
	return p
}

// settle makes a report: it asks the workers and waits until the Reader shows another value, whichever way that comes.
func (r *Reader) settle(appid string, p *report) {
	ctx, cancel := context.WithTimeout(context.Background(), messages.DefaultTimeout)
	defer cancel()
	stands := make(chan time.Duration, 1)
	go func() {
		d, helps := r.tell(ctx, appid, p.value)
		if !helps {
			cancel()
		}
		stands <- d
	}()
	// The values are compared: a bucket made anew may begin with lower generations.
	_, _ = r.await(ctx, appid, messages.AccessToken, func(c messages.Credential) bool { return c.Value != p.value })
	cancel()
	p.until = time.Now().Add(<-stands)
	close(p.done)
}

var errReportPanic = errors.New("kv: reporting a dead access_token panicked")

// tell asks the workers to replace a dead value. helps says whether another value is to be expected, stands how long there
// is no sense in asking again.
func (r *Reader) tell(ctx context.Context, appid, dead string) (stands time.Duration, helps bool) {
	stands = reportStands
	// Where it panics, the requests get WeChat's own answer, as where no worker listens; a service does not end of it. What
	// it panics with is not told: it may hold a value.
	defer func() {
		if recover() != nil {
			defer func() { _ = recover() }() // it may have been OnTrouble
			r.trouble(errReportPanic)
		}
	}()
	reply, err := r.report(ctx, messages.RefreshCredentialRequest{AppID: appid, Kind: messages.AccessToken, ValueSHA256: messages.ValueSHA256(dead)})
	var refusal *messages.Error
	switch {
	case errors.Is(err, context.Canceled): // another value has come by itself
		return stands, false
	case err != nil && !errors.As(err, &refusal):
		r.trouble(fmt.Errorf("kv: reporting a dead access_token of %s: %w", appid, err))
		return stands, false
	case err != nil && refusal.RetryAfterMS > 0:
		wanted := time.Duration(min(refusal.RetryAfterMS, reportStandsMax.Milliseconds())) * time.Millisecond
		return max(wanted, reportStandsMin), false
	case err != nil:
		return stands, false
	default:
		return stands, reply.Reason == messages.ReasonRefreshed || reply.Reason == messages.ReasonNotCurrent
	}
}
