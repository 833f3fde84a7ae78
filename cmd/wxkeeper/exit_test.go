package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/internal/logging"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/setting"
	"github.com/wxkeeper/wxkeeper/messages"
)

func TestErrorsHaveTheirExitCode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err   error
		code  int
		print string
	}{
		{nil, 0, ""},
		{errors.New("two\nlines\x1b[2J"), 1, "wxkeeper: two; lines\\x1b[2J\n"},
		{usage(errors.New("--flag: wrong")), 2, "wxkeeper: --flag: wrong\n"},
		{setting.Errorf("WXKEEPER_DATA_DIR", "not yours"), 2, "wxkeeper: WXKEEPER_DATA_DIR: not yours\n"},
		{fmt.Errorf("start: %w", setting.Errorf("NATS_CREDS", "missing")), 2, "wxkeeper: start: NATS_CREDS: missing\n"},
		{errors.New("WXKEEPER_DATA_DIR: only the text is like the error of a variable"), 1,
			"wxkeeper: WXKEEPER_DATA_DIR: only the text is like the error of a variable\n"},
		{errPrinted, 1, ""},
		{usage(errPrinted), 2, ""},
		{fmt.Errorf("request: %w", context.Canceled), 130, "wxkeeper: interrupted\n"},
		{
			&messages.Error{Symbol: messages.QuotaExhausted, Message: "the quota of the day is gone", Errcode: 45009,
				Errmsg: "reach max api daily quota limit", RID: "6789-abc", RetryAfterMS: 3_600_000},
			1, "wxkeeper: quota_exhausted (429): the quota of the day is gone\n  errcode: 45009 reach max api daily " +
				"quota limit\n  rid: 6789-abc\n  try again in: 1h00m\n",
		},
		{ // the message contains errcode and rid
			&messages.Error{Symbol: messages.Rejected,
				Message: `tickettocode: WeChat refused: errcode 40097 "invalid args" (rid 6789-abc)`, Errcode: 40097,
				Errmsg: "invalid args", RID: "6789-abc"},
			1, "wxkeeper: rejected (422): tickettocode: WeChat refused: errcode 40097 \"invalid args\" (rid 6789-abc)\n",
		},
	} {
		term, out, errs := screen(false)
		if code := term.fail(tt.err); code != tt.code {
			t.Errorf("%v: exit code %d, want %d", tt.err, code, tt.code)
		}
		if d := cmp.Diff(tt.print, errs.String()); d != "" {
			t.Errorf("%v: standard error: -want +got\n%s", tt.err, d)
		}
		if out.Len() > 0 {
			t.Errorf("%v: standard output: %q", tt.err, out)
		}
	}
}

// Errors of variables that only the packages below config find, and errors that look like them.
func TestErrorsAboutVariablesHaveExitCodeTwo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, missing := filepath.Join(dir, "file"), filepath.Join(dir, "missing")
	if err := os.WriteFile(file, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded := func(env map[string]string) error {
		c, err := config.Load(env)
		if err == nil {
			_, err = c.Accounts()
		}
		return err
	}
	started := func(cfg embedded.Config) error {
		s, err := embedded.Start(t.Context(), cfg)
		if err == nil {
			s.Shutdown()
		}
		return err
	}
	connected := func(cfg natsconn.Config) error {
		cfg.FailFast = true
		nc, err := natsconn.Connect(t.Context(), cfg)
		if err == nil {
			nc.Close()
		}
		return err
	}
	logs := func(format, level string) error { _, err := logging.New(new(bytes.Buffer), format, level); return err }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	running, err := embedded.Start(t.Context(),
		embedded.Config{Listen: "127.0.0.1:0", DataDir: filepath.Join(dir, "running"), Token: canary})
	if err != nil {
		t.Fatal(err)
	}
	defer running.Shutdown()
	const free = "127.0.0.1:0"
	for name, tt := range map[string]struct {
		err  error
		code int
	}{
		"no account": {loaded(map[string]string{}), 2},
		"secret file missing": {loaded(map[string]string{"WECHAT_APPID": "wx1",
			"WECHAT_SECRET_FILE": missing}), 2},
		"accounts file is junk":     {loaded(map[string]string{"WECHAT_ACCOUNTS_FILE": file}), 2},
		"no duration":               {loaded(map[string]string{"WECHAT_HTTP_TIMEOUT": "5"}), 2},
		"out of range":              {loaded(map[string]string{"WXKEEPER_REPLICAS": "9"}), 2},
		"unknown numbered variable": {loaded(map[string]string{"WECHAT_ACCOUNTS_0_SECERT": "s"}), 2},
		"two ways to authenticate": {loaded(map[string]string{"NATS_USER": "u", "NATS_PASSWORD": "p",
			"NATS_TOKEN": "t"}), 2},
		"URL":                      {loaded(map[string]string{"NATS_URL": "http://h"}), 2},
		"log level":                {logs("", "loud"), 2},
		"log format":               {logs("xml", ""), 2},
		"creds missing":            {connected(natsconn.Config{Creds: missing}), 2},
		"creds are junk":           {natsconn.Config{Creds: file}.Check(), 2},
		"nkey missing":             {natsconn.Config{NKey: missing}.Check(), 2},
		"CA is junk":               {natsconn.Config{CA: file}.Check(), 2},
		"certificate is junk":      {natsconn.Config{Cert: file, Key: file}.Check(), 2},
		"certificate without key":  {natsconn.Config{Cert: file}.Check(), 2},
		"data directory is a file": {started(embedded.Config{Listen: free, DataDir: file}), 2},
		"data directory within a file": {embedded.Config{Listen: free,
			DataDir: filepath.Join(file, "below")}.Check(), 2},
		"open beyond the loopback": {started(embedded.Config{Listen: "0.0.0.0:0", Open: true,
			DataDir: filepath.Join(dir, "a")}), 2},
		"no port": {started(embedded.Config{Listen: "127.0.0.1",
			DataDir: filepath.Join(dir, "b")}), 2},
		"not an address of this machine": {embedded.Config{Listen: "192.0.2.1:0",
			DataDir: filepath.Join(dir, "c")}.Check(), 2},

		"address in use": {started(embedded.Config{Listen: l.Addr().String(),
			DataDir: filepath.Join(dir, "d")}), 1},
		"data directory in use": {started(embedded.Config{Listen: free,
			DataDir: filepath.Join(dir, "running")}), 1},
		"server away":                 {connected(natsconn.Config{URL: "nats://127.0.0.1:1"}), 1},
		"server refuses the password": {connected(natsconn.Config{URL: running.URL(), Token: "guess"}), 1},
	} {
		if tt.err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		term, _, errs := screen(false)
		if code := term.fail(tt.err); code != tt.code {
			t.Errorf("%s: exit code %d, want %d: %s", name, code, tt.code, errs)
		}
	}
}
