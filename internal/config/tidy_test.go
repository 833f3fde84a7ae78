package config_test

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/text/encoding/simplifiedchinese"

	"github.com/wxkeeper/wxkeeper/internal/config"
)

const mark = "\ufeff" // the byte order mark

func TestByteOrderMarksAreTakenOff(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"secret":        mark + canary + "\r\n",
		"accounts.json": mark + `[{"appid": "wx2", "secret_file": "secret", "name": "旗舰店"}]`,
	})
	got, err := accounts(vars{
		"WECHAT_APPID": mark + "wx0", "WECHAT_SECRET_FILE": filepath.Join(dir, "secret"),
		"WECHAT_ACCOUNTS_0_APPID": "wx1", "WECHAT_ACCOUNTS_0_SECRET": mark + canary,
		"WECHAT_ACCOUNTS_FILE": filepath.Join(dir, "accounts.json"),
	})
	if err != nil || len(got) != 3 {
		t.Fatalf("%d accounts, %v", len(got), err)
	}
	for i, a := range got {
		if want := "wx" + string(rune('0'+i)); a.AppID != want || a.Secret.Reveal() != canary {
			t.Errorf("account %d is %q with the secret %q", i, a.AppID, a.Secret.Reveal())
		}
	}
	if got[2].Name != "旗舰店" {
		t.Errorf("the name is %q", got[2].Name)
	}
}

func TestOtherEncodingsThanUTF8AreNamed(t *testing.T) {
	t.Parallel()
	const text = `[{"appid": "wx1", "secret": "` + canary + `", "name": "旗舰店"}]`
	gbk, err := simplifiedchinese.GBK.NewEncoder().String(text)
	if err != nil {
		t.Fatal(err)
	}
	wide := func(s string) string { // ASCII as UTF-16
		return "\xff\xfe" + strings.Join(strings.Split(s, ""), "\x00") + "\x00"
	}
	dir := write(t, map[string]string{"gbk": gbk, "wide": wide(`[{"appid": "wx1"}]`), "secret": wide(canary)})
	for file, tt := range map[string]struct{ variable, want string }{
		"gbk":    {"WECHAT_ACCOUNTS_FILE", "GBK: save it as UTF-8"},
		"wide":   {"WECHAT_ACCOUNTS_FILE", "this file is UTF-16: save it as UTF-8"},
		"secret": {"WECHAT_SECRET_FILE", "this file is UTF-16: save it as UTF-8"},
	} {
		env := vars{tt.variable: filepath.Join(dir, file)}
		if tt.variable == "WECHAT_SECRET_FILE" {
			env["WECHAT_APPID"] = "wx1"
		}
		_, err := accounts(env)
		wants(t, err, tt.variable, filepath.Join(dir, file), tt.want)
	}
	_, err = accounts(vars{"WECHAT_ACCOUNTS_0_APPID": "wx1", "WECHAT_ACCOUNTS_0_SECRET": canary,
		"WECHAT_ACCOUNTS_0_NAME": "\xc6\xec\xbd\xa2\xb5\xea"}) // 旗舰店 in GBK
	wants(t, err, "WECHAT_ACCOUNTS_0_NAME", "GBK")
}

func TestValueInQuotesIsRefused(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"secret": `"` + canary + `"` + "\n", "accounts.json": `[{"appid": "“wx1”", "secret": "` + canary + `"}]`,
		"accounts2.json": `[{"appid": "wx1", "secret": "‘` + canary + `’"}]`,
	})
	for _, pair := range []string{`""`, "''", "``", "“”", "‘’", "””", "「」", "＂＂"} {
		open, end := string([]rune(pair)[:1]), string([]rune(pair)[1:])
		in := func(value string) string { return open + value + end }
		for name, env := range map[string]vars{
			"WECHAT_SECRET":            {"WECHAT_APPID": "wx1", "WECHAT_SECRET": in(canary)},
			"WECHAT_ACCOUNTS_0_SECRET": {"WECHAT_ACCOUNTS_0_APPID": "wx1", "WECHAT_ACCOUNTS_0_SECRET": in(canary)},
			"WECHAT_APPID":             {"WECHAT_APPID": in("wx1"), "WECHAT_SECRET": canary},
			"WECHAT_ACCOUNTS_FILE":     {"WECHAT_ACCOUNTS_FILE": in("accounts.json")},
			"NATS_URL":                 {"NATS_URL": in("nats://u:" + canary + "@host")},
			"NATS_PASSWORD":            {"NATS_URL": "h", "NATS_USER": "u", "NATS_PASSWORD": in(canary) + "\n"},
			"NATS_TOKEN":               {"NATS_URL": "h", "NATS_TOKEN": in(canary)},
			"WXKEEPER_REPLICAS":        {"WXKEEPER_REPLICAS": in("3")},
		} {
			_, err := accounts(env)
			wants(t, err, name, "quotes")
		}
	}
	for file, variable := range map[string]string{
		"secret": "WECHAT_SECRET_FILE", "accounts.json": "WECHAT_ACCOUNTS_FILE", "accounts2.json": "WECHAT_ACCOUNTS_FILE",
	} {
		env := vars{variable: filepath.Join(dir, file)}
		if file == "secret" {
			env["WECHAT_APPID"] = "wx1"
		}
		_, err := accounts(env)
		wants(t, err, variable, "quotes")
	}
	got, err := accounts(vars{"WECHAT_ACCOUNTS_0_APPID": "wx1", "WECHAT_ACCOUNTS_0_SECRET": canary,
		"WECHAT_ACCOUNTS_0_NAME": "“旗舰店”"})
	if err != nil || got[0].Name != "“旗舰店”" {
		t.Errorf("a name in quotes: %v, %v", got, err)
	}
}

func TestWhiteSpaceAroundPasswordsIsTreatedAsAroundSecrets(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"", "\n", "\r\n", " ", mark} {
		value := canary + " 密码" + end
		if end == mark {
			value = mark + canary + " 密码"
		}
		c, err := config.Load(vars{"NATS_URL": "h", "NATS_USER": "u" + strings.Trim(end, mark), "NATS_PASSWORD": value})
		if err != nil || c.NATSPassword.Reveal() != canary+" 密码" || c.NATSUser != "u" {
			t.Errorf("%q: %q, %q, %v", end, c.NATSUser, c.NATSPassword.Reveal(), err)
		}
		if c, err = config.Load(vars{"NATS_URL": "h", "NATS_TOKEN": value}); err != nil ||
			c.NATSToken.Reveal() != canary+" 密码" {
			t.Errorf("%q: %q, %v", end, c.NATSToken.Reveal(), err)
		}
	}
	for _, value := range []string{" " + canary, "\n" + canary, canary + "\t", canary + "\n" + canary, " \r\n"} {
		_, err := config.Load(vars{"NATS_URL": "h", "NATS_USER": "u", "NATS_PASSWORD": value})
		wants(t, err, "NATS_PASSWORD", "white space")
		_, err = config.Load(vars{"NATS_URL": "h", "NATS_TOKEN": value})
		wants(t, err, "NATS_TOKEN", "white space")
	}
}
