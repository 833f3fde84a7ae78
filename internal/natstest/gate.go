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

// Gate stands between a client and its servers. It reads what the client says, and can stop everything at one message,
// lose that message, or cut the line: a fault at exactly one step of what the client does.
type Gate struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced when open, severed or conns change
	open    bool
	severed bool
	conns   map[*gatedConn]struct{}
	stops   []*stop
}

// stop is a message that is waited for.
type stop struct {
	subject string
	inbound bool // from the server
	left    int  // how many messages of the subject are still to come, this one included
	then    action
	reached chan struct{}
}

type action uint8

const (
	holdBefore action = iota // hold it and all that follows, in both directions
	holdAfter                // the server gets it, and says nothing any more
	lose                     // it never arrives
)

// NewGate makes an open gate. Its Option makes a connection go through it; TLS does not.
func NewGate() *Gate {
	return &Gate{changed: make(chan struct{}), open: true, conns: make(map[*gatedConn]struct{})}
}

// Option is for the client's connection.
func (g *Gate) Option() nats.Option { return nats.SetCustomDialer(g) }

// Before closes the gate just before the server gets the nth message (from now, 1 is the next) that the client publishes
// on a subject. The channel is closed when that happens.
func (g *Gate) Before(subject string, nth int) <-chan struct{} {
	return g.at(subject, nth, holdBefore)
}

// After closes the gate just after the server was sent that message: what it answers does not arrive.
func (g *Gate) After(subject string, nth int) <-chan struct{} { return g.at(subject, nth, holdAfter) }

// Lose loses that message. The gate stays open.
func (g *Gate) Lose(subject string, nth int) <-chan struct{} { return g.at(subject, nth, lose) }

// Miss loses the nth message from now that the server sends to the client on a subject. The gate stays open.
func (g *Gate) Miss(subject string, nth int) <-chan struct{} {
	return g.add(&stop{subject: subject, inbound: true, left: nth, then: lose})
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

// Hold closes the gate: nothing passes in either direction, and the connections stay up.
func (g *Gate) Hold() { g.set(func() { g.open = false }) }

// Open lets all that was held go on.
func (g *Gate) Open() { g.set(func() { g.open = true }) }

// Cut breaks the connections and forgets what was held; the client may connect again at once.
func (g *Gate) Cut() {
	g.set(func() {
		for c := range g.conns {
			c.cut()
		}
		clear(g.conns)
		g.open = true
	})
}

// Sever is Cut, for good.
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

// pass blocks while the gate is closed, and says whether the connection still stands.
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

// meets says what happens to a message.
func (g *Gate) meets(subject string, inbound bool) *stop {
	g.mu.Lock()
	defer g.mu.Unlock()
	var met *stop
	for _, s := range g.stops {
		if s.subject != subject || s.inbound != inbound || s.left == 0 {
			continue
		}
		if s.left--; s.left == 0 {
			met = s
		}
	}
	if met != nil && met.then != lose {
		g.open = false
	}
	return met
}

// gatedConn is one connection through a gate. Its Write never blocks, because nats.go holds its lock meanwhile.
type gatedConn struct {
	net.Conn
	gate *Gate
	gone chan struct{}
	once sync.Once
	more chan struct{}

	mu      sync.Mutex
	pending []byte

	received, ready []byte // from the server: what is not complete, and what may be read
}

func (c *gatedConn) cut() {
	c.once.Do(func() {
		close(c.gone)
		_ = c.Conn.Close() // what it breaks is told by the next read
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

// Read is called by one goroutine. It passes the commands of the server on, but for those that are to be lost.
func (c *gatedConn) Read(b []byte) (int, error) {
	for len(c.ready) == 0 {
		n, err := c.Conn.Read(b)
		if !c.gate.pass(c) {
			return 0, net.ErrClosed
		}
		c.received = append(c.received, b[:n]...)
		for n, subject := command(c.received); n > 0; n, subject = command(c.received) {
			if met := c.gate.meets(subject, true); met != nil {
				close(met.reached)
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

// pump sends what the client has written, one command of the protocol after the other.
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

// send passes one command on, or does with it what a stop says. It says whether there is any use in sending more.
func (c *gatedConn) send(cmd []byte, subject string) bool {
	if !c.gate.pass(c) {
		return false
	}
	if met := c.gate.meets(subject, false); met != nil {
		switch met.then {
		case lose:
			close(met.reached)
			return true
		case holdBefore:
			close(met.reached)
			if !c.gate.pass(c) {
				return false
			}
		case holdAfter:
			defer close(met.reached)
		}
	}
	_, err := c.Conn.Write(cmd)
	return err == nil
}

// command finds the first command of a client or a server in b: its length, 0 where it is not complete, and the subject
// if it is a message.
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
