// Package natstest runs real NATS servers in the process of a test.
package natstest

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// patience is the limit of every wait for a server. Only a server that hangs reaches it: on a loaded machine
// a start can take half a minute.
const patience = 3 * time.Minute

// Server is one server with JetStream on a free port of the loopback. Its store is a temporary directory.
type Server struct {
	tb   testing.TB
	opts server.Options
	srv  *server.Server
	url  string
	log  server.Logger // nil: nothing is logged
}

// Start starts a server with changed options. The server stops at the end of the test.
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
	opts.Host, opts.Port, opts.JetStream, opts.StoreDir = "127.0.0.1", freePort(tb), true, storeDir(tb)
	opts.JetStreamMaxMemory, opts.JetStreamMaxStore, opts.NoSigs, opts.NoLog = 64<<20, 1<<30, true, true
	opts.AuthTimeout = patience.Seconds() // 2 s by default, in which a client on a loaded machine may not send its name
	s := &Server{tb: tb, opts: opts}
	s.Restart()
	s.url = s.srv.ClientURL()
	tb.Cleanup(s.Stop)
	return s
}

// storeDir is a directory in memory if the system has one. Otherwise many servers at once would wait for the
// disk. No test depends on the kind of the file system.
func storeDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "wxkeeper-test-") //nolint:usetesting // TempDir is on the disk
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Log sets the logger of the server, also after each Restart. It receives what clients send and what the
// server refuses.
func (s *Server) Log(l server.Logger) {
	s.log = l
	s.srv.SetLoggerV2(l, false, true, false)
}

// SlowConsumers is the number of clients that the server has disconnected because they did not read.
func (s *Server) SlowConsumers() int64 { return s.srv.NumSlowConsumers() }

// LimitStorage limits what streams may store on the disk from now on, as an operator limits an account; -1: no limit.
// With fewer bytes than they store already, no more is stored.
func (s *Server) LimitStorage(bytes int64) {
	s.tb.Helper()
	err := s.srv.GlobalAccount().UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{
		"": {MaxMemory: -1, MaxStore: bytes, MaxStreams: -1, MaxConsumers: -1, MaxAckPending: -1, MemoryMaxStreamBytes: -1,
			StoreMaxStreamBytes: -1},
	})
	if err != nil {
		s.tb.Fatal(err)
	}
}

// Stop stops the server and waits until it has stopped. It may be called more than once.
func (s *Server) Stop() {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}

// Restart starts a stopped server again, with the same port and the same store.
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
	if !srv.ReadyForConnections(patience) {
		s.tb.Fatal("nats-server is not ready for connections")
	}
	s.srv = srv
}

// Save copies the store of a stopped server, and returns a function that restores the copy, like a backup.
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

// URL is the URL for clients.
func (s *Server) URL() string { return s.url }

// Connect opens a connection with the options of workers. It is closed at the end of the test.
func (s *Server) Connect(opts ...nats.Option) *nats.Conn {
	s.tb.Helper()
	return connect(s.tb, s.url, opts...)
}

// connect tries again after a time limit of nats.go, which is two seconds. A higher limit would also hold for later
// reconnects, which must give up a server that has stopped before it has answered.
func connect(tb testing.TB, url string, opts ...nats.Option) *nats.Conn {
	tb.Helper()
	opts = append([]nats.Option{
		nats.ReconnectBufSize(-1), nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}, opts...)
	for end := time.Now().Add(patience); ; {
		nc, err := nats.Connect(url, opts...)
		if err == nil {
			tb.Cleanup(nc.Close)
			return nc
		}
		var op net.Error
		late := errors.Is(err, nats.ErrTimeout) || errors.As(err, &op) && op.Timeout()
		if !late || time.Now().After(end) {
			tb.Fatalf("connect to the test's server: %v", err)
		}
	}
}
