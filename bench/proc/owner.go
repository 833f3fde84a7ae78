package proc

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Connection is a TCP connection over IPv4, as its client sees it.
type Connection struct{ Local, Remote netip.AddrPort }

// Owner returns which of the processes is the client of a connection. So a benchmark finds out who makes a call,
// whatever program it is.
func Owner(c Connection, pids []int) (int, error) {
	inode, err := inodeOf(c)
	if err != nil {
		return 0, err
	}
	want := "socket:[" + inode + "]"
	for _, pid := range pids {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			return 0, err
		}
		if slices.ContainsFunc(files, func(f string) bool { to, err := os.Readlink(f); return err == nil && to == want }) {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("none of %d processes has the connection from %s", len(pids), c.Local)
}

// inodeOf returns the inode of the client's socket. The local address alone is not enough: connections to different
// servers may have the same port.
func inodeOf(c Connection) (string, error) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return "", err
	}
	defer f.Close()
	local, remote := hex(c.Local), hex(c.Remote)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 9 && fields[1] == local && fields[2] == remote {
			return fields[9], nil
		}
	}
	return "", fmt.Errorf("no socket has the address %s", c.Local)
}

// hex returns an address as in /proc/net/tcp.
func hex(addr netip.AddrPort) string {
	a := addr.Addr().Unmap().As4()
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", a[3], a[2], a[1], a[0], addr.Port())
}
