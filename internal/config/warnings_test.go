package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/config"
)

func TestMisspelledVariablesAreFound(t *testing.T) {
	t.Parallel()
	got := config.UnknownVariables(vars{
		"WXKEEPER_DATADIR": "d", "WECHAT_APP_ID": "wx1", "WECHAT_SECRETFILE": canary,
		"WXKEEPER_FAVOURITE_COLOUR": "blue", "WECHAT_PAY_KEY": canary,
		"WXKEEPER_LOG_LEVEL": "info", "WXKEEPER_BUCKETS": "", "PATH": "/bin", "MY_WECHAT_APPID": "x",
		"NATS_CONTEXT":            "c",
		"WECHAT_ACCOUNT_0_SECRET": canary, "WECHAT_ACCOUNTS_7_SECRET": canary, "WECHAT_ACCOUNTS_FIEL": "f",
		"WXKEEPER_SERVICE_HOST": "10.0.0.1", "WXKEEPER_SERVICE_PORT": "80", "WXKEEPER_SERVICE_PORT_HTTP": "80",
		"ALL_PROXY": "socks5://u:" + canary + "@h", "http_proxy": "h:1",
		"WXKEEPER_PORT":        "tcp://10.0.0.1:80",
		"WXKEEPER_PORT_80_TCP": "tcp://10.0.0.1:80", "WXKEEPER_PORT_80_TCP_ADDR": "10.0.0.1",
	})
	want := []config.Unknown{
		{"ALL_PROXY", "HTTPS_PROXY"},
		{"WECHAT_ACCOUNTS_FIEL", "WECHAT_ACCOUNTS_FILE"}, {"WECHAT_ACCOUNT_0_SECRET", "WECHAT_ACCOUNTS_0_SECRET"},
		{"WECHAT_APP_ID", "WECHAT_APPID"}, {"WECHAT_PAY_KEY", ""}, {"WECHAT_SECRETFILE", "WECHAT_SECRET_FILE"},
		{"WXKEEPER_DATADIR", "WXKEEPER_DATA_DIR"}, {"WXKEEPER_FAVOURITE_COLOUR", ""},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestFilesThatOthersCanReadAreFound(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"closed": canary, "group": canary, "others": canary,
		"accounts.json": `[{"appid":"wx2","secret_file":"closed"},{"appid":"wx3","secret_file":"others"},{"appid":"wx4","secret":"` + canary + `"}]`,
	})
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, mode := range map[string]os.FileMode{"group": 0o640, "others": 0o604, "accounts.json": 0o644} {
		if err := os.Chmod(in(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		env  vars
		want []config.OpenFile
	}{
		{vars{}, nil},
		{vars{"WECHAT_SECRET_FILE": in("closed")}, nil},
		{vars{"WECHAT_SECRET_FILE": in("missing"), "WECHAT_ACCOUNTS_FILE": in("missing")}, nil},
		{vars{
			"WECHAT_SECRET_FILE": in("group"), "WECHAT_ACCOUNTS_0_SECRET_FILE": in("closed"),
			"WECHAT_ACCOUNTS_1_SECRET_FILE": in("others"),
			"WECHAT_ACCOUNTS_FILE":          in("accounts.json"),
			"NATS_URL":                      "nats://127.0.0.1:1", "NATS_CREDS": in("group"), "NATS_CERT": in("others"),
			"NATS_KEY": in("others"),
		}, []config.OpenFile{
			{"WECHAT_SECRET_FILE", in("group"), 0o640}, {"WECHAT_ACCOUNTS_1_SECRET_FILE", in("others"), 0o604},
			{"NATS_CREDS", in("group"), 0o640}, {"NATS_KEY", in("others"), 0o604}, // a certificate is no secret
			{"WECHAT_ACCOUNTS_FILE", in("accounts.json"), 0o644}, {"WECHAT_ACCOUNTS_FILE", in("others"), 0o604},
		}},
	} {
		c, err := config.Load(tt.env)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, c.OpenFiles()); d != "" {
			t.Errorf("-want +got\n%s", d)
		}
	}
}
