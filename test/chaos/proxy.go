//go:build unix

package main

import (
	"net"
	"sync"
	"time"
)

// proxy forwards the TCP connections of one loopback address to another. Its state simulates faults of the network.
type proxy struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	state   linkState
	changed chan struct{} // closed at the next change of state
	conns   map[net.Conn]struct{}
}

// linkState is the state of the network between the two ends of a proxy.
type linkState int

const (
	open   linkState = iota
	cut              // connections are reset, new ones are refused
	silent           // nothing arrives, without an error; after it opens, the bytes arrive, as TCP sends them again
)

func (s linkState) String() string { return [...]string{"open", "cut", "silent"}[s] }

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

func (p *proxy) set(s linkState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
	close(p.changed)
	p.changed = make(chan struct{})
	if s == cut {
		for c := range p.conns {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // sends a reset instead of an orderly end
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
	if !p.awaitOpen() {
		from.Close()
		return
	}
	to, err := net.DialTimeout("tcp", p.target, time.Second)
	if err != nil {
		from.Close()
		return
	}
	if !p.add(from, to) {
		return
	}
	go p.copy(from, to)
	p.copy(to, from)
}

// add stores both ends of a connection, so that a cut closes them. It returns false, and closes them, if the link
// is cut.
func (p *proxy) add(ends ...net.Conn) bool {
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

// awaitOpen waits while the link is silent. It returns false if the link is cut.
func (p *proxy) awaitOpen() bool {
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
		if !p.awaitOpen() {
			return
		}
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}
