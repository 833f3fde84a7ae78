package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"
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

// newHTTPServer returns a server with time limits for clients that send a request, or read the answer, too slowly.
func newHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// serveHTTP serves on l until shutdown is called. If serving fails before, serveHTTP calls failed. shutdown
// waits up to two seconds for requests, and then for the goroutine that serves.
func serveHTTP(srv *http.Server, l net.Listener, failed func(error)) (shutdown func()) {
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed(err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close() // a client does not read its answer
		}
		<-served
	}
}
