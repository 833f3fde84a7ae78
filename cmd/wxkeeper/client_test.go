package main

import (
	"net"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
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

// JetStream acknowledges a request that a stream stores, also if no worker runs: the verb says what it saw.
func TestVerbSaysWhatAnsweredInPlaceOfAWorker(t *testing.T) {
	srv := natstest.Start(t)
	js, err := jetstream.New(srv.Connect())
	if err == nil {
		_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "AUDIT", Subjects: []string{"wechat.>"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NATS_URL", srv.URL())
	for _, verb := range []string{"get", "resolve o t", "refresh", "status"} {
		term, _, errs := screen(false)
		args := append(strings.Fields(verb), "--timeout", "200ms")
		if code := execute(t.Context(), term, args); code != exitFailure ||
			!strings.Contains(errs.String(), `stored the request in the stream "AUDIT": remove`) ||
			strings.Contains(errs.String(), "hangs") {
			t.Errorf("%s: exit code %d: %s", verb, code, errs)
		}
	}
}
