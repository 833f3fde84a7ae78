package proc

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// ports are the ports that FreePort has returned. Systems start at the same time, and none may get the port of another.
var ports sync.Map

// FreePort returns a port of 127.0.0.1 below the range from which the kernel takes ports of outgoing connections, so
// that a process which was killed finds its port free again.
func FreePort() (int, error) {
	for range 1000 {
		port := 10_000 + rand.IntN(20_000)
		if _, used := ports.LoadOrStore(port, true); used {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		l.Close()
		return port, nil
	}
	return 0, errors.New("no free port")
}
