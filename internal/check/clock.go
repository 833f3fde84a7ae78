package check

import (
	"fmt"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// The differences of two clocks that make a finding. Workers compare times of NATS and WeChat with their own
// clock: a difference of a few seconds moves a refresh to the wrong time, and with half a minute a worker could
// hand out a credential that has expired.
const (
	clockWarn = 2 * time.Second
	clockFail = 30 * time.Second
)

// clocks compares this machine's clock with WeChat's. It uses the fastest answer, which is the most precise.
type clocks struct {
	now func() time.Time

	mu   sync.Mutex
	seen bool
	took time.Duration // the duration of the fastest call
	off  time.Duration // by how much this clock is ahead, at least
}

// observe is called right after each answer of WeChat.
func (c *clocks) observe(call wechat.Call) {
	if call.Date.IsZero() {
		return
	}
	off := ahead(c.now(), call.Duration, call.Date)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.seen || call.Duration < c.took {
		c.seen, c.took, c.off = true, call.Duration, off
	}
}

// ahead is by how much this clock is ahead of the other clock, at least; it is negative if this clock is
// behind. date has whole seconds, and the other side wrote it at an unknown time during the call and within
// that second. Any difference that this explains is 0.
func ahead(received time.Time, took time.Duration, date time.Time) time.Duration {
	sent := received.Add(-took)
	switch {
	case sent.After(date.Add(time.Second)):
		return sent.Sub(date.Add(time.Second))
	case received.Before(date):
		return received.Sub(date)
	}
	return 0
}

// finding is the result of the comparison.
func (c *clocks) finding() Finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.seen {
		what := "this machine's clock was not compared: no answer had WeChat's time"
		return Finding{Check: Clock, Level: Warn, What: what}
	}
	if c.off.Abs() <= clockWarn {
		what := "this machine's clock agrees with WeChat's, within the precision of the Date header"
		return Finding{Check: Clock, Level: OK, What: what}
	}
	side := "ahead of"
	if c.off < 0 {
		side = "behind"
	}
	f := Finding{
		Check: Clock, Level: Warn,
		What:   fmt.Sprintf("this machine's clock is at least %s %s WeChat's", c.off.Abs().Round(time.Second/10), side),
		Advice: "set the clock by NTP (chrony, systemd-timesyncd)",
	}
	if c.off.Abs() > clockFail {
		f.Level = Fail
		f.What += ": credentials would be refreshed, and would expire, at the wrong time"
	}
	return f
}
