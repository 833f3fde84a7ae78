package loopback_test

import (
	"net"
	"testing"

	"github.com/wxkeeper/wxkeeper/internal/loopback"
)

func TestOnlyWhatIsCertainlyTheLoopbackIsTheLoopback(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"127.0.0.1":        true,
		"127.0.0.0":        true,
		"127.255.255.254":  true,
		"::1":              true,
		"0:0:0:0:0:0:0:1":  true,
		"::ffff:127.0.0.1": true, // IPv4 in an IPv6 socket
		"::ffff:7f00:1":    true,
		"::FFFF:127.1.2.3": true,
		"localhost":        true,
		"LocalHost":        true,

		"":                      false, // a server listens on all addresses
		"0.0.0.0":               false,
		"::":                    false,
		"::ffff:0.0.0.0":        false,
		"10.0.0.1":              false,
		"128.0.0.1":             false,
		"192.0.2.1":             false,
		"::2":                   false,
		"fe80::1":               false,
		"2001:db8::1":           false,
		"::127.0.0.1":           false, // IPv4-compatible, deprecated: no loopback
		"64:ff9b::127.0.0.1":    false, // NAT64: the translator's loopback
		"::1%lo":                false, // a zone
		"::1%eth0":              false,
		"fe80::1%lo":            false,
		"::ffff:127.0.0.1%eth0": false,
		"127.1":                 false, // a short form, or a name: it depends on the resolver
		"127.0.1":               false,
		"127":                   false,
		"2130706433":            false,
		"0x7f000001":            false,
		"0x7f.0.0.1":            false,
		"0177.0.0.1":            false,
		"127.0.0.01":            false,
		"127.0.0.1.":            false,
		"127.0.0.1 ":            false,
		" 127.0.0.1":            false,
		"127.0.0.1/8":           false,
		"127.0.0.1:80":          false, // with a port
		"localhost:80":          false,
		"[::1]":                 false, // with brackets
		"[::1]:80":              false,
		"localhost.":            false, // names
		"localhost.localdomain": false,
		"a.localhost":           false,
		"localhost4":            false,
		"ip6-localhost":         false,
		"localhost.example.com": false,
		"127.0.0.1.example.com": false,
		"127.0.0.1@example.com": false,
		"localho\u017ft":        false, // ſ, which strings.EqualFold takes for an s
		"loopback":              false,
	} {
		if got := loopback.Host(host); got != want {
			t.Errorf("Host(%q) = %t, want %t", host, got, want)
		}
		if got := loopback.Addr(net.JoinHostPort(host, "4222")); got != want && host != "[::1]" {
			t.Errorf("Addr of %q and a port = %t, want %t", host, got, want)
		}
	}
}

func TestAddressNeedsAPort(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"127.0.0.1:0": true, "[::1]:80": true, "localhost:http": true, "127.0.0.1:": true,
		"": false, ":4222": false, "127.0.0.1": false, "::1": false, "::1:80": false, "[::1]": false,
		"localhost": false,
		"[::]:80":   false, "0.0.0.0:80": false, "127.0.0.1:80:80": false, "http://127.0.0.1:80": false,
		"/run/socket": false,
	} {
		if got := loopback.Addr(addr); got != want {
			t.Errorf("Addr(%q) = %t, want %t", addr, got, want)
		}
	}
}

// A server that listens on all addresses is asked on the loopback.
func TestServersThatListenEverywhereAreReachable(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		":80": "127.0.0.1:80", "0.0.0.0:80": "127.0.0.1:80", "[::ffff:0.0.0.0]:80": "127.0.0.1:80",
		"[::]:80": "[::1]:80", "[0:0:0:0:0:0:0:0]:80": "[::1]:80",
		"192.0.2.1:80": "192.0.2.1:80", "localhost:80": "localhost:80", "[::1]:80": "[::1]:80",
	} {
		if got := loopback.Reachable(addr); got != want {
			t.Errorf("Reachable(%q) = %q, want %q", addr, got, want)
		}
	}
}
