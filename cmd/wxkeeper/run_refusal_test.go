package main

import (
	"strings"
	"testing"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
)

// A supervisor starts a worker again and again; the log of each start has the reason and the remedy once.
func TestRunEndsWithAdviceIfJetStreamRefusesTheBucketsForGood(t *testing.T) {
	t.Setenv("NATS_URL", natstest.StartAccounts(t, map[string]string{"REQUIRED": "max_bytes: true"}).URL())
	for name, value := range map[string]string{
		"WECHAT_APPID": mine, "WECHAT_SECRET": canary, "WECHAT_API_URL": "http://127.0.0.1:1", "WXKEEPER_DUMPABLE": "true",
		"WXKEEPER_HTTP_ADDR": "none", "WXKEEPER_LOG_FORMAT": "json", "NATS_USER": "REQUIRED",
		"NATS_PASSWORD": "only-for-this-test",
	} {
		t.Setenv(name, value)
	}
	term, _, errs := screen(false)
	if code := execute(t.Context(), term, []string{"run"}); code != exitFailure {
		t.Errorf("exit code %d, want %d", code, exitFailure)
	}
	printed := errs.String()
	if n := strings.Count(printed, "10113"); n != 1 {
		t.Errorf("the refusal is told %d times, want once: %s", n, printed)
	}
	for _, text := range []string{`"level":"ERROR"`, `"advice":"The NATS account demands`,
		"Set WXKEEPER_BUCKET_MAX_BYTES"} {
		if !strings.Contains(printed, text) {
			t.Errorf("no %s in %s", text, printed)
		}
	}
	if strings.Contains(printed, canary) {
		t.Errorf("a secret: %s", printed)
	}
}

func TestRunWithoutNATSURLRefusesSettingsOfOtherServers(t *testing.T) {
	t.Setenv("NATS_URL", "")
	for name, value := range map[string]string{
		"WECHAT_APPID": mine, "WECHAT_SECRET": canary, "WXKEEPER_JS_DOMAIN": "hub", "WXKEEPER_DUMPABLE": "true",
		"WXKEEPER_HTTP_ADDR": "none", "WXKEEPER_DATA_DIR": t.TempDir(),
	} {
		t.Setenv(name, value)
	}
	term, _, errs := screen(false)
	if code := execute(t.Context(), term, []string{"run"}); code != exitUsage ||
		!strings.HasPrefix(errs.String(), "wxkeeper: WXKEEPER_JS_DOMAIN: ") {
		t.Errorf("exit code %d: %s", code, errs)
	}
}
