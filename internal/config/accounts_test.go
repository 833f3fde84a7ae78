package config_test

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
)

// revealed lets cmp show the secrets of these tests. An account that was only read has none of the keys of a worker.
var revealed = cmp.Options{cmp.Transformer("Reveal", redact.Secret.Reveal), cmpopts.IgnoreUnexported(worker.Account{})}

func accounts(env vars) ([]worker.Account, error) {
	c, err := config.Load(env)
	if err != nil {
		return nil, err
	}
	return c.Accounts()
}

func TestAccountsOfEnvironmentAndFile(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"one.secret": canary + "-1 \r\n",
		"two.secret": canary + "-2\n",
		"accounts.json": `[
			{"appid": "wx2", "secret_file": "two.secret", "name": "商城", "token_api": "token", "tickets": ["jsapi"]},
			{"appid": "wx3", "secret": "` + canary + `-3", "tickets": []},
			{"appid": "wx4", "secret": "` + canary + `-4", "tickets": ["none"]},
			{"appid": "wx5", "secret": "` + canary + `-5"}
		]`,
	})
	got, err := accounts(vars{
		"WECHAT_APPID": "wx1", "WECHAT_SECRET_FILE": filepath.Join(dir, "one.secret"), "WECHAT_TICKETS": "wx_card",
		"WECHAT_ACCOUNTS_FILE": filepath.Join(dir, "accounts.json"),
	})
	if err != nil {
		t.Fatal(err)
	}
	jsapi, wxCard := []messages.Kind{messages.JSAPITicket}, []messages.Kind{messages.WXCardTicket}
	want := []worker.Account{
		{AppID: "wx1", Secret: canary + "-1", TokenAPI: "stable_token", Tickets: wxCard},
		{AppID: "wx2", Secret: canary + "-2", Name: "商城", TokenAPI: "token", Tickets: jsapi},
		{AppID: "wx3", Secret: canary + "-3", TokenAPI: "stable_token"},
		{AppID: "wx4", Secret: canary + "-4", TokenAPI: "stable_token"},
		{AppID: "wx5", Secret: canary + "-5", TokenAPI: "stable_token", Tickets: wxCard},
	}
	if d := cmp.Diff(want, got, revealed); d != "" {
		t.Errorf("-want +got\n%s", d)
	}

	// A secret in a variable may end with a newline, which some tools add.
	if got, err = accounts(vars{"WECHAT_APPID": "wx1", "WECHAT_SECRET": canary + "\n"}); err != nil {
		t.Fatal(err)
	}
	if s := got[0].Secret.Reveal(); s != canary {
		t.Errorf("the secret is %q", s)
	}
}

func TestWrongAccountOfEnvironmentIsOneClearLine(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"good": canary, "empty": "", "blank": " \r\n\n", "two-lines": canary + "\n" + canary + "\n",
		"tab": canary + "\t", "big": strings.Repeat(canary, 1000),
	})
	in := func(name string) string { return filepath.Join(dir, name) }
	with := func(more vars) vars {
		env := vars{"WECHAT_APPID": "wx1"}
		maps.Copy(env, more)
		return env
	}
	for name, tt := range map[string]struct {
		env      vars
		variable string
		want     []string
	}{
		"no account": {vars{}, "WECHAT_APPID",
			[]string{"WECHAT_SECRET", "WECHAT_SECRET_FILE", "WECHAT_ACCOUNTS_FILE"}},
		"no secret":            {with(nil), "WECHAT_APPID", []string{"WECHAT_SECRET or WECHAT_SECRET_FILE"}},
		"secret without appid": {vars{"WECHAT_SECRET": canary}, "WECHAT_SECRET", []string{"WECHAT_APPID"}},
		"file without appid": {vars{"WECHAT_SECRET_FILE": in("good")}, "WECHAT_SECRET_FILE",
			[]string{"WECHAT_APPID"}},
		"two secrets": {with(vars{"WECHAT_SECRET": canary, "WECHAT_SECRET_FILE": in("good")}),
			"WECHAT_SECRET", []string{"WECHAT_SECRET_FILE", "one of them"}},
		"secret with a blank": {with(vars{"WECHAT_SECRET": canary + " " + canary}), "WECHAT_SECRET",
			[]string{"white space"}},
		"secret of blanks": {with(vars{"WECHAT_SECRET": "  "}), "WECHAT_SECRET", []string{"empty"}},
		"file missing": {with(vars{"WECHAT_SECRET_FILE": in("missing")}), "WECHAT_SECRET_FILE",
			[]string{in("missing"), "no such file"}},
		"file is the secret": {with(vars{"WECHAT_SECRET_FILE": "0123456789abcdef0123456789abcdef"}),
			"WECHAT_SECRET_FILE", []string{"looks like a secret"}},
		"file is a directory": {with(vars{"WECHAT_SECRET_FILE": dir}), "WECHAT_SECRET_FILE",
			[]string{dir, "directory"}},
		"file empty": {with(vars{"WECHAT_SECRET_FILE": in("empty")}), "WECHAT_SECRET_FILE",
			[]string{in("empty"), "is empty"}},
		"file of blanks": {with(vars{"WECHAT_SECRET_FILE": in("blank")}), "WECHAT_SECRET_FILE",
			[]string{in("blank"), "is empty"}},
		"file of two lines": {with(vars{"WECHAT_SECRET_FILE": in("two-lines")}), "WECHAT_SECRET_FILE",
			[]string{in("two-lines"), "white space"}},
		"file with a tab": {with(vars{"WECHAT_SECRET_FILE": in("tab")}), "WECHAT_SECRET_FILE",
			[]string{in("tab"), "white space"}},
		"file of something else": {with(vars{"WECHAT_SECRET_FILE": in("big")}), "WECHAT_SECRET_FILE",
			[]string{in("big"), "longer than"}},
		"appid with a dot": {vars{"WECHAT_APPID": "wx.1", "WECHAT_SECRET": canary}, "WECHAT_APPID",
			[]string{`"wx.1"`, "not an AppID"}},
		"appid with a star": {vars{"WECHAT_APPID": "wx*", "WECHAT_SECRET": canary}, "WECHAT_APPID",
			[]string{`"wx*"`, "not an AppID"}},
		"appid with a bracket": {vars{"WECHAT_APPID": "wx>", "WECHAT_SECRET": canary}, "WECHAT_APPID",
			[]string{`"wx>"`, "not an AppID"}},
		"appid with a blank": {vars{"WECHAT_APPID": "wx 1", "WECHAT_SECRET": canary}, "WECHAT_APPID",
			[]string{`"wx 1"`, "not an AppID"}},
		"appid with a newline": {vars{"WECHAT_APPID": "wx1\n", "WECHAT_SECRET": canary}, "WECHAT_APPID",
			[]string{`"wx1\n"`, "not an AppID"}},
		"appid with something": {vars{"WECHAT_APPID": "微信", "WECHAT_SECRET": canary}, "WECHAT_APPID",
			[]string{"not an AppID"}},
		"appid of 65 bytes": {vars{"WECHAT_APPID": strings.Repeat("w", 65), "WECHAT_SECRET": canary},
			"WECHAT_APPID", []string{"1 to 64"}},
		"accounts file missing": {vars{"WECHAT_ACCOUNTS_FILE": in("missing")}, "WECHAT_ACCOUNTS_FILE",
			[]string{in("missing"), "no such file"}},
		"accounts file empty": {vars{"WECHAT_ACCOUNTS_FILE": in("empty")}, "WECHAT_ACCOUNTS_FILE",
			[]string{in("empty"), "not JSON"}},
		"accounts file is secret": {vars{"WECHAT_ACCOUNTS_FILE": in("good")}, "WECHAT_ACCOUNTS_FILE",
			[]string{in("good"), "line 1", "not JSON"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := accounts(tt.env)
			wants(t, err, tt.variable, tt.want...)
		})
	}
}

func TestWrongAccountsFileIsOneClearLine(t *testing.T) {
	t.Parallel()
	const secret = `"secret": "` + canary + `"`
	for name, tt := range map[string]struct {
		content string
		want    []string
	}{
		"nothing in it":       {`[]`, []string{"no account"}},
		"null":                {`null`, []string{"no account"}},
		"an object":           {`{"appid": "wx1", ` + secret + `}`, []string{"line 1", "array"}},
		"an array of strings": {`["` + canary + `"]`, []string{"line 1", "array of objects"}},
		"cut off":             {`[{"appid": "wx1", ` + secret, []string{"ends too early"}},
		"broken":              {"[\n{\"appid\": \"wx1\",\n" + secret + ",}]", []string{"line 3", "not JSON"}},
		"two arrays": {`[{"appid": "wx1", ` + secret + `}]` + "\n[]",
			[]string{"line 2", "after the end"}},
		"a field misspelled": {`[{"appid": "wx1", "secret-file": "f"}]`,
			[]string{"line 1", "not known", "secret_file"}},
		"a field that is unknown": {`[{"appid": "wx1", "secrets": "` + canary + `"}]`,
			[]string{"line 1", `"secrets"`, "not known"}},
		"a secret for a field": {`[{"wx1": "` + canary + `", "` + canary + `": 1}]`, []string{"not known"}},
		"a number for a string": {`[{"appid": 1, ` + secret + `}]`,
			[]string{"line 1", "appid", "must be a string"}},
		"a number for a secret": {`[{"appid": "wx1", "secret": 1}]`, []string{"secret", "must be a string"}},
		"a string for tickets": {`[{"appid": "wx1", ` + secret + `, "tickets": "jsapi"}]`,
			[]string{"tickets", "array of strings"}},
		"no appid": {`[{` + secret + `}]`, []string{"account 1", "appid is missing"}},
		"an appid with a dot": {`[{"appid": "wx1", ` + secret + `}, {"appid": "wx.2", ` + secret + `}]`,
			[]string{"account 2", `"wx.2" is not an AppID`}},
		"no secret": {`[{"appid": "wx1"}]`, []string{"account 1", "neither"}},
		"two secrets": {`[{"appid": "wx1", ` + secret + `, "secret_file": "f"}]`,
			[]string{"account 1", "both"}},
		"a secret with a blank": {`[{"appid": "wx1", "secret": "` + canary + ` x"}]`,
			[]string{"account 1", "white space"}},
		"a secret file missing": {`[{"appid": "wx1", "secret_file": "missing"}]`,
			[]string{"account 1", "secret_file", "missing", "no such file"}},
		"a secret for a file": {`[{"appid": "wx1", "secret_file": "0123456789abcdef0123456789abcdef"}]`,
			[]string{"account 1", "looks like a secret"}},
		"an unknown token API": {`[{"appid": "wx1", ` + secret + `, "token_api": "stable"}]`,
			[]string{"account 1", "token_api", "stable_token, token"}},
		"an unknown ticket": {`[{"appid": "wx1", ` + secret + `, "tickets": ["card"]}]`,
			[]string{"account 1", "tickets", `"card"`}},
		"a name with a control": {`[{"appid": "wx1", ` + secret + `, "name": "\u001b[2J"}]`,
			[]string{"account 1", "name"}},
		"one appid twice": {`[{"appid": "wx1", ` + secret + `}, {"appid": "wx1", ` + secret + `}]`,
			[]string{"account 2", "wx1", "account 1"}},
		"the appid of the variable": {`[{"appid": "wx0", ` + secret + `}]`,
			[]string{"account 1", "wx0", "WECHAT_APPID"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(write(t, map[string]string{"accounts.json": tt.content}), "accounts.json")
			env := vars{"WECHAT_ACCOUNTS_FILE": file}
			if strings.Contains(tt.content, "wx0") {
				env["WECHAT_APPID"], env["WECHAT_SECRET"] = "wx0", canary
			}
			_, err := accounts(env)
			wants(t, err, "WECHAT_ACCOUNTS_FILE", append(tt.want, file)...)
			if strings.Contains(err.Error(), "0123456789abcdef") {
				t.Errorf("error %q shows a secret", err)
			}
		})
	}
}
