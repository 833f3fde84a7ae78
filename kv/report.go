package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// A report is not repeated for as long as the workers ask, within limits: an operator may solve the problem
// earlier.
const (
	repeatDefault = 10 * time.Second // if the workers ask for nothing
	repeatMin     = time.Second
	repeatMax     = time.Minute
)

// reports has the last report of each account. The zero value works.
type reports struct {
	mu   sync.Mutex
	last map[string]*report // by AppID
}

// report is the report of one refused value. All requests that were refused with this value share it.
type report struct {
	value  string
	sentAt time.Time     // before the refused call was sent
	done   chan struct{} // closed when the Reader holds another value, or another one is no longer expected
	until  time.Time     // when the value may be reported again; set before done is closed
	alive  bool          // WeChat accepts the value, as the workers say; set before done is closed
}

// covers reports whether a request that was refused at now shares the report: it is under way, or was made so recently
// that it is not repeated. sentAt is when the refused call was sent: that WeChat accepts the value counts only if that
// was before the reported call. The value may have died since.
func (p *report) covers(now, sentAt time.Time) bool {
	select {
	case <-p.done:
		if p.alive {
			return !sentAt.After(p.sentAt)
		}
		return now.Before(p.until)
	default:
		return true
	}
}

// join returns the report that a refused call shares. If there was none, the caller leads: it must make the report.
func (s *reports) join(appid, value string, sentAt time.Time) (p *report, leads bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if p = s.last[appid]; p != nil && p.value == value && p.covers(now, sentAt) {
		return p, false
	}
	p = &report{value: value, sentAt: sentAt, done: make(chan struct{})}
	if s.last == nil {
		s.last = make(map[string]*report)
	}
	s.last[appid] = p
	return p, true
}

// otherToken returns the current access_token if it differs from the refused one.
func (r *Reader) otherToken(appid, refused string) (value string, ok bool) {
	value, err := r.AccessToken(appid)
	return value, err == nil && value != refused
}

// startReport reports to the workers that WeChat refused a value, unless there is a current report of it. It
// does not block.
func (r *Reader) startReport(appid, refused string, sentAt time.Time) *report {
	p, leads := r.reports.join(appid, refused, sentAt)
	if leads {
		// The report has its own deadline: the request that leads may be cancelled while others wait for the
		// report.
		go r.makeReport(appid, p)
	}
	return p
}

// makeReport sends a report and waits until the Reader holds another value, however it arrives.
func (r *Reader) makeReport(appid string, p *report) {
	ctx, cancel := context.WithTimeout(context.Background(), messages.DefaultTimeout)
	defer cancel()
	repeat := make(chan time.Duration, 1)
	go func() {
		d, reason := r.sendReport(ctx, appid, p)
		if reason != messages.ReasonRefreshed && reason != messages.ReasonNotCurrent {
			cancel() // no other value is expected
		}
		p.alive = reason == messages.ReasonAlive
		repeat <- d
	}()
	// It compares values and not generations, because a recreated bucket may begin with lower generations.
	_, _ = r.await(ctx, appid, messages.AccessToken, func(c messages.Credential) bool { return c.Value != p.value })
	cancel()
	p.until = time.Now().Add(<-repeat)
	close(p.done)
}

var errReportPanic = errors.New("kv: reporting a refused access_token panicked")

// sendReport asks the workers to replace a refused value. reason is their answer, if they gave one; repeat is how long
// the report should not be repeated.
func (r *Reader) sendReport(
	ctx context.Context, appid string, p *report,
) (repeat time.Duration, reason messages.Reason) {
	repeat = repeatDefault
	// After a panic (of nats.go, or of the service's OnError) the requests get WeChat's answer, as if no
	// worker had listened, and the service continues. The value of the panic is not shown, because it may
	// contain the token.
	defer func() {
		if recover() != nil {
			defer func() { _ = recover() }() // OnError itself may have panicked
			r.onError(errReportPanic)
		}
	}()
	reply, err := r.source.Report(ctx, messages.RefreshCredentialRequest{
		AppID: appid, Kind: messages.AccessToken, ValueSHA256: messages.ValueSHA256(p.value), SentAt: p.sentAt,
	})
	var refusal *messages.Error
	switch {
	case errors.Is(err, context.Canceled): // another value arrived meanwhile
		return repeat, ""
	case err != nil && !errors.As(err, &refusal):
		r.onError(fmt.Errorf("kv: report a refused access_token of %s: %w", appid, err))
		return repeat, ""
	case err != nil && refusal.RetryAfterMS > 0:
		return min(max(refusal.RetryAfter(), repeatMin), repeatMax), ""
	case err != nil:
		return repeat, ""
	case reply.Reason == messages.ReasonNotCurrent:
		// The refused value may have been forged, with a generation that hides the current one.
		r.notify(r.latest.Prefer(bucket.Name{AppID: appid, Kind: messages.AccessToken}, p.value, reply.Revision))
	}
	return repeat, reply.Reason
}
