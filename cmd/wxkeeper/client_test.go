package main

import (
	"net"
	"strings"
	"testing"
)

// Without NATS_URL, `wxkeeper run` is the right advice only if nothing listens.
func TestVerbDoesNotAdviseToStartAWorkerWhereAnotherProcessListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	t.Setenv("NATS_URL", "")
	t.Setenv("WXKEEPER_NATS_LISTEN", l.Addr().String())
	t.Setenv("WXKEEPER_DATA_DIR", t.TempDir())
	term, _, errs := screen(false)
	code := execute(t.Context(), term, []string{"get"})
	_ = l.Close()
	<-done
	if code != exitFailure || !strings.Contains(errs.String(), "another process may listen there") ||
		strings.Contains(errs.String(), "start `wxkeeper run`") {
		t.Errorf("exit code %d: %s", code, errs)
	}
}
