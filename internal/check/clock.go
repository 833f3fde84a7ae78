package check

import (
	"fmt"
	"sync"
	"time"

	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// The differences of two clocks that are told. What NATS and WeChat compute with theirs, workers compare with their own:
// a few seconds cost a renewal at the wrong moment, half a minute a credential that is handed out after its end.
const (
	clockWarn = 2 * time.Second
	clockFail = 30 * time.Second
)

// clocks compares this machine's clock with that of WeChat, by the answer that came back fastest.
type clocks struct {
	now func() time.Time

	mu   sync.Mutex
	seen bool
	took time.Duration
	off  time.Duration // by how much this clock is ahead, at least
}

// observe is told of every call. It runs right after the answer.
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

// ahead is by how much this clock is certainly ahead of the other, negative where it is behind. A date of whole seconds was
// written at any time of that second, while the call was under way.
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

// finding is what the comparison has shown.
func (c *clocks) finding() Finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := Finding{Check: Clock, Level: OK, What: "this machine's clock agrees with WeChat's, as far as its Date header tells"}
	if !c.seen {
		f.Level, f.What = Warn, "this machine's clock is not compared: no answer came that has WeChat's time"
		return f
	}
	if c.off.Abs() <= clockWarn {
		return f
	}
	way := "ahead of"
	if c.off < 0 {
		way = "behind"
	}
	f.Level, f.What = Warn, fmt.Sprintf("this machine's clock is at least %s %s WeChat's", c.off.Abs().Round(time.Second/10), way)
	f.Advice = "have it set by NTP (chrony, systemd-timesyncd)"
	if c.off.Abs() > clockFail {
		f.Level = Fail
		f.What += ": credentials would be renewed, and end, at the wrong time"
	}
	return f
}
