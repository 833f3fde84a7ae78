//go:build cli

package main

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/embedded"
)

// evaluated returns the variables of a shell that evaluates the output of nats-env.
func evaluated(t *testing.T, args ...string) map[string]string {
	t.Helper()
	term, out, errs := screen(true) // to a terminal too: printing the token is what it is for
	if code := execute(t.Context(), term, append([]string{"nats-env"}, args...)); code != exitOK || errs.Len() > 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sh := exec.CommandContext(ctx, "sh", "-c", `eval "$OUTPUT"; printf '%s\n' "$NATS_URL" "$NATS_USER" "$NATS_PASSWORD" `+
		`"$NATS_TOKEN" "$NATS_CREDS"`)
	sh.Env = []string{"OUTPUT=" + out.String(), "NATS_USER=old", "NATS_TOKEN=old", "NATS_CREDS=old", "PATH=/usr/bin:/bin"}
	b, err := sh.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	return map[string]string{"url": lines[0], "user": lines[1], "password": lines[2], "token": lines[3], "creds": lines[4]}
}

func TestShellGetsTheTokenOfTheEmbeddedServer(t *testing.T) {
	t.Setenv("NATS_URL", "")
	s, client := startEmbedded(t, nil)
	for name, value := range client {
		t.Setenv(name, value)
	}
	tokens := map[embedded.Account]string{}
	for _, account := range []embedded.Account{embedded.Consumers, embedded.Workers} {
		found, err := embedded.Find(client["WXKEEPER_DATA_DIR"], account)
		if err != nil {
			t.Fatal(err)
		}
		tokens[account] = found.Token.Reveal()
	}
	want := map[string]string{"url": s.URL(), "user": "", "password": "", "creds": "", "token": tokens[embedded.Consumers]}
	if d := cmp.Diff(want, evaluated(t)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	want["token"] = tokens[embedded.Workers]
	if d := cmp.Diff(want, evaluated(t, "--worker")); d != "" {
		t.Errorf("--worker: -want +got\n%s", d)
	}
	s.Shutdown()
	term, out, errs := screen(false)
	if code := execute(t.Context(), term, []string{"nats-env"}); code != exitFailure || out.Len() > 0 ||
		!strings.Contains(errs.String(), "start `wxkeeper run`, or set WXKEEPER_DATA_DIR") {
		t.Errorf("without a server: exit code %d: %s%s", code, out, errs)
	}
}

func TestShellGetsThePasswordThatTheEmbeddedServerDemands(t *testing.T) {
	t.Setenv("NATS_URL", "")
	const password = `it's $HOME "\` + canary
	env := map[string]string{"NATS_USER": "u", "NATS_PASSWORD": password}
	s, client := startEmbedded(t, env)
	for name, value := range client {
		t.Setenv(name, value)
	}
	term, out, errs := screen(false)
	if code := execute(t.Context(), term, []string{"nats-env"}); code != exitUsage || out.Len() > 0 ||
		!strings.HasPrefix(errs.String(), "wxkeeper: NATS_TOKEN: the embedded NATS server at "+s.URL()) {
		t.Errorf("without the password: exit code %d: %s%s", code, out, errs)
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	want := map[string]string{"url": s.URL(), "user": "u", "password": password, "token": "", "creds": ""}
	if d := cmp.Diff(want, evaluated(t)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestShellGetsNoTokenOfAnOpenServer(t *testing.T) {
	t.Setenv("NATS_URL", "")
	s, client := startEmbedded(t, map[string]string{"WXKEEPER_NATS_OPEN": "true"})
	for name, value := range client {
		t.Setenv(name, value)
	}
	want := map[string]string{"url": s.URL(), "user": "", "password": "", "token": "", "creds": ""}
	if d := cmp.Diff(want, evaluated(t)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}
