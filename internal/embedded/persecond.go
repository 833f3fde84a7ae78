package embedded

import (
	"sync"
	"time"
)

// perSecond limits log lines that a stranger can cause: it calls write at once for the first event, and then at most
// once a second, with the number of the events since then and the text of the last.
type perSecond struct {
	write func(times int, last string)

	mu      sync.Mutex
	times   int
	last    string
	timer   *time.Timer // nil: nothing was written in the last second
	stopped bool
}

func newPerSecond(write func(times int, last string)) *perSecond { return &perSecond{write: write} }

func (p *perSecond) add(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.times, p.last = p.times+1, text
	if p.timer == nil {
		p.flush()
	}
}

// flush writes what was counted. The caller holds the lock.
func (p *perSecond) flush() {
	p.timer = nil
	if p.times == 0 {
		return
	}
	p.write(p.times, p.last)
	p.times = 0
	if !p.stopped {
		p.timer = time.AfterFunc(time.Second, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if !p.stopped {
				p.flush()
			}
		})
	}
}

// stop writes what was counted, and ends the timer.
func (p *perSecond) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.flush()
}
