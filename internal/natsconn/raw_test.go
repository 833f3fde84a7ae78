package natsconn_test

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// rawServer starts a nats-server with options that the embedded server does not have, and returns its URL.
func rawServer(t *testing.T, o *server.Options) string {
	t.Helper()
	return startRaw(t, o).ClientURL()
}

// startRaw is rawServer for tests that need more than the URL.
func startRaw(t *testing.T, o *server.Options) *server.Server {
	t.Helper()
	o.Host, o.Port, o.NoSigs, o.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("not ready")
	}
	return s
}
