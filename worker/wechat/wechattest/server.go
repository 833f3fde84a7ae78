package wechattest

import (
	"net/http/httptest"
	"sync"
	"testing"
)

// Server is a Simulator that listens on a port of loopback.
type Server struct {
	*Simulator
	URL string // scheme, address and port, without a trailing slash

	http  *httptest.Server
	close sync.Once
}

// Start runs a simulation until the test ends. It panics if New does.
func Start(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	sim := New(cfg)
	h := httptest.NewServer(sim)
	s := &Server{Simulator: sim, URL: h.URL, http: h}
	tb.Cleanup(s.Close)
	return s
}

// Close drops calls that hang, waits for the other calls and closes the port. A test need not call it,
// because Start registers it as a cleanup. It may be called more than once.
func (s *Server) Close() {
	s.close.Do(func() {
		s.Release()
		s.http.Close()
	})
}
