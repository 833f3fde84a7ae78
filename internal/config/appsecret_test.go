package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An AppID becomes a part of subjects, keys and logs.
func TestAppSecretInPlaceOfAnAppIDIsRefusedWithoutShowingIt(t *testing.T) {
	t.Parallel()
	const id, secret = "wx0123456789abcdef", "fedcba98765432100123456789abcdef"
	dir := t.TempDir()
	in := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	const looks, swapped = "looks like an AppSecret", "are swapped"
	for name, tt := range map[string]struct {
		env            vars
		variable, want string
	}{
		"twice":          {vars{"WECHAT_APPID": secret, "WECHAT_SECRET": secret}, "WECHAT_APPID", looks},
		"with a newline": {vars{"WECHAT_APPID": secret + "\n", "WECHAT_SECRET": secret}, "WECHAT_APPID", looks},
		"with a name":    {vars{"WECHAT_APPID": secret, "WECHAT_SECRET": "a-name"}, "WECHAT_APPID", looks},
		"swapped":        {vars{"WECHAT_APPID": secret, "WECHAT_SECRET": id}, "WECHAT_APPID", swapped},
		"swapped, with a file": {vars{"WECHAT_APPID": secret, "WECHAT_SECRET_FILE": in("id", id+"\n")}, "WECHAT_APPID",
			swapped},
		"file missing": {vars{"WECHAT_APPID": secret, "WECHAT_SECRET_FILE": filepath.Join(dir, "missing")}, "WECHAT_APPID",
			looks},
		"numbered": {vars{"WECHAT_ACCOUNTS_0_APPID": secret, "WECHAT_ACCOUNTS_0_SECRET": secret},
			"WECHAT_ACCOUNTS_0_APPID", looks},
		"numbered, swapped": {vars{"WECHAT_ACCOUNTS_0_APPID": secret, "WECHAT_ACCOUNTS_0_SECRET": id},
			"WECHAT_ACCOUNTS_0_APPID", swapped},
		"accounts file": {vars{"WECHAT_ACCOUNTS_FILE": in("one", `[{"appid":"`+secret+`","secret":"`+secret+`"}]`)},
			"WECHAT_ACCOUNTS_FILE", looks},
		"accounts file, swapped": {vars{"WECHAT_ACCOUNTS_FILE": in("two", `[{"appid":"`+secret+`","secret":"`+id+`"}]`)},
			"WECHAT_ACCOUNTS_FILE", swapped},
	} {
		_, err := accounts(tt.env)
		wants(t, err, tt.variable, tt.want)
		if err != nil && strings.Contains(err.Error(), secret[:8]) {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
}
