package config_test

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
)

func TestNumberedAccountsStandBesideTheOthers(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"3.secret":      canary + "-3\n",
		"accounts.json": `[{"appid": "wx-file", "secret": "` + canary + `-file"}]`,
	})
	env := vars{
		"WECHAT_APPID": "wx-single", "WECHAT_SECRET": canary + "-single",
		"WECHAT_ACCOUNTS_FILE": filepath.Join(dir, "accounts.json"),
		"WECHAT_TOKEN_API":     "token", "WECHAT_TICKETS": "wx_card",

		"WECHAT_ACCOUNTS_0_APPID": "wx-0", "WECHAT_ACCOUNTS_0_SECRET": canary + "-0 \n", "WECHAT_ACCOUNTS_0_NAME": "商城",
		"WECHAT_ACCOUNTS_0_TOKEN_API": "stable_token", "WECHAT_ACCOUNTS_0_TICKETS": " jsapi, wx_card,jsapi",
		"WECHAT_ACCOUNTS_1_APPID": "wx-1", "WECHAT_ACCOUNTS_1_SECRET": canary + "-1",
		"WECHAT_ACCOUNTS_1_TICKETS": "none",
		// the rest comes from the variables for all accounts
		"WECHAT_ACCOUNTS_2_APPID": "wx-2", "WECHAT_ACCOUNTS_2_SECRET": canary + "-2",
		"WECHAT_ACCOUNTS_2_SECRET_FILE": "", "WECHAT_ACCOUNTS_2_TOKEN_API": "", "WECHAT_ACCOUNTS_2_TICKETS": "",
		"WECHAT_ACCOUNTS_3_APPID": "wx-3", "WECHAT_ACCOUNTS_3_SECRET_FILE": filepath.Join(dir, "3.secret"),

		"WECHAT_ACCOUNTS_5_APPID": "", "WECHAT_ACCOUNTS_5_SECERT": "", "WECHAT_ACCOUNTS_0_SERVICE_HOST": "10.0.0.1",
		"WECHAT_ACCOUNTS_9_PORT": "tcp://10.0.0.1:80",
	}
	wxCard := []messages.Kind{messages.WXCardTicket}
	want := []worker.Account{
		{AppID: "wx-single", Secret: canary + "-single", TokenAPI: "token", Tickets: wxCard},
		{AppID: "wx-0", Secret: canary + "-0", Name: "商城", TokenAPI: "stable_token",
			Tickets: []messages.Kind{messages.JSAPITicket, messages.WXCardTicket}},
		{AppID: "wx-1", Secret: canary + "-1", TokenAPI: "token"},
		{AppID: "wx-2", Secret: canary + "-2", TokenAPI: "token", Tickets: wxCard},
		{AppID: "wx-3", Secret: canary + "-3", TokenAPI: "token", Tickets: wxCard},
		{AppID: "wx-file", Secret: canary + "-file", TokenAPI: "token", Tickets: wxCard},
	}
	got, err := accounts(env)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, revealed); d != "" {
		t.Errorf("all sources: -want +got\n%s", d)
	}

	maps.DeleteFunc(env, func(name, _ string) bool {
		return slices.Contains([]string{"WECHAT_APPID", "WECHAT_SECRET", "WECHAT_ACCOUNTS_FILE"}, name)
	})
	if got, err = accounts(env); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want[1:5], got, revealed); d != "" {
		t.Errorf("only numbered: -want +got\n%s", d)
	}
}

func TestElevenNumberedAccountsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	env, want := vars{}, []string(nil)
	for _, n := range []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"} {
		env["WECHAT_ACCOUNTS_"+n+"_APPID"], env["WECHAT_ACCOUNTS_"+n+"_SECRET"] = "wx"+n, canary
		want = append(want, "wx"+n)
	}
	got, err := accounts(env)
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]string, len(got))
	for i, a := range got {
		ids[i] = a.AppID
	}
	if d := cmp.Diff(want, ids); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// No numbered account, and no variable of a numbered account, is ignored silently.
func TestWrongNumberedAccountIsOneClearLine(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"good": canary, "empty": "",
		"accounts.json": `[{"appid": "wx-file", "secret": "` + canary + `"}, {"appid": "wx0", "secret": "` + canary +
			`"}]`,
	})
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, tt := range map[string]struct {
		env      vars // added to a valid account 0; an underscore at the beginning of a key means account 1
		variable string
		want     []string
	}{
		"a gap": {vars{"WECHAT_ACCOUNTS_2_APPID": "wx2", "WECHAT_ACCOUNTS_2_SECRET": canary},
			"WECHAT_ACCOUNTS_2_APPID", []string{"no WECHAT_ACCOUNTS_1_APPID", "without a gap"}},
		"a gap made by empty values": {vars{"_APPID": "", "_SECRET": "", "WECHAT_ACCOUNTS_2_APPID": "wx2"},
			"WECHAT_ACCOUNTS_2_APPID", []string{"no WECHAT_ACCOUNTS_1_APPID"}},
		"from 1": {vars{"WECHAT_ACCOUNTS_0_APPID": "", "WECHAT_ACCOUNTS_0_SECRET": "",
			"_APPID": "wx1"}, "WECHAT_ACCOUNTS_1_APPID", []string{"no WECHAT_ACCOUNTS_0_APPID"}},
		"a leading zero": {vars{"WECHAT_ACCOUNTS_01_APPID": "wx1"}, "WECHAT_ACCOUNTS_01_APPID",
			[]string{"no WECHAT_ACCOUNTS_1_APPID", "leading zeros"}},
		"00 beside 0": {vars{"WECHAT_ACCOUNTS_00_APPID": "wx1"}, "WECHAT_ACCOUNTS_00_APPID",
			[]string{"leading zeros"}},
		"a number too big": {vars{"WECHAT_ACCOUNTS_99999999999999999999_APPID": "wx1"},
			"WECHAT_ACCOUNTS_99999999999999999999_APPID", []string{"no WECHAT_ACCOUNTS_1_APPID"}},
		"a misspelled secret": {vars{"WECHAT_ACCOUNTS_0_SECERT": canary}, "WECHAT_ACCOUNTS_0_SECERT",
			[]string{"no such variable", "SECRET, SECRET_FILE"}},
		"a misspelled choice": {vars{"WECHAT_ACCOUNTS_0_TICKET": "none"}, "WECHAT_ACCOUNTS_0_TICKET",
			[]string{"no such variable", "TICKETS"}},
		"small letters": {vars{"WECHAT_ACCOUNTS_0_name": "shop"}, "WECHAT_ACCOUNTS_0_name",
			[]string{"no such variable", "NAME"}},
		"no ending": {vars{"WECHAT_ACCOUNTS_0": "wx0"}, "WECHAT_ACCOUNTS_0",
			[]string{"no such variable", "APPID"}},
		"no underscore": {vars{"WECHAT_ACCOUNTS_1APPID": "wx1"}, "WECHAT_ACCOUNTS_1APPID",
			[]string{"no such variable", "WECHAT_ACCOUNTS_1_"}},
		"a secret without appid": {vars{"_SECRET": canary}, "WECHAT_ACCOUNTS_1_SECRET",
			[]string{"WECHAT_ACCOUNTS_1_APPID is not set"}},
		"a file without appid": {vars{"_SECRET_FILE": in("good")}, "WECHAT_ACCOUNTS_1_SECRET_FILE",
			[]string{"WECHAT_ACCOUNTS_1_APPID is not set"}},
		"a choice without appid": {vars{"_TICKETS": "none"}, "WECHAT_ACCOUNTS_1_TICKETS",
			[]string{"WECHAT_ACCOUNTS_1_APPID is not set"}},
		"no secret": {vars{"_APPID": "wx1"}, "WECHAT_ACCOUNTS_1_APPID",
			[]string{"WECHAT_ACCOUNTS_1_SECRET or WECHAT_ACCOUNTS_1_SECRET_FILE"}},
		"two secrets": {vars{"_APPID": "wx1", "_SECRET": canary, "_SECRET_FILE": in("good")},
			"WECHAT_ACCOUNTS_1_SECRET", []string{"WECHAT_ACCOUNTS_1_SECRET_FILE", "one of them"}},
		"a secret with a blank": {vars{"_APPID": "wx1", "_SECRET": canary + " " + canary},
			"WECHAT_ACCOUNTS_1_SECRET", []string{"white space"}},
		"a file that is missing": {vars{"_APPID": "wx1", "_SECRET_FILE": in("missing")},
			"WECHAT_ACCOUNTS_1_SECRET_FILE", []string{in("missing"), "no such file"}},
		"a file that is empty": {vars{"_APPID": "wx1", "_SECRET_FILE": in("empty")},
			"WECHAT_ACCOUNTS_1_SECRET_FILE", []string{in("empty"), "is empty"}},
		"a secret for a file": {vars{"_APPID": "wx1", "_SECRET_FILE": "0123456789abcdef0123456789abcdef"},
			"WECHAT_ACCOUNTS_1_SECRET_FILE", []string{"looks like a secret"}},
		"an appid with a dot": {vars{"_APPID": "wx.1", "_SECRET": canary}, "WECHAT_ACCOUNTS_1_APPID",
			[]string{`"wx.1"`, "not an AppID"}},
		"a name with a control": {vars{"_APPID": "wx1", "_SECRET": canary, "_NAME": "\x1b[2J"},
			"WECHAT_ACCOUNTS_1_NAME", []string{"control character"}},
		"an unknown token API": {vars{"_APPID": "wx1", "_SECRET": canary, "_TOKEN_API": "stable"},
			"WECHAT_ACCOUNTS_1_TOKEN_API", []string{`"stable"`, "stable_token, token"}},
		"an unknown ticket": {vars{"_APPID": "wx1", "_SECRET": canary, "_TICKETS": "card"},
			"WECHAT_ACCOUNTS_1_TICKETS", []string{`"card"`, "wx_card"}},
		"none beside a ticket": {vars{"_APPID": "wx1", "_SECRET": canary, "_TICKETS": "none,jsapi"},
			"WECHAT_ACCOUNTS_1_TICKETS", []string{"none"}},
		"one appid twice": {vars{"_APPID": "wx0", "_SECRET": canary}, "WECHAT_ACCOUNTS_1_APPID",
			[]string{"wx0", "also in WECHAT_ACCOUNTS_0_APPID"}},
		"the appid of the variable": {vars{"WECHAT_APPID": "wx0", "WECHAT_SECRET": canary},
			"WECHAT_ACCOUNTS_0_APPID", []string{"wx0", "also in WECHAT_APPID"}},
		"the appid of the file": {vars{"WECHAT_ACCOUNTS_FILE": in("accounts.json")}, "WECHAT_ACCOUNTS_FILE",
			[]string{"account 2", "wx0", "also in WECHAT_ACCOUNTS_0_APPID"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := vars{"WECHAT_ACCOUNTS_0_APPID": "wx0", "WECHAT_ACCOUNTS_0_SECRET": canary}
			for k, v := range tt.env {
				if k[0] == '_' {
					k = "WECHAT_ACCOUNTS_1" + k
				}
				env[k] = v
			}
			_, err := accounts(env)
			wants(t, err, tt.variable, tt.want...)
		})
	}
}
