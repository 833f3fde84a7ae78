package natsconn_test

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// rawServer is a nats-server with options that the embedded one does not have.
func rawServer(t *testing.T, o *server.Options) string {
	t.Helper()
	return startRaw(t, o).ClientURL()
}

// startRaw is rawServer, for who wants more of it than its URL.
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
