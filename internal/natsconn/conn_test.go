package natsconn_test

import (
	"context"
	"encoding/pem"
	"errors"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for what must happen; reached only by a test that fails.
const patience = 20 * time.Second

func startServer(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	cfg.DataDir = t.TempDir()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	s, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

// connect connects within patience, and closes with the test.
func connect(t *testing.T, cfg natsconn.Config, extra ...nats.Option) *natsconn.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	nc, err := natsconn.Connect(ctx, cfg, extra...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// works proves that nc reaches a server.
func works(t *testing.T, nc *natsconn.Conn) {
	t.Helper()
	if err := nc.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
}

// fails asserts an error at once that has all of want, on one line and without a secret.
func fails(t *testing.T, cfg natsconn.Config, want ...string) {
	t.Helper()
	logs := newRecorder()
	cfg.Logger = logs.logger()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	nc, err := natsconn.Connect(ctx, cfg)
	if err == nil {
		nc.Close()
		t.Fatal("connected")
	}
	if ctx.Err() != nil {
		t.Fatalf("not at once: %v", err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error()+logs.text(), "S3CRET") {
		t.Errorf("error or log has a second line or a secret: %q\n%s", err, logs.text())
	}
}

// refusedAddr is an address at which nobody listens until the test ends or frees it.
func refusedAddr(t *testing.T) (addr string, free func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // a connection that ends before the server has said who it is: no server is there
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	free = func() { _ = l.Close(); <-done }
	t.Cleanup(free)
	return l.Addr().String(), free
}

func TestConnectAuthenticates(t *testing.T) {
	t.Parallel()
	user := startServer(t, embedded.Config{User: "u", Password: "S3CRET-p"})
	token := startServer(t, embedded.Config{Token: "S3CRET-t"})
	open := startServer(t, embedded.Config{})
	with := func(u, info string) string { return strings.Replace(u, "nats://", "nats://"+info+"@", 1) }

	for _, cfg := range []natsconn.Config{
		{URL: open.URL()},
		{URL: strings.TrimPrefix(open.URL(), "nats://")},
		{URL: user.URL(), User: "u", Password: "S3CRET-p"},
		{URL: with(user.URL(), "u:S3CRET-p")},
		{URL: token.URL(), Token: "S3CRET-t", InboxPrefix: "_INBOX_x", FailFast: true},
		{URL: with(token.URL(), "S3CRET-t")},
	} {
		logs := newRecorder()
		cfg.Logger = logs.logger()
		works(t, connect(t, cfg))
		if text := logs.text(); !strings.Contains(text, "connected to NATS") || strings.Contains(text, "S3CRET") {
			t.Errorf("log: %s", text)
		}
	}
	works(t, connect(t, natsconn.Config{}, token.InProcess()))

	for _, cfg := range []natsconn.Config{
		{URL: user.URL()},
		{URL: user.URL(), User: "u", Password: "S3CRET-guess"},
		{URL: with(user.URL(), "u:S3CRET-guess")},
		{URL: token.URL(), Token: "S3CRET-guess"},
		{URL: with(token.URL(), "S3CRET-guess")},
		{URL: token.URL(), Token: "S3CRET-guess", FailFast: true},
	} {
		fails(t, cfg, "127.0.0.1", "refuses this client", "NATS_PASSWORD", "NATS_TOKEN")
	}
}

func TestBadConfigurationIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	junk := filepath.Join(dir, "S3-junk")
	if err := os.WriteFile(junk, []byte("S3CRET"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	for name, tt := range map[string]struct {
		cfg  natsconn.Config
		want []string
	}{
		"creds missing":           {natsconn.Config{Creds: missing}, []string{"NATS_CREDS", missing}},
		"creds are none":          {natsconn.Config{Creds: junk}, []string{"NATS_CREDS", junk}},
		"nkey missing":            {natsconn.Config{NKey: missing}, []string{"NATS_NKEY", missing}},
		"nkey is none":            {natsconn.Config{NKey: junk}, []string{"NATS_NKEY", junk}},
		"ca missing":              {natsconn.Config{CA: missing}, []string{"NATS_CA", missing}},
		"ca is none":              {natsconn.Config{CA: junk}, []string{"NATS_CA", junk}},
		"certificate missing":     {natsconn.Config{Cert: missing, Key: junk}, []string{"NATS_CERT", missing}},
		"certificate is none":     {natsconn.Config{Cert: junk, Key: junk}, []string{"NATS_CERT"}},
		"certificate without key": {natsconn.Config{Cert: junk}, []string{"NATS_KEY"}},
		"url with a blank":        {natsconn.Config{URL: "nats://u:S3CRET@ho st:4222"}, []string{"NATS_URL", "nats://***@ho st:4222"}},
		"url with a bare percent": {natsconn.Config{URL: "nats://u:S3CRET%@host:4222"}, []string{"NATS_URL", "***@host:4222", "percent-encoded"}},
		"second url of a list":    {natsconn.Config{URL: "nats://h:4222, nats://u:S3CRET@h:port"}, []string{"NATS_URL", "***@h:port"}},
		"url without host":        {natsconn.Config{URL: "nats://"}, []string{"NATS_URL"}},
		"url of another scheme":   {natsconn.Config{URL: "http://u:S3CRET@host:4222"}, []string{"NATS_URL", "http", "***@host"}},
	} {
		t.Run(name, func(t *testing.T) { fails(t, tt.cfg, tt.want...) })
	}
}

func TestUnreachableServerIsWaitedFor(t *testing.T) {
	t.Parallel()
	addr, free := refusedAddr(t)
	logs := newRecorder()
	got := make(chan *natsconn.Conn)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		nc, err := natsconn.Connect(ctx, natsconn.Config{URL: "nats://u:S3CRET@" + addr, Logger: logs.logger()})
		if err != nil {
			t.Error(err)
		}
		got <- nc
	}()
	logs.wait(t, "cannot be reached, trying again")

	free()
	startServer(t, embedded.Config{Listen: addr, User: "u", Password: "S3CRET"})
	nc := <-got
	if nc == nil {
		t.FailNow()
	}
	defer nc.Close()
	works(t, nc)
	if strings.Contains(logs.text(), "S3CRET") {
		t.Errorf("a secret in the log: %s", logs.text())
	}

	cancel() // the context of Connect has no meaning for the connection
	works(t, nc)
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	t.Parallel()
	addr, _ := refusedAddr(t)
	logs := newRecorder()
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error)
	go func() {
		_, err := natsconn.Connect(ctx, natsconn.Config{URL: "nats://S3CRET@" + addr, Logger: logs.logger()})
		got <- err
	}()
	logs.wait(t, "trying again")
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), addr) || strings.Contains(err.Error(), "S3CRET") {
		t.Errorf("error %v", err)
	}
}

func TestFailFastDoesNotWait(t *testing.T) {
	t.Parallel()
	addr, _ := refusedAddr(t)
	fails(t, natsconn.Config{URL: "nats://u:S3CRET@" + addr, FailFast: true}, "no NATS server can be reached", addr, "NATS_URL")
}

// The words of nats.go, "no servers available for connection", say nothing of what is wrong.
func TestTheCauseIsNamed(t *testing.T) {
	t.Parallel()
	const nobody, other = "127.0.0.1:1", "127.0.0.1:2" // where nobody listens
	speechless, _ := refusedAddr(t)
	for _, tt := range []struct{ url, why string }{
		{"nats://u:S3CRET@" + nobody, "connection refused"},
		{"nats://" + nobody + ",nats://" + other, "connection refused"},
		{"nats://" + speechless + ",nats://" + nobody, "connection refused"},
	} {
		_, err := natsconn.Connect(t.Context(), natsconn.Config{URL: tt.url, FailFast: true})
		var u *natsconn.UnreachableError
		if !errors.As(err, &u) || !strings.Contains(u.Why, tt.why) || strings.Contains(err.Error(), "S3CRET") || strings.Contains(err.Error(), "no servers available") {
			t.Errorf("%s: %v, want %q", tt.url, err, tt.why)
		}
	}

	logs := newRecorder()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := natsconn.Connect(ctx, natsconn.Config{URL: "nats://" + nobody, Logger: logs.logger()})
		ended <- err
	}()
	logs.wait(t, "trying again")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if text := logs.text(); !strings.Contains(text, `error="connection refused"`) || strings.Contains(text, "times_not_logged") {
		t.Errorf("log: %s", text)
	}
}

func TestConnectionOutlivesTheServer(t *testing.T) {
	t.Parallel()
	s := startServer(t, embedded.Config{})
	logs := newRecorder()
	nc := connect(t, natsconn.Config{URL: s.URL(), Logger: logs.logger()})
	works(t, nc)

	s.Shutdown()
	logs.wait(t, "disconnected from NATS, reconnecting")
	if err := nc.Publish("a", []byte("late")); !errors.Is(err, nats.ErrReconnectBufExceeded) {
		t.Errorf("a publish while the server is away must fail at once: %v", err)
	}

	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	startServer(t, embedded.Config{Listen: u.Host})
	logs.wait(t, "reconnected to NATS")
	works(t, nc)
	select {
	case <-nc.Closed():
		t.Error("closed")
	default:
	}
}

func TestClosedForGoodIsKnown(t *testing.T) {
	t.Parallel()
	s := startServer(t, embedded.Config{})
	closed := func(nc *natsconn.Conn) {
		t.Helper()
		select {
		case <-nc.Closed():
		case <-time.After(patience):
			t.Fatal("not closed")
		}
	}

	logs := newRecorder()
	nc := connect(t, natsconn.Config{URL: s.URL(), Logger: logs.logger()})
	if err := nc.Err(); err != nil {
		t.Errorf("open, but Err() = %v", err)
	}
	nc.Conn.Close() // not through Conn: what nats.go does when it gives up
	closed(nc)
	if err := nc.Err(); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("Err() = %v", err)
	}
	logs.wait(t, "closed for good")

	nc = connect(t, natsconn.Config{URL: s.URL()})
	nc.Close()
	closed(nc)
	if err := nc.Err(); err != nil {
		t.Errorf("after Close: Err() = %v", err)
	}
}

func TestDrainWaits(t *testing.T) {
	t.Parallel()
	s := startServer(t, embedded.Config{})
	nc := connect(t, natsconn.Config{URL: s.URL()})
	started, handled := make(chan struct{}), make(chan struct{})
	if _, err := nc.Subscribe("a", func(*nats.Msg) { close(started); <-handled }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish("a", nil); err != nil {
		t.Fatal(err)
	}
	works(t, nc)
	<-started

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got := make(chan error)
	go func() { got <- nc.Drain(ctx) }()
	select {
	case err := <-got:
		t.Fatalf("did not wait for the handler: %v", err)
	case handled <- struct{}{}:
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	<-nc.Closed()
	if err := nc.Drain(ctx); err != nil {
		t.Errorf("the second time: %v", err)
	}

	hung := connect(t, natsconn.Config{URL: s.URL()})
	block := make(chan struct{})
	defer close(block)
	entered := make(chan struct{})
	if _, err := hung.Subscribe("b", func(*nats.Msg) { close(entered); <-block }); err != nil {
		t.Fatal(err)
	}
	if err := hung.Publish("b", nil); err != nil {
		t.Fatal(err)
	}
	<-entered
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := hung.Drain(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	<-hung.Closed()
}

func TestMissingPermissionIsLoud(t *testing.T) {
	t.Parallel()
	addr := rawServer(t, &server.Options{Users: []*server.User{{
		Username: "u", Password: "S3CRET",
		Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"allowed"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_u.>"}},
		},
	}}})
	logs := newRecorder()
	nc := connect(t, natsconn.Config{URL: addr, User: "u", Password: "S3CRET", Logger: logs.logger()})
	for range 100 {
		if err := nc.Publish("forbidden", nil); err != nil {
			t.Fatal(err)
		}
	}
	logs.wait(t, "permissions are too narrow")
	works(t, nc)
	if n := strings.Count(logs.text(), "permissions are too narrow"); n != 1 {
		t.Errorf("%d lines for 100 refusals within seconds", n)
	}
	if !strings.Contains(logs.text(), "forbidden") || strings.Contains(logs.text(), "S3CRET") || strings.Contains(logs.text(), "advice") {
		t.Errorf("log: %s", logs.text())
	}
	if _, err := nc.SubscribeSync(nc.NewInbox()); err != nil { // the commonest fault has a plain remedy
		t.Fatal(err)
	}
	logs.wait(t, "set NATS_INBOX_PREFIX=_INBOX_<user>")
}

func TestTLS(t *testing.T) {
	t.Parallel()
	h := httptest.NewTLSServer(nil) // only for its certificate
	h.Close()
	addr := rawServer(t, &server.Options{TLSConfig: h.TLS, TLSTimeout: patience.Seconds()})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}

	works(t, connect(t, natsconn.Config{URL: addr, CA: ca}))
	fails(t, natsconn.Config{URL: addr}, "no TLS with NATS", "NATS_CA")
	fails(t, natsconn.Config{URL: startServer(t, embedded.Config{}).URL(), CA: ca}, "no TLS with NATS", "NATS_CA")
}
