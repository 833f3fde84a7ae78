package natsconn

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestCausesOfADialAreShort(t *testing.T) {
	t.Parallel()
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for want, err := range map[string]error{
		"connection refused": dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)),
		"no such host nats.example": dial(&net.DNSError{Err: "no such host", Name: "nats.example",
			Server: "192.0.2.53:53", IsNotFound: true}),
		"look up nats.example: server misbehaving": dial(&net.DNSError{Err: "server misbehaving",
			Name: "nats.example"}),
		"no answer within 2s": dial(os.ErrDeadlineExceeded),
		"something else":      errors.New("something else"),
	} {
		if got := dialCause(err, 2*time.Second); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

func TestEachUnreachableServerIsNamedWithItsCause(t *testing.T) {
	t.Parallel()
	const refused, away = "connection refused", "no answer within 2s"
	for _, tt := range []struct {
		failed []failedDial
		err    error
		want   string
	}{
		{nil, io.EOF, "EOF"},
		{[]failedDial{{"a:1", refused, ""}}, nats.ErrNoServers, refused},
		{[]failedDial{{"[::1]:4222", refused, ""}, {"127.0.0.1:4222", refused, ""}}, nats.ErrNoServers, refused},
		{[]failedDial{{"a:1", refused, ""}, {"b:2", away, ""}}, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded},
			"a:1: " + refused + "; b:2: " + away},
		{[]failedDial{{"a:1", refused, ""}}, io.EOF, "a:1: " + refused + "; EOF"}, // another server closed the connection
	} {
		d := &dialer{failed: tt.failed}
		if got := d.why(tt.err); got != tt.want {
			t.Errorf("%v, %v: %q, want %q", tt.failed, tt.err, got, tt.want)
		}
	}
}
