package main

import (
	"net"
	"sync"
	"time"
)

// proxy forwards the TCP connections of one loopback address to another, as long as nothing is wrong with the network.
type proxy struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	state   network
	changed chan struct{} // closed at the next change of state
	conns   map[net.Conn]struct{}
}

// network is the state of a way through it.
type network int

const (
	open   network = iota
	cut            // connections are reset, new ones refused
	silent         // nothing arrives, and nobody is told; what was sent meanwhile arrives afterwards, as TCP repeats it
)

func (n network) String() string { return [...]string{"open", "cut", "silent"}[n] }

func newProxy(target string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: target, changed: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	go p.accept()
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) close() {
	p.listener.Close()
	p.set(cut)
}

// set changes the state of the way.
func (p *proxy) set(n network) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = n
	close(p.changed)
	p.changed = make(chan struct{})
	if n == cut {
		for c := range p.conns {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // a reset, not an orderly end
			}
			c.Close()
		}
		clear(p.conns)
	}
}

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.forward(c)
	}
}

func (p *proxy) forward(from net.Conn) {
	if !p.pass() {
		from.Close()
		return
	}
	to, err := net.DialTimeout("tcp", p.target, time.Second)
	if err != nil {
		from.Close()
		return
	}
	if !p.keep(from, to) {
		return
	}
	go p.copy(from, to)
	p.copy(to, from)
}

// keep notes the two ends, so that a cut finds them.
func (p *proxy) keep(ends ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range ends {
		if p.state == cut {
			c.Close()
			continue
		}
		p.conns[c] = struct{}{}
	}
	return p.state != cut
}

// pass waits while the way is silent, and says whether it is not cut.
func (p *proxy) pass() bool {
	for {
		p.mu.Lock()
		state, changed := p.state, p.changed
		p.mu.Unlock()
		if state != silent {
			return state == open
		}
		<-changed
	}
}

func (p *proxy) copy(from, to net.Conn) {
	defer func() {
		from.Close()
		to.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, from)
		delete(p.conns, to)
	}()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if !p.pass() {
			return
		}
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}
