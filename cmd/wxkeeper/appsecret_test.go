package main

import (
	"os"
	"strings"
	"testing"

	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func TestNoVerbTakesAnAppSecretForAnAppID(t *testing.T) {
	const secret = "0123456789abcdeffedcba9876543210"
	const request = `{"appid":"` + secret + `","openid":"o","code_ticket":"t"}`
	refused := func(args, input string) {
		t.Helper()
		term, out, errs := screen(false)
		term.in = strings.NewReader(input)
		code := execute(t.Context(), term, strings.Fields(args))
		printed := out.String() + errs.String()
		if code != exitUsage || !strings.Contains(printed, "looks like an AppSecret") {
			t.Errorf("%.12s: exit code %d: %s", args, code, printed)
		}
		if strings.Contains(printed, secret[:8]) {
			t.Errorf("%.12s: the AppSecret is printed: %s", args, printed)
		}
	}
	for _, args := range []string{
		"get", "refresh", "status", "resolve o t", "watch", "check", "permissions watcher", "permissions direct resolver",
	} {
		refused(args+" --appid "+secret, "")
	}
	refused("resolve -", request)
	refused("simulate --account "+secret+":wx1", "")
	refused("simulate --account "+secret+":"+secret, "")

	t.Setenv("WECHAT_APPID", secret)
	for _, args := range []string{"get", "refresh", "resolve o t"} {
		refused(args, "")
	}
	t.Setenv("WECHAT_SECRET", secret)
	refused("run", "")
	refused("check", "")
	if err := os.Unsetenv("WECHAT_APPID"); err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/accounts.json"
	if err := os.WriteFile(file, []byte(`[{"appid":"`+secret+`","secret":"`+secret+`"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("WECHAT_SECRET", "")
	t.Setenv("WECHAT_ACCOUNTS_FILE", file)
	refused("run", "")
}

// The value of --account may be an AppSecret without its AppID.
func TestSimulateNeverPrintsAnAccountItRefuses(t *testing.T) {
	t.Parallel()
	for _, account := range []string{canary, ":" + canary, "wx1:" + canary + " --account=wx1:" + canary,
		wechattest.UnknownAppID + ":" + canary} {
		term, out, errs := screen(false)
		if code := execute(t.Context(), term, strings.Fields("simulate --account="+account)); code != exitUsage {
			t.Errorf("exit code %d", code)
		}
		if printed := out.String() + errs.String(); strings.Contains(printed, canary) {
			t.Errorf("the AppSecret is printed: %s", printed)
		}
	}
}
