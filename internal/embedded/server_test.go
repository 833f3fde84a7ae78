package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// patience is the limit for events that must happen: only a test that hangs reaches it.
const patience = 3 * time.Minute

// start starts a server that stops at the end of the test. An empty Listen or DataDir gets a value for tests.
func start(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	s, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

// token returns the token of an account of the server that runs on dir.
func token(t *testing.T, dir string, account embedded.Account) nats.Option {
	t.Helper()
	found, err := embedded.Find(dir, account)
	if err != nil || found == nil {
		t.Fatalf("no server on %s: %v", dir, err)
	}
	return nats.Token(found.Token.Reveal())
}

func connect(t *testing.T, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, append([]nats.Option{nats.Timeout(patience)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// testContext ends after patience. (The jetstream package gives up after 5 s if its context has no deadline.)
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func bucket(t *testing.T, nc *nats.Conn) jetstream.KeyValue {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateOrUpdateKeyValue(testContext(t), jetstream.KeyValueConfig{Bucket: "b"})
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

// refused asserts that Start refuses cfg with an error that is one line, contains the texts and shows no secret.
// It returns the variable of the error, or "" if the error is not a setting.Error.
func refused(t *testing.T, cfg embedded.Config, want ...string) (variable string) {
	t.Helper()
	s, err := embedded.Start(t.Context(), cfg)
	if err == nil {
		s.Shutdown()
		t.Fatalf("started with %+v", cfg)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "S3CRET") {
		t.Errorf("error %q has more than one line or a secret", err)
	}
	if se := new(setting.Error); errors.As(err, &se) {
		return se.Variable
	}
	return ""
}

// By default, nats-server allows 1,000 consumers of a stream, and each Reader that watches has one.
func TestMoreThanAThousandReadersMayWatch(t *testing.T) {
	t.Parallel()
	s := start(t, embedded.Config{})
	nc := connect(t, "", s.InProcess())
	bucket(t, nc)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	for i := range 1001 {
		if _, err := js.CreateConsumer(ctx, "KV_b", jetstream.ConsumerConfig{
			AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, InactiveThreshold: time.Minute,
		}); err != nil {
			t.Fatalf("consumer %d: %v", i+1, err)
		}
	}
}

func TestRestartKeepsData(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "by", "start")

	s := start(t, embedded.Config{DataDir: dir})
	nc := connect(t, s.URL(), token(t, dir, embedded.Workers))
	if _, err := bucket(t, nc).PutString(testContext(t), "k", "v"); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	s.Shutdown()
	s.Shutdown() // a second call does nothing

	s = start(t, embedded.Config{DataDir: dir})
	e, err := bucket(t, connect(t, "", s.InProcess())).Get(testContext(t), "k")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(e.Value()); got != "v" {
		t.Errorf("after a restart the value is %q", got)
	}
}

func TestDirectoryIsClosedToOthers(t *testing.T) {
	t.Parallel()
	mode := func(dir string) os.FileMode {
		fi, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		return fi.Mode().Perm()
	}

	made := filepath.Join(t.TempDir(), "made")
	start(t, embedded.Config{DataDir: made}).Shutdown()
	if got := mode(made); got != 0o700 {
		t.Errorf("Start has created a directory with mode %04o", got)
	}

	chmod(t, made, 0o755)
	start(t, embedded.Config{DataDir: made}).Shutdown()
	if got := mode(made); got != 0o700 {
		t.Errorf("after Start, a directory of wxkeeper has mode %04o", got)
	}

	foreign := t.TempDir()
	chmod(t, foreign, 0o755)
	if err := os.WriteFile(filepath.Join(foreign, "diary"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, embedded.Config{Listen: "127.0.0.1:0", DataDir: foreign}, "WXKEEPER_DATA_DIR", foreign, "0755",
		filepath.Join(foreign, "wxkeeper"))
	if got := mode(foreign); got != 0o755 {
		t.Errorf("the mode of a directory with other files was changed to %04o", got)
	}

	file := filepath.Join(foreign, "diary")
	refused(t, embedded.Config{Listen: "127.0.0.1:0", DataDir: file}, "WXKEEPER_DATA_DIR", file)
}

func chmod(t *testing.T, dir string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
}

func TestOneDirectoryHasOneServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, embedded.Config{DataDir: dir})
	want := []string{dir, fmt.Sprintf("another wxkeeper (pid %d)", os.Getpid()),
		"joins it with NATS_URL=" + s.URL() + ";", "WXKEEPER_DATA_DIR"}

	refused(t, embedded.Config{Listen: "127.0.0.1:4999", DataDir: dir}, want...)

	out := inAnotherProcess(t, "127.0.0.1:4999", dir)
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("the error in another process is %q, which lacks %q", out, w)
		}
	}

	// The owner of the directory has not written its URL yet.
	if err := os.Truncate(filepath.Join(dir, "wxkeeper.lock"), 0); err != nil {
		t.Fatal(err)
	}
	if out := inAnotherProcess(t, "127.0.0.1:4999", dir); !strings.Contains(out, "by another wxkeeper: ") ||
		strings.Contains(out, "nats://") {
		t.Errorf("with an empty lock file, the error in another process is %q", out)
	}

	s.Shutdown()
	if out := inAnotherProcess(t, "127.0.0.1:0", dir); out != "started" {
		t.Errorf("after Shutdown, another process returns %q", out)
	}
}

func TestAddressInUseIsAnErrorAtOnce(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr, dir := l.Addr().String(), t.TempDir()

	refused(t, embedded.Config{Listen: addr, DataDir: dir}, addr, "WXKEEPER_NATS_LISTEN", "NATS_URL=nats://"+addr)

	// The failed start has unlocked the directory.
	start(t, embedded.Config{DataDir: dir})
}

func TestBadConfigIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, tt := range map[string]struct {
		cfg  embedded.Config
		want []string
	}{
		"open beyond loopback": {embedded.Config{Listen: "0.0.0.0:0", DataDir: dir, Open: true},
			[]string{"WXKEEPER_NATS_OPEN", "0.0.0.0:0"}},
		"open on all addresses": {embedded.Config{Listen: ":0", DataDir: dir, Open: true},
			[]string{"WXKEEPER_NATS_OPEN", "127.0.0.1:0"}},
		"open at a name": {embedded.Config{Listen: "nats.example.com:0", DataDir: dir, Open: true},
			[]string{"WXKEEPER_NATS_OPEN"}},
		"open and a token": {embedded.Config{Listen: "127.0.0.1:0", DataDir: dir, Open: true,
			Token: "S3CRET-of-some-length"}, []string{"WXKEEPER_NATS_OPEN", "NATS_TOKEN"}},
		"a short token beyond loopback": {embedded.Config{Listen: "0.0.0.0:0", DataDir: dir, Token: "S3CRET-15-chars"},
			[]string{"NATS_TOKEN", "16 characters", "WXKEEPER_NATS_LISTEN=0.0.0.0:0"}},
		"a short password beyond loopback": {embedded.Config{Listen: "[::]:0", DataDir: dir, User: "u",
			Password: "S3CRET"}, []string{"NATS_PASSWORD", "16 characters"}},
		"no port": {embedded.Config{Listen: "127.0.0.1", DataDir: dir},
			[]string{"WXKEEPER_NATS_LISTEN", "host:port"}},
		"port out of range": {embedded.Config{Listen: "127.0.0.1:65536", DataDir: dir},
			[]string{"WXKEEPER_NATS_LISTEN", "65535"}},
		"no directory": {embedded.Config{Listen: "127.0.0.1:0"},
			[]string{"WXKEEPER_DATA_DIR"}},
		"user without password": {embedded.Config{Listen: "127.0.0.1:0", DataDir: dir, User: "u"},
			[]string{"NATS_USER, NATS_PASSWORD"}},
		"user and token": {embedded.Config{Listen: "127.0.0.1:0", DataDir: dir, User: "u",
			Password: "S3CRET", Token: "S3CRET"}, []string{"NATS_USER, NATS_TOKEN"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := refused(t, tt.cfg, tt.want...); got != tt.want[0] {
				t.Errorf("the error is about %q, want %q", got, tt.want[0])
			}
		})
	}
	// not of this machine
	refused(t, embedded.Config{Listen: "192.0.2.1:0", DataDir: dir, Token: "S3CRET"}, "192.0.2.1:0")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := embedded.Start(ctx, embedded.Config{Listen: "127.0.0.1:0", DataDir: dir}); !errors.Is(err,
		context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// record is a slog handler that keeps all records.
type record struct {
	mu    sync.Mutex
	lines []slog.Record
}

func (*record) Enabled(context.Context, slog.Level) bool { return true }
func (r *record) Handle(_ context.Context, l slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, l)
	return nil
}
func (r *record) WithAttrs([]slog.Attr) slog.Handler { return r }
func (r *record) WithGroup(string) slog.Handler      { return r }

func (r *record) get() []slog.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

func redacted(s string) redact.Secret { return redact.Secret(s) }
