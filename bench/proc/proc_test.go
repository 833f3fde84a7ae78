package proc

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
)

func TestOwnerFindsTheProcessOfAConnection(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("/proc")
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	connection := Connection{
		Local:  netip.MustParseAddrPort(c.LocalAddr().String()),
		Remote: netip.MustParseAddrPort(c.RemoteAddr().String()),
	}
	self := os.Getpid()
	if pid, err := Owner(connection, []int{1, self}); err != nil || pid != self {
		t.Errorf("got %d, %v", pid, err)
	}
	if _, err := Owner(connection, nil); err == nil {
		t.Error("no process was asked, and one was found")
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("/proc")
	}
	if cpu, err := CPU(os.Getpid()); err != nil || cpu <= 0 {
		t.Errorf("processor time: %v, %v", cpu, err)
	}
	if bytes, err := Resident(os.Getpid()); err != nil || bytes < 1<<20 {
		t.Errorf("resident memory: %d, %v", bytes, err)
	}
}

func TestPortsAreNotGivenOutTwice(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	for range 50 {
		p, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if seen[p] {
			t.Fatalf("port %d was returned twice", p)
		}
		seen[p] = true
	}
}
