package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// listenHTTP opens WXKEEPER_HTTP_ADDR.
func listenHTTP(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("another process listens on %s: set WXKEEPER_HTTP_ADDR to another address, or to none",
			addr)
	case err != nil:
		return nil, fmt.Errorf("listen for HTTP, see WXKEEPER_HTTP_ADDR: %w", err)
	}
	return l, nil
}
