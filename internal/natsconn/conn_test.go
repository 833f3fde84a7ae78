package natsconn_test

import (
	"context"
	"errors"
	"net"
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
	"github.com/wxkeeper/wxkeeper/internal/setting"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is the limit for events that must happen: only a test that hangs reaches it.
const patience = 3 * time.Minute

func startServer(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	cfg.DataDir, cfg.Open = t.TempDir(), cfg.User == "" && cfg.Token == ""
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

// connect connects within patience, and closes the connection at the end of the test.
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

// reaches proves that nc reaches its server.
func reaches(t *testing.T, nc *natsconn.Conn) {
	t.Helper()
	if err := nc.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
}

// fails asserts that Connect returns an error at once. The error is one line, contains the texts and shows no secret.
func fails(t *testing.T, cfg natsconn.Config, want ...string) {
	t.Helper()
	logs := newRecorder()
	cfg.Logger = logs.logger()
	if cfg.FailFast { // there is no second attempt
		cfg.ConnectTimeout = patience
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	nc, err := natsconn.Connect(ctx, cfg)
	if err == nil {
		nc.Close()
		t.Fatal("connected")
	}
	if ctx.Err() != nil {
		t.Fatalf("Connect waits: %v", err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has more than one line: %q", err)
	}
	if strings.Contains(err.Error()+logs.text(), "S3CRET") {
		t.Errorf("the error or the log shows a secret: %q\n%s", err, logs.text())
	}
}

// deadAddr is an address whose listener closes every connection at once, until the test frees the address.
func deadAddr(t *testing.T) (addr string, free func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // a connection that ends before INFO: for nats.go there is no server
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
		reaches(t, connect(t, cfg))
		text := logs.text()
		if !strings.Contains(text, "connected to NATS") {
			t.Errorf("the connection is not logged: %s", text)
		}
		if strings.Contains(text, "S3CRET") {
			t.Errorf("the log shows a secret: %s", text)
		}
	}
	reaches(t, connect(t, natsconn.Config{}, token.InProcess()))

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

func TestWrongConfigurationIsAnErrorAtOnce(t *testing.T) {
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
		"creds are junk":          {natsconn.Config{Creds: junk}, []string{"NATS_CREDS", junk}},
		"nkey missing":            {natsconn.Config{NKey: missing}, []string{"NATS_NKEY", missing}},
		"nkey is junk":            {natsconn.Config{NKey: junk}, []string{"NATS_NKEY", junk}},
		"ca missing":              {natsconn.Config{CA: missing}, []string{"NATS_CA", missing}},
		"ca is junk":              {natsconn.Config{CA: junk}, []string{"NATS_CA", junk}},
		"certificate missing":     {natsconn.Config{Cert: missing, Key: junk}, []string{"NATS_CERT", missing}},
		"certificate is junk":     {natsconn.Config{Cert: junk, Key: junk}, []string{"NATS_CERT"}},
		"certificate without key": {natsconn.Config{Cert: junk}, []string{"NATS_CERT", "NATS_KEY"}},
		"url with a blank": {natsconn.Config{URL: "nats://u:S3CRET@ho st:4222"},
			[]string{"NATS_URL", "nats://***@ho st:4222"}},
		"url with a bare percent": {natsconn.Config{URL: "nats://u:S3CRET%@host:4222"},
			[]string{"NATS_URL", "***@host:4222", "percent-encoded"}},
		"second url of a list": {natsconn.Config{URL: "nats://h:4222, nats://u:S3CRET@h:port"},
			[]string{"NATS_URL", "***@h:port"}},
		"url without host": {natsconn.Config{URL: "nats://"}, []string{"NATS_URL"}},
		"url of another scheme": {natsconn.Config{URL: "http://u:S3CRET@host:4222"},
			[]string{"NATS_URL", "http", "***@host"}},
	} {
		t.Run(name, func(t *testing.T) {
			fails(t, tt.cfg, tt.want...)
			var se *setting.Error
			if err := tt.cfg.Check(); !errors.As(err, &se) || !strings.HasPrefix(se.Variable, tt.want[0]) {
				t.Errorf("Check returns %v, want an error of %s", err, tt.want[0])
			}
		})
	}
}

func TestUnreachableServerIsWaitedFor(t *testing.T) {
	t.Parallel()
	addr, free := deadAddr(t)
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
	reaches(t, nc)
	if strings.Contains(logs.text(), "S3CRET") {
		t.Errorf("the log shows a secret: %s", logs.text())
	}

	cancel() // the context of Connect does not affect the connection
	reaches(t, nc)
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	t.Parallel()
	addr, _ := deadAddr(t)
	logs := newRecorder()
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error)
	go func() {
		_, err := natsconn.Connect(ctx, natsconn.Config{URL: "nats://S3CRET@" + addr, Logger: logs.logger()})
		got <- err
	}()
	logs.wait(t, "trying again")
	cancel()
	err := <-got
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want %v", err, context.Canceled)
	}
	if !strings.Contains(err.Error(), addr) || strings.Contains(err.Error(), "S3CRET") {
		t.Errorf("the error does not contain the address, or shows a secret: %v", err)
	}
}

func TestFailFastDoesNotWait(t *testing.T) {
	t.Parallel()
	addr, _ := deadAddr(t)
	fails(t, natsconn.Config{URL: "nats://u:S3CRET@" + addr, FailFast: true}, "no NATS server can be reached", addr,
		"NATS_URL")
}

// The error of nats.go, "no servers available for connection", contains no cause.
func TestTheCauseIsNamed(t *testing.T) {
	t.Parallel()
	const closed, closedToo = "127.0.0.1:1", "127.0.0.1:2" // ports without a listener
	dead, _ := deadAddr(t)
	for _, url := range []string{
		"nats://u:S3CRET@" + closed, "nats://" + closed + ",nats://" + closedToo,
		"nats://" + dead + ",nats://" + closed,
	} {
		_, err := natsconn.Connect(t.Context(), natsconn.Config{URL: url, FailFast: true, ConnectTimeout: patience})
		var u *natsconn.UnreachableError
		if !errors.As(err, &u) {
			t.Errorf("%s: %v, want an UnreachableError", url, err)
			continue
		}
		if !strings.Contains(u.Why, "connection refused") {
			t.Errorf("%s: the cause is %q", url, u.Why)
		}
		for _, text := range []string{"S3CRET", "no servers available"} {
			if strings.Contains(err.Error(), text) {
				t.Errorf("%s: the error contains %q: %v", url, text, err)
			}
		}
	}

	logs := newRecorder()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := natsconn.Connect(ctx, natsconn.Config{URL: "nats://" + closed, Logger: logs.logger()})
		ended <- err
	}()
	logs.wait(t, "trying again")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	text := logs.text()
	if !strings.Contains(text, `error="connection refused"`) {
		t.Errorf("the log has no cause: %s", text)
	}
	if strings.Contains(text, "times_not_logged") {
		t.Errorf("the first line counts lines that were not logged: %s", text)
	}
}

func TestConnectionOutlivesTheServer(t *testing.T) {
	t.Parallel()
	s := startServer(t, embedded.Config{})
	logs := newRecorder()
	nc := connect(t, natsconn.Config{URL: s.URL(), Logger: logs.logger()})
	reaches(t, nc)

	s.Shutdown()
	logs.wait(t, "disconnected from NATS, reconnecting")
	if err := nc.Publish("a", []byte("late")); !errors.Is(err, nats.ErrReconnectBufExceeded) {
		t.Errorf("a publish while the server is away does not fail at once: %v", err)
	}

	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	startServer(t, embedded.Config{Listen: u.Host})
	logs.wait(t, "reconnected to NATS")
	reaches(t, nc)
	select {
	case <-nc.Closed():
		t.Error("closed")
	default:
	}
}

func TestPermanentCloseIsReported(t *testing.T) {
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
	nc.Conn.Close() // the Close of nats.go, which it calls when it gives up
	closed(nc)
	if err := nc.Err(); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("Err() = %v", err)
	}
	logs.wait(t, "it will not reconnect")

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
	reaches(t, nc)
	<-started

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got := make(chan error)
	go func() { got <- nc.Drain(ctx) }()
	select {
	case err := <-got:
		t.Fatalf("Drain does not wait for the handler: %v", err)
	case handled <- struct{}{}:
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	<-nc.Closed()
	if err := nc.Drain(ctx); err != nil {
		t.Errorf("the second Drain: %v", err)
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

func TestMissingPermissionIsLogged(t *testing.T) {
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
	logs.wait(t, "has no permission")
	reaches(t, nc)
	if n := strings.Count(logs.text(), "has no permission"); n != 1 {
		t.Errorf("%d lines for 100 violations within seconds", n)
	}
	if !strings.Contains(logs.text(), "forbidden") {
		t.Errorf("the log does not name the subject: %s", logs.text())
	}
	for _, text := range []string{"S3CRET", "advice"} {
		if strings.Contains(logs.text(), text) {
			t.Errorf("the log contains %q: %s", text, logs.text())
		}
	}
	if _, err := nc.SubscribeSync(nc.NewInbox()); err != nil { // the most frequent mistake: the log has advice
		t.Fatal(err)
	}
	logs.wait(t, "set NATS_INBOX_PREFIX=_INBOX_<user>")
}
