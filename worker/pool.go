package worker

import "sync"

// pool runs functions in goroutines, and keeps idle goroutines for the next functions. Answering a request needs
// a deep stack, and growing a new stack for each request costs more than decoding its JSON.
type pool struct {
	jobs    chan func()
	idle    chan struct{} // has an element for each idle goroutine
	running sync.WaitGroup
	end     chan struct{}
	once    sync.Once
}

// newPool makes a pool that keeps at most idle goroutines.
func newPool(idle int) *pool {
	return &pool{jobs: make(chan func()), idle: make(chan struct{}, idle), end: make(chan struct{})}
}

// do starts f and does not wait for its end. The caller limits how many functions run at once.
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

// stop ends the idle goroutines and waits for the others. do must not be called after it.
func (p *pool) stop() {
	p.once.Do(func() { close(p.end) })
	p.running.Wait()
}
