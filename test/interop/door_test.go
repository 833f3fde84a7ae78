//go:build interop

package interop

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// door stands before a NATS server, as a load balancer does: it takes every connection, and hangs up where no server is.
type door struct {
	t      *testing.T
	l      net.Listener
	knocks chan struct{} // connections in vain
}

func newDoor(t *testing.T, url string) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	d := &door{t: t, l: l, knocks: make(chan struct{}, 1000)}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://"))
			if err != nil {
				_ = in.Close()
				d.knocks <- struct{}{}
				continue
			}
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(way[0], way[1]) // until either side hangs up
					_ = in.Close()
					_ = out.Close()
				}()
			}
		}
	}()
	return d
}

func (d *door) url() string { return "nats://" + d.l.Addr().String() }

// knocked waits until so many more connections were in vain.
func (d *door) knocked(times int) {
	d.t.Helper()
	end := time.After(patience)
	for range times {
		select {
		case <-d.knocks:
		case <-end:
			d.t.Fatal("nobody tries to reconnect")
		}
	}
}
