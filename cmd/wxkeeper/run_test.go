package main

import (
	"strings"
	"testing"

	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// TestMain checks that no goroutine of the stopped verb is left.
func TestRunStopsCleanly(t *testing.T) {
	t.Setenv("NATS_URL", "")
	sim := wechattest.Start(t, wechattest.Config{Accounts: []wechattest.Account{{AppID: mine, Secret: canary}}})
	for name, value := range map[string]string{
		"WECHAT_API_URL": sim.URL, "WECHAT_APPID": mine, "WECHAT_SECRET": canary,
		"WXKEEPER_NATS_LISTEN": "127.0.0.1:0", "WXKEEPER_HTTP_ADDR": "127.0.0.1:0", "WXKEEPER_DATA_DIR": t.TempDir(),
		"WXKEEPER_DUMPABLE": "true", // the other tests of this process go on
	} {
		t.Setenv(name, value)
	}
	code, printed := startVerb(t, `"msg":"worker ready"`, "run")()
	if code != exitOK {
		t.Errorf("exit code %d: %s", code, printed)
	}
	if !strings.Contains(printed, `"msg":"wxkeeper stopped"`) {
		t.Errorf("the stop is not logged: %s", printed)
	}
}

// The pages are served already when the start fails: they must be closed, and the error be the only line.
func TestRunThatCannotStartStopsWhatItHasStarted(t *testing.T) {
	t.Setenv("NATS_URL", "")
	for name, value := range map[string]string{
		"WECHAT_APPID": mine, "WECHAT_SECRET": canary,
		"WXKEEPER_NATS_LISTEN": "0.0.0.0:0", "WXKEEPER_NATS_OPEN": "true", "WXKEEPER_HTTP_ADDR": "127.0.0.1:0",
		"WXKEEPER_DATA_DIR": t.TempDir(), "WXKEEPER_DUMPABLE": "true",
	} {
		t.Setenv(name, value)
	}
	term, _, errs := screen(false)
	if code := execute(t.Context(), term, []string{"run"}); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
	if got := errs.String(); !strings.HasPrefix(got, "wxkeeper: WXKEEPER_NATS_OPEN: ") ||
		strings.Count(got, "\n") != 1 {
		t.Errorf("standard error: %q", got)
	}
}
