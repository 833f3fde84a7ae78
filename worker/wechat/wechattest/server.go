package wechattest

import (
	"net/http/httptest"
	"sync"
	"testing"
)

// Server is a Simulator that listens on a port of loopback.
type Server struct {
	*Simulator
	URL string // scheme, address and port, without a slash at the end

	http  *httptest.Server
	close sync.Once
}

// Start runs a simulation for the length of a test. It panics where New does.
func Start(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	sim := New(cfg)
	h := httptest.NewServer(sim)
	s := &Server{Simulator: sim, URL: h.URL, http: h}
	tb.Cleanup(s.Close)
	return s
}

// Close drops hung calls, waits for the others and frees the port. It may be
// called more than once, and Start has arranged for one call.
func (s *Server) Close() {
	s.close.Do(func() {
		s.Release()
		s.http.Close()
	})
}
