package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/embedded"
)

// startEmbedded starts the server of `wxkeeper run` with this environment, on a free port. It returns the environment
// of a client of the same user.
func startEmbedded(t *testing.T, env map[string]string) (s *embedded.Server, client map[string]string) {
	t.Helper()
	cfg, err := config.Load(env)
	if err != nil {
		t.Fatal(err)
	}
	ec := cfg.Embedded()
	ec.Listen, ec.DataDir = "127.0.0.1:0", t.TempDir()
	if s, err = embedded.Start(t.Context(), ec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s, map[string]string{"WXKEEPER_DATA_DIR": ec.DataDir, "WXKEEPER_HTTP_ADDR": "none",
		"NATS_TOKEN": "", "NATS_USER": "", "NATS_PASSWORD": ""}
}

// A verb that uses another data directory than the server sends no token. Its error says what to set.
func TestVerbWithoutTheTokenSaysWhatToSet(t *testing.T) {
	s, client := startEmbedded(t, nil)
	for name, value := range client {
		t.Setenv(name, value)
	}
	other := filepath.Join(t.TempDir(), "other")
	t.Setenv("NATS_URL", "")
	t.Setenv("WXKEEPER_DATA_DIR", other)
	t.Setenv("WXKEEPER_NATS_LISTEN", strings.TrimPrefix(s.URL(), "nats://"))
	term, _, errs := screen(false)
	if code := execute(t.Context(), term, []string{"status"}); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	want := "wxkeeper: NATS at " + s.URL() + " demands a token, and no wxkeeper runs with the data directory " + other +
		": set WXKEEPER_DATA_DIR to the directory of the wxkeeper that runs, or set NATS_TOKEN\n"
	if d := cmp.Diff(want, errs.String()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	term, out, _ := screen(false)
	if code := execute(t.Context(), term, []string{"check"}); code != exitUsage { // no account is configured
		t.Errorf("check: exit code %d", code)
	}
	if want := "FAIL  nats          a NATS server that demands other credentials listens at " + s.URL() +
		", where the worker would start its own\n"; !strings.Contains(out.String(), want) {
		t.Errorf("check has no %q:\n%s", want, out)
	}
}

func TestCheckKnowsTheTokenAndWhetherTheServerIsOpen(t *testing.T) {
	t.Setenv("NATS_URL", "")
	for open, want := range map[string]string{
		"false": "0 warnings, 1 failure", "true": "WARN  nats          the worker's own NATS server demands no token",
	} {
		_, client := startEmbedded(t, map[string]string{"WXKEEPER_NATS_OPEN": open})
		for name, value := range client {
			t.Setenv(name, value)
		}
		term, out, _ := screen(false)
		code := execute(t.Context(), term, []string{"check"})
		// no account is configured
		if code != exitUsage || !strings.Contains(out.String(), want) ||
			!strings.Contains(out.String(), "may use every subject of a worker") {
			t.Errorf("open=%s: exit code %d, or no %q:\n%s", open, code, want, out)
		}
	}
}

func TestCheckWithTheTokenOfConsumersSaysWhichIsNeeded(t *testing.T) {
	s, client := startEmbedded(t, nil)
	found, err := embedded.Find(client["WXKEEPER_DATA_DIR"], embedded.Consumers)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("WXKEEPER_HTTP_ADDR", "none")
	t.Setenv("WXKEEPER_DATA_DIR", t.TempDir()) // of another machine
	t.Setenv("NATS_URL", s.URL())
	t.Setenv("NATS_TOKEN", found.Token.Reveal())
	term, out, _ := screen(false)
	code := execute(t.Context(), term, []string{"check"})
	for _, want := range []string{"FAIL  nats          these are the credentials of consumers", "nats-env --worker"} {
		if code != exitUsage || !strings.Contains(out.String(), want) { // no account is configured
			t.Errorf("exit code %d, or no %q:\n%s", code, want, out)
		}
	}
}

func TestCommandOfTheLogCanBeCopied(t *testing.T) {
	t.Parallel()
	abs, err := filepath.Abs("else where")
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		"data":       "wxkeeper nats-env",
		"/srv/keep":  "WXKEEPER_DATA_DIR='/srv/keep' wxkeeper nats-env",
		"else where": "WXKEEPER_DATA_DIR='" + abs + "' wxkeeper nats-env",
	} {
		if d := cmp.Diff(want, natsEnvCommand(dir)); d != "" {
			t.Errorf("%s: -want +got\n%s", dir, d)
		}
	}
}
