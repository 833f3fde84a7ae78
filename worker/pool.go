package worker

import "sync"

// pool runs functions in goroutines that it keeps for the next: what answers a request has a deep stack, and growing
// one anew for each request costs more than the request's JSON.
type pool struct {
	jobs    chan func()
	idle    chan struct{} // holds a token for each goroutine that waits for work
	running sync.WaitGroup
	end     chan struct{}
	once    sync.Once
}

// newPool makes a pool that keeps at most idle goroutines.
func newPool(idle int) *pool {
	return &pool{jobs: make(chan func()), idle: make(chan struct{}, idle), end: make(chan struct{})}
}

// do runs f soon, and does not wait for it. The caller bounds how many are under way.
func (p *pool) do(f func()) {
	select {
	case p.jobs <- f:
	default:
		p.running.Go(func() { p.run(f) })
	}
}

func (p *pool) run(f func()) {
	for {
		f()
		select {
		case p.idle <- struct{}{}:
		default:
			return
		}
		select {
		case f = <-p.jobs:
			<-p.idle
		case <-p.end:
			return
		}
	}
}

// stop lets the idle goroutines go and waits for the others. do must not be called after it.
func (p *pool) stop() {
	p.once.Do(func() { close(p.end) })
	p.running.Wait()
}
