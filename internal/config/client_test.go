package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/redact"
)

// startEmbedded starts the server of an environment on a free port, and returns the token of each account.
func startEmbedded(t *testing.T, env vars) (*embedded.Server, map[embedded.Account]redact.Secret) {
	t.Helper()
	cfg := load(t, env).Embedded()
	cfg.Listen = "127.0.0.1:0"
	s, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	tokens := map[embedded.Account]redact.Secret{}
	for account, name := range map[embedded.Account]string{
		embedded.Consumers: "nats.token", embedded.Workers: "nats.worker.token",
	} {
		b, err := os.ReadFile(filepath.Join(cfg.DataDir, name))
		if err == nil {
			tokens[account] = redact.Secret(strings.TrimSpace(string(b)))
		}
	}
	return s, tokens
}

func TestClientsOfTheSameUserFindTheServerAndTheirToken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, tokens := startEmbedded(t, vars{"WXKEEPER_DATA_DIR": dir})
	usual := "nats://127.0.0.1:4222"
	for _, tt := range []struct {
		name    string
		env     vars
		account embedded.Account
		want    natsconn.Config
		found   bool
	}{
		{"no variable", vars{}, embedded.Consumers, natsconn.Config{URL: s.URL(), Token: tokens[embedded.Consumers]}, true},
		{"a worker", vars{}, embedded.Workers, natsconn.Config{URL: s.URL(), Token: tokens[embedded.Workers]}, true},
		{"NATS_URL of the server", vars{"NATS_URL": s.URL() + "/"}, embedded.Workers,
			natsconn.Config{URL: s.URL(), Token: tokens[embedded.Workers]}, true},
		{"NATS_URL of the server, short", vars{"NATS_URL": strings.TrimPrefix(s.URL(), "nats://")}, embedded.Consumers,
			natsconn.Config{URL: s.URL(), Token: tokens[embedded.Consumers]}, true},
		{"NATS_URL of another server", vars{"NATS_URL": usual}, embedded.Workers, natsconn.Config{URL: usual}, false},
		{"NATS_URL of several servers", vars{"NATS_URL": s.URL() + "," + usual}, embedded.Workers,
			natsconn.Config{URL: s.URL() + "," + usual}, false},
		{"credentials for NATS_URL", vars{"NATS_URL": s.URL(), "NATS_TOKEN": "t"}, embedded.Workers,
			natsconn.Config{URL: s.URL(), Token: "t"}, false},
		{"a worker with the token of consumers", vars{"NATS_URL": s.URL(), "NATS_TOKEN": tokens[embedded.Consumers].Reveal()},
			embedded.Workers, natsconn.Config{URL: s.URL(), Token: tokens[embedded.Workers]}, true},
		{"a consumer with the token of workers", vars{"NATS_URL": s.URL(), "NATS_TOKEN": tokens[embedded.Workers].Reveal()},
			embedded.Consumers, natsconn.Config{URL: s.URL(), Token: tokens[embedded.Workers]}, false},
		{"credentials of consumers", vars{"NATS_USER": "u", "NATS_PASSWORD": "p"}, embedded.Consumers,
			natsconn.Config{URL: s.URL(), User: "u", Password: "p"}, true},
		{"credentials of consumers are not for a worker", vars{"NATS_USER": "u", "NATS_PASSWORD": "p"}, embedded.Workers,
			natsconn.Config{URL: s.URL(), Token: tokens[embedded.Workers]}, true},
		{"no server on the directory", vars{"WXKEEPER_DATA_DIR": t.TempDir()}, embedded.Workers,
			natsconn.Config{URL: usual}, false},
		{"no directory", vars{"WXKEEPER_DATA_DIR": filepath.Join(dir, "missing")}, embedded.Consumers,
			natsconn.Config{URL: usual}, false},
	} {
		if tt.env["WXKEEPER_DATA_DIR"] == "" {
			tt.env["WXKEEPER_DATA_DIR"] = dir
		}
		got, found, err := load(t, tt.env).Client("", tt.account)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if d := cmp.Diff(tt.want, got, revealed); d != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, d)
		}
		if (found != nil) != tt.found {
			t.Errorf("%s: found %+v", tt.name, found)
		}
	}
}

// A server that demands the password of its environment is not given the token of an earlier start.
func TestClientsLearnThatTheServerDemandsAConfiguredPassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := startEmbedded(t, vars{"WXKEEPER_DATA_DIR": dir})
	s.Shutdown()
	s, tokens := startEmbedded(t, vars{"WXKEEPER_DATA_DIR": dir, "NATS_TOKEN": canary})
	_, _, err := load(t, vars{"WXKEEPER_DATA_DIR": dir}).Client("", embedded.Consumers)
	wants(t, err, "NATS_TOKEN", s.URL(), "NATS_PASSWORD", "wxkeeper run")
	worker, _, err := load(t, vars{"WXKEEPER_DATA_DIR": dir}).Client("", embedded.Workers)
	if err != nil || worker.Token != tokens[embedded.Workers] {
		t.Errorf("a worker gets no token: %v", err)
	}
}

func TestClientThatCannotReadItsTokenNamesTheVariable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := startEmbedded(t, vars{"WXKEEPER_DATA_DIR": dir})
	file := filepath.Join(dir, "nats.worker.token")
	if err := os.WriteFile(file, []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, env := range []vars{{}, {"NATS_URL": s.URL()}} {
		env["WXKEEPER_DATA_DIR"] = dir
		_, _, err := load(t, env).Client("", embedded.Workers)
		wants(t, err, "WXKEEPER_DATA_DIR", file, "delete it")
	}
	// another server does not need the directory
	c := load(t, vars{"WXKEEPER_DATA_DIR": dir, "NATS_URL": "nats://127.0.0.1:1"})
	if _, _, err := c.Client("", embedded.Workers); err != nil {
		t.Error(err)
	}
}

func TestDefaultDirectoryIsTheSameForTheServerAndItsClients(t *testing.T) {
	t.Parallel()
	if got := config.Defaults().Embedded().DataDir; got != "data" {
		t.Errorf("the directory is %q", got)
	}
}
