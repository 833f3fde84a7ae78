package natstest

import (
	"bytes"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Gate is between a client and its servers. It parses the protocol, and can stop all traffic at one message, drop one
// message, or break the connection: a fault at exactly one step of the client.
type Gate struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced when open, severed or conns change
	open    bool
	severed bool
	conns   map[*gatedConn]struct{}
	stops   []*stop
}

// stop is a message at which the gate acts.
type stop struct {
	subject string
	inbound bool // from the server
	left    int  // the number of messages of the subject up to this one, which counts too; 0: it has passed
	then    action
	reached chan struct{} // closed when the gate has acted
}

type action uint8

const (
	closeBefore action = iota // close the gate before the message
	closeAfter                // close the gate after the message: it arrives, and nothing after it
	drop                      // the message never arrives
)

// NewGate returns an open gate. A connection with its Option goes through the gate; it must not use TLS.
func NewGate() *Gate {
	return &Gate{changed: make(chan struct{}), open: true, conns: make(map[*gatedConn]struct{})}
}

// Option is the option of the client's connection.
func (g *Gate) Option() nats.Option { return nats.SetCustomDialer(g) }

// Before closes the gate before the server receives the nth message that the client publishes on subject; 1
// is the next one. The returned channel is closed when this happens.
func (g *Gate) Before(subject string, nth int) <-chan struct{} {
	return g.at(subject, nth, closeBefore)
}

// After closes the gate after this message was sent to the server: the reply does not arrive.
func (g *Gate) After(subject string, nth int) <-chan struct{} { return g.at(subject, nth, closeAfter) }

// Lose drops this message. The gate stays open.
func (g *Gate) Lose(subject string, nth int) <-chan struct{} { return g.at(subject, nth, drop) }

// Miss drops the nth message that the server sends to the client on subject; 1 is the next one. The gate stays open.
func (g *Gate) Miss(subject string, nth int) <-chan struct{} {
	return g.add(&stop{subject: subject, inbound: true, left: nth, then: drop})
}

func (g *Gate) at(subject string, nth int, then action) <-chan struct{} {
	return g.add(&stop{subject: subject, left: nth, then: then})
}

func (g *Gate) add(s *stop) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.reached = make(chan struct{})
	g.stops = append(g.stops, s)
	return s.reached
}

// Hold closes the gate: nothing passes in either direction, but the connections stay open.
func (g *Gate) Hold() { g.set(func() { g.open = false }) }

// Open opens the gate: everything that waits passes.
func (g *Gate) Open() { g.set(func() { g.open = true }) }

// Cut breaks the connections, discards what waits, and opens the gate: the client can connect again at once.
func (g *Gate) Cut() {
	g.set(func() {
		for c := range g.conns {
			c.cut()
		}
		clear(g.conns)
		g.open = true
	})
}

// Sever is Cut, and no client can connect again.
func (g *Gate) Sever() {
	g.set(func() { g.severed = true })
	g.Cut()
}

func (g *Gate) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
	close(g.changed)
	g.changed = make(chan struct{})
}

// Dial implements nats.CustomDialer.
func (g *Gate) Dial(network, address string) (net.Conn, error) {
	g.mu.Lock()
	severed := g.severed
	g.mu.Unlock()
	if severed {
		return nil, errors.New("natstest: the gate is severed")
	}
	nc, err := net.DialTimeout(network, address, 2*time.Second)
	if err != nil {
		return nil, err
	}
	c := &gatedConn{Conn: nc, gate: g, gone: make(chan struct{}), more: make(chan struct{}, 1)}
	g.set(func() {
		if g.severed {
			c.cut()
		}
		g.conns[c] = struct{}{}
	})
	go c.pump()
	return c, nil
}

// pass blocks while the gate is closed, and reports whether the connection is still open.
func (g *Gate) pass(c *gatedConn) bool {
	for {
		g.mu.Lock()
		open, changed := g.open, g.changed
		g.mu.Unlock()
		select {
		case <-c.gone:
			return false
		default:
		}
		if open {
			return true
		}
		select {
		case <-changed:
		case <-c.gone:
			return false
		}
	}
}

// stopFor counts a message, and returns the stop at which the gate acts now, or nil.
func (g *Gate) stopFor(subject string, inbound bool) *stop {
	g.mu.Lock()
	defer g.mu.Unlock()
	var hit *stop
	for _, s := range g.stops {
		if s.subject != subject || s.inbound != inbound || s.left == 0 {
			continue
		}
		if s.left--; s.left == 0 {
			hit = s
		}
	}
	if hit != nil && hit.then != drop {
		g.open = false
	}
	return hit
}

// gatedConn is one connection through a gate. Its Write never blocks, because nats.go calls it with its mutex locked.
type gatedConn struct {
	net.Conn
	gate *Gate
	gone chan struct{}
	once sync.Once
	more chan struct{}

	mu      sync.Mutex
	pending []byte

	received, ready []byte // from the server: incomplete commands, and what Read returns next
}

func (c *gatedConn) cut() {
	c.once.Do(func() {
		close(c.gone)
		_ = c.Conn.Close() // the next read returns the error
	})
}

func (c *gatedConn) Close() error {
	c.cut()
	c.gate.set(func() { delete(c.gate.conns, c) })
	return nil
}

func (c *gatedConn) Write(b []byte) (int, error) {
	select {
	case <-c.gone:
		return 0, net.ErrClosed
	default:
	}
	c.mu.Lock()
	c.pending = append(c.pending, b...)
	c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

// Read is called by one goroutine. It returns the commands of the server, without the messages that are dropped.
func (c *gatedConn) Read(b []byte) (int, error) {
	for len(c.ready) == 0 {
		n, err := c.Conn.Read(b)
		if !c.gate.pass(c) {
			return 0, net.ErrClosed
		}
		c.received = append(c.received, b[:n]...)
		for n, subject := command(c.received); n > 0; n, subject = command(c.received) {
			if hit := c.gate.stopFor(subject, true); hit != nil {
				close(hit.reached)
			} else {
				c.ready = append(c.ready, c.received[:n]...)
			}
			c.received = c.received[n:]
		}
		if err != nil && len(c.ready) == 0 {
			return 0, err
		}
	}
	n := copy(b, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

// pump sends what the client has written, command by command.
func (c *gatedConn) pump() {
	var in []byte
	for {
		select {
		case <-c.more:
		case <-c.gone:
			return
		}
		c.mu.Lock()
		in, c.pending = append(in, c.pending...), nil
		c.mu.Unlock()
		for n, subject := command(in); n > 0; n, subject = command(in) {
			if !c.send(in[:n], subject) {
				return
			}
			in = in[n:]
		}
	}
}

// send sends one command, or does what its stop requires. It reports whether more commands can be sent.
func (c *gatedConn) send(cmd []byte, subject string) bool {
	if !c.gate.pass(c) {
		return false
	}
	if hit := c.gate.stopFor(subject, false); hit != nil {
		switch hit.then {
		case drop:
			close(hit.reached)
			return true
		case closeBefore:
			close(hit.reached)
			if !c.gate.pass(c) {
				return false
			}
		case closeAfter:
			defer close(hit.reached)
		}
	}
	_, err := c.Conn.Write(cmd)
	return err == nil
}

// command finds the first command of a client or a server in b: its length, which is 0 if it is incomplete, and the
// subject if it is a message.
func command(b []byte) (length int, subject string) {
	line := bytes.Index(b, []byte("\r\n"))
	if line < 0 {
		return 0, ""
	}
	end := line + 2
	fields := bytes.Fields(b[:line])
	if len(fields) < 3 || !isMessage(string(bytes.ToUpper(fields[0]))) {
		return end, ""
	}
	size, err := strconv.Atoi(string(fields[len(fields)-1]))
	if err != nil || len(b) < end+size+2 {
		return 0, ""
	}
	return end + size + 2, string(fields[1])
}

func isMessage(op string) bool { return op == "PUB" || op == "HPUB" || op == "MSG" || op == "HMSG" }
