// Package natstest starts real NATS servers inside a test.
package natstest

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// deadline bounds every wait for a server; it is not a claim about speed.
const deadline = 3 * time.Minute

// Server is one server with JetStream on a free port of the loopback, with its store in the test's folder.
type Server struct {
	tb   testing.TB
	opts server.Options
	srv  *server.Server
	url  string
	log  server.Logger // nil: nothing is logged
}

// Start starts a server that ends with the test. The changes are made to its options.
func Start(tb testing.TB, changes ...func(*server.Options)) *Server {
	tb.Helper()
	opts := server.Options{ServerName: "test"}
	for _, change := range changes {
		change(&opts)
	}
	return start(tb, opts)
}

func start(tb testing.TB, opts server.Options) *Server {
	tb.Helper()
	opts.Host, opts.Port, opts.JetStream, opts.StoreDir = "127.0.0.1", server.RANDOM_PORT, true, storeDir(tb)
	opts.JetStreamMaxMemory, opts.JetStreamMaxStore, opts.NoSigs, opts.NoLog = 64<<20, 1<<30, true, true
	s := &Server{tb: tb, opts: opts}
	s.Restart()
	s.opts.Port = s.srv.Addr().(*net.TCPAddr).Port
	s.url = s.srv.ClientURL()
	tb.Cleanup(s.Stop)
	return s
}

// storeDir is in memory where the system has such a place: many servers at once wait for the disk otherwise, and what a
// test proves does not depend on it.
func storeDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "wxkeeper-test-") //nolint:usetesting // its place is the point
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Log gives l what the server logs from now on, also after each Restart: what clients send it, and what it refuses.
func (s *Server) Log(l server.Logger) {
	s.log = l
	s.srv.SetLoggerV2(l, false, true, false)
}

// SlowConsumers is how many clients the server has cut because they did not read.
func (s *Server) SlowConsumers() int64 { return s.srv.NumSlowConsumers() }

// Stop stops the server and waits for its end. It may be called twice.
func (s *Server) Stop() {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}

// Restart starts the server again on its port and store.
func (s *Server) Restart() {
	s.tb.Helper()
	opts := s.opts
	srv, err := server.NewServer(&opts)
	if err != nil {
		s.tb.Fatalf("nats-server: %v", err)
	}
	if s.log != nil {
		srv.SetLoggerV2(s.log, false, true, false)
	}
	srv.Start()
	if !srv.ReadyForConnections(deadline) {
		s.tb.Fatal("nats-server is not ready for connections")
	}
	s.srv = srv
}

// Save copies the store of a stopped server, and returns a function that puts the copy back: a restored backup.
func (s *Server) Save() (restore func()) {
	s.tb.Helper()
	saved := storeDir(s.tb)
	replace := func(to, from string) {
		err := os.RemoveAll(to)
		if err == nil {
			err = os.CopyFS(to, os.DirFS(from))
		}
		if err != nil {
			s.tb.Fatal(err)
		}
	}
	replace(saved, s.opts.StoreDir)
	return func() { replace(s.opts.StoreDir, saved) }
}

// URL is where clients connect.
func (s *Server) URL() string { return s.url }

// Connect opens a connection as workers use it; it is closed with the test.
func (s *Server) Connect(opts ...nats.Option) *nats.Conn {
	s.tb.Helper()
	return connect(s.tb, s.url, opts...)
}

func connect(tb testing.TB, url string, opts ...nats.Option) *nats.Conn {
	tb.Helper()
	opts = append([]nats.Option{
		nats.ReconnectBufSize(-1), nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}, opts...)
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		tb.Fatalf("connecting to the test's server: %v", err)
	}
	tb.Cleanup(nc.Close)
	return nc
}
