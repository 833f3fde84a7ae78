package natsconn_test

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
)

// certificate is a certificate for 127.0.0.1 and example.com, and the file of the authority that signed it.
func certificate(t *testing.T) (cfg *tls.Config, ca string) {
	t.Helper()
	h := httptest.NewTLSServer(nil) // for its certificate
	h.Close()
	ca = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return h.TLS, ca
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cfg, ca := certificate(t)
	addr := rawServer(t, &server.Options{TLSConfig: cfg, TLSTimeout: patience.Seconds()})
	demanding := cfg.Clone()
	demanding.ClientAuth = tls.RequireAndVerifyClientCert
	strict := rawServer(t, &server.Options{TLSConfig: demanding, TLSTimeout: patience.Seconds()})
	plain := startServer(t, embedded.Config{}).URL()

	reaches(t, connect(t, natsconn.Config{URL: addr, CA: ca}))
	fails(t, natsconn.Config{URL: addr}, "no TLS with NATS", "set NATS_CA to the file of the authority")
	fails(t, natsconn.Config{URL: plain, CA: ca}, "no TLS with NATS", "the server has no TLS", "unset NATS_CA")
	fails(t, natsconn.Config{URL: strings.Replace(addr, "127.0.0.1", "localhost", 1), CA: ca}, "no TLS with NATS",
		"for other names: write one of them as the host in NATS_URL")
	fails(t, natsconn.Config{URL: strict, CA: ca, FailFast: true}, "NATS_CERT")
	fails(t, natsconn.Config{URL: plain, CA: ca, TLSFirst: true}, "no TLS with NATS", "unset NATS_TLS_FIRST")
}

// A server with handshake_first sends nothing before TLS. A client that does not know it waits in vain.
func TestServerThatBeginsWithTLSIsReachedWithTLSFirst(t *testing.T) {
	t.Parallel()
	cfg, ca := certificate(t)
	start := func(timeout time.Duration) string {
		return rawServer(t, &server.Options{TLSConfig: cfg, TLSHandshakeFirst: true, TLSTimeout: timeout.Seconds()})
	}
	waits, hasty := start(patience), start(100*time.Millisecond)
	reaches(t, connect(t, natsconn.Config{URL: waits, CA: ca, TLSFirst: true}))
	fails(t, natsconn.Config{URL: waits, TLSFirst: true}, "set NATS_CA to the file of the authority")

	// the server closes the connection
	fails(t, natsconn.Config{URL: hasty, CA: ca, FailFast: true}, "NATS_TLS_FIRST=true")
	_, err := natsconn.Connect(t.Context(), natsconn.Config{URL: waits, CA: ca, FailFast: true,
		ConnectTimeout: 100 * time.Millisecond}) // the client gives up
	if err == nil || !strings.Contains(err.Error(), "NATS_TLS_FIRST=true") {
		t.Errorf("a silent server: %v", err)
	}
}

func TestAdviceNamesTheCauseOfAConnectionThatFails(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	chatty, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chatty.Close() })
	go func() {
		for {
			c, err := chatty.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("220 mail.example ESMTP\r\n"))
			_ = c.Close()
		}
	}()
	closes, _ := deadAddr(t)
	full := rawServer(t, &server.Options{MaxConn: 1})
	connect(t, natsconn.Config{URL: full})
	user := startServer(t, embedded.Config{User: "u", Password: "S3CRET-p"})
	for name, tt := range map[string]struct {
		cfg  natsconn.Config
		want []string
	}{
		"refused":        {natsconn.Config{URL: "nats://127.0.0.1:1"}, []string{"nothing listens there", "container"}},
		"no such host":   {natsconn.Config{URL: "nats://nats.invalid:1"}, []string{"DNS"}},
		"closed":         {natsconn.Config{URL: closes}, []string{"NATS_TLS_FIRST=true", "correct NATS_URL"}},
		"another server": {natsconn.Config{URL: chatty.Addr().String()}, []string{"not the port of a NATS server"}},
		"full":           {natsconn.Config{URL: full}, []string{"full"}},
		"two causes": {natsconn.Config{URL: "nats://127.0.0.1:1,nats://nats.invalid:1"},
			[]string{"nothing listens there", "DNS"}},
		"no credentials": {natsconn.Config{URL: user.URL()}, []string{"has sent no credentials", "NATS_PASSWORD"}},
		"wrong password": {natsconn.Config{URL: user.URL(), User: "u", Password: "S3CRET"},
			[]string{"has sent NATS_USER and NATS_PASSWORD;"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.cfg.FailFast = true
			fails(t, tt.cfg, tt.want...)
		})
	}
	_, err = natsconn.Connect(t.Context(), natsconn.Config{URL: strings.Replace(web.URL, "http", "nats", 1),
		FailFast: true, ConnectTimeout: 100 * time.Millisecond})
	var u *natsconn.UnreachableError
	if !errors.As(err, &u) || !strings.Contains(u.Advice, "a port that is not for clients") {
		t.Errorf("a web server, which waits for a request: %v", err)
	}
}
