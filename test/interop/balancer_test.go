//go:build interop

package interop

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// balancer is a TCP load balancer in front of a NATS server: it accepts every connection, and closes it if the
// server is down.
type balancer struct {
	t       *testing.T
	l       net.Listener
	refused chan struct{} // one message for each connection while the server was down
}

func newBalancer(t *testing.T, url string) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	b := &balancer{t: t, l: l, refused: make(chan struct{}, 1000)}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://"))
			if err != nil {
				_ = in.Close()
				b.refused <- struct{}{}
				continue
			}
			for _, ends := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(ends[0], ends[1]) // until either end closes the connection
					_ = in.Close()
					_ = out.Close()
				}()
			}
		}
	}()
	return b
}

func (b *balancer) url() string { return "nats://" + b.l.Addr().String() }

// awaitRefused waits for more connections while the server is down.
func (b *balancer) awaitRefused(connections int) {
	b.t.Helper()
	end := time.After(hang)
	for range connections {
		select {
		case <-b.refused:
		case <-end:
			b.t.Fatal("the program does not try to reconnect")
		}
	}
}
