// Package loopback recognizes addresses that only this machine can reach. Plain HTTP with secrets, and
// servers without authentication, are allowed only there.
//
// The test is strict: an address that is not certainly the loopback is not the loopback. It resolves no
// names.
package loopback

import (
	"net"
	"net/netip"
	"strings"
)

// Host reports whether host is the loopback: an IP address of 127.0.0.0/8, ::1, the IPv4-mapped form of such
// an address (::ffff:127.0.0.1), or the name localhost, which RFC 6761 reserves for it, in any case. host has
// no port and no brackets.
//
// Everything else is refused: the empty host and unspecified addresses, on which a server listens everywhere;
// addresses with a zone; short forms such as 127.1, which some resolvers read as addresses and others as
// names; and all other names, because the answer of a resolver can change.
func Host(host string) bool {
	if strings.ToLower(host) == "localhost" { // strings.EqualFold would take the letter ſ for an s
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Zone() == "" && ip.Unmap().IsLoopback()
}

// Addr is [Host] for an address with a port: host:port or [host]:port.
func Addr(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && Host(host)
}

// Reachable returns the address at which a client on this machine reaches a server that listens on addr, a valid
// host:port: it is the loopback if the server listens on all addresses.
func Reachable(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	switch ip, _ := netip.ParseAddr(host); {
	case host == "", ip.Unmap() == netip.IPv4Unspecified():
		host = "127.0.0.1"
	case ip == netip.IPv6Unspecified():
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}
