package config_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/setting"
)

func TestMain(m *testing.M) {
	if os.Getenv(forgetting) != "" {
		forget()
		return
	}
	goleak.VerifyTestMain(m)
}

// canary is part of every secret of these tests. No error may show it.
const canary = "S3CRET"

type vars map[string]string

// wants asserts that err is a setting.Error of the variable: one line that begins with the variable's name,
// contains the texts, and shows no secret.
func wants(t *testing.T, err error, variable string, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted; want an error of %s", variable)
	}
	got := err.Error()
	if !strings.HasPrefix(got, variable+": ") {
		t.Errorf("error %q does not begin with %s", got, variable)
	}
	var se *setting.Error
	if !errors.As(err, &se) {
		t.Fatalf("%q is a %T, want a *setting.Error", got, err)
	}
	if se.Variable != variable {
		t.Errorf("the error is about %q, want %q", se.Variable, variable)
	}
	for _, text := range texts {
		if !strings.Contains(got, text) {
			t.Errorf("error %q lacks %q", got, text)
		}
	}
	if strings.ContainsAny(got, "\n\r") || strings.Contains(got, canary) {
		t.Errorf("error %q has a second line or a secret", got)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	want := config.Config{
		APIURLs: []string{"https://api.weixin.qq.com"}, TokenAPI: "stable_token", HTTPTimeout: 5 * time.Second,
		Tickets:    []string{"jsapi", "wx_card"},
		NATSListen: "127.0.0.1:4222", DataDir: "data", HTTPAddr: "127.0.0.1:8080",
		SubjectPrefix: "wechat", Bucket: "wechat", Storage: "file", RefreshBefore: 10 * time.Minute, ResolveConcurrency: 256,
		ResolveTimeout: 4 * time.Second,
		LogLevel:       "info",
	}
	empty := vars{}
	for _, r := range config.Table() {
		empty[r.Name] = "" // an empty variable counts as not set
	}
	for name, env := range map[string]vars{"nothing set": {}, "all set to nothing": empty} {
		got, err := config.Load(env)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true })); d != "" {
			t.Errorf("%s: -want +got\n%s", name, d)
		}
	}
}

func TestEveryVariableIsRead(t *testing.T) {
	t.Parallel()
	env := vars{
		"WECHAT_APPID": "wx1", "WECHAT_SECRET": canary, "WECHAT_SECRET_FILE": "f", "WECHAT_ACCOUNTS_FILE": "a.json",
		"WECHAT_API_URL": "http://a.example/ , https://b.example", "WECHAT_API_INSECURE": "true",
		"WECHAT_TOKEN_API": "token", "WECHAT_HTTP_TIMEOUT": "100ms", "WECHAT_TICKETS": "jsapi,jsapi",
		"HTTPS_PROXY": " socks5h://u:p%40@proxy.example:1080/ ", "HTTP_PROXY": "10.0.0.1:3128",
		"NO_PROXY": "a.example, 10.0.0.0/8",
		"NATS_URL": "tls://a:4222,b:4222", "NATS_CREDS": "c", "NATS_CA": "ca", "NATS_CERT": "cert", "NATS_KEY": "key",
		"NATS_INBOX_PREFIX": "_INBOX_a-1.b", "NATS_TLS_FIRST": "true",
		"WXKEEPER_JS_DOMAIN": "hub", "WXKEEPER_BUCKET_MAX_BYTES": "64MB", "WXKEEPER_BUCKET_STORAGE": "memory",
		"WXKEEPER_BUCKET_PLACEMENT_TAGS": "ssd, az:1",
		"WXKEEPER_NATS_LISTEN":           "[::1]:0", "WXKEEPER_NATS_OPEN": "true", "WXKEEPER_DUMPABLE": "true",
		"WXKEEPER_DATA_DIR": "d", "WXKEEPER_HTTP_ADDR": "none",
		"WXKEEPER_SUBJECT_PREFIX": "we_chat-1", "WXKEEPER_BUCKET": "B",
		"WXKEEPER_REPLICAS": "5", "WXKEEPER_REFRESH_BEFORE": "1h", "WXKEEPER_RESOLVE_CONCURRENCY": "65536",
		"WXKEEPER_RESOLVE_TIMEOUT": "1m",
		"WXKEEPER_LOG_FORMAT":      "json", "WXKEEPER_LOG_LEVEL": "debug",
	}
	want := config.Config{
		AppID: "wx1", Secret: canary, SecretFile: "f", AccountsFile: "a.json",
		APIURLs: []string{"http://a.example", "https://b.example"}, APIInsecure: true, TokenAPI: "token",
		HTTPTimeout: 100 * time.Millisecond, Tickets: []string{"jsapi", "jsapi"},
		HTTPSProxy: "socks5h://u:p%40@proxy.example:1080/", HTTPProxy: "10.0.0.1:3128", NoProxy: "a.example, 10.0.0.0/8",
		NATSURL: "tls://a:4222,b:4222", NATSCreds: "c", NATSCA: "ca", NATSCert: "cert", NATSKey: "key",
		NATSInbox: "_INBOX_a-1.b", NATSTLSFirst: true,
		JSDomain: "hub", MaxBytes: 64 << 20, Storage: "memory", PlacementTags: []string{"ssd", "az:1"},
		NATSListen: "[::1]:0", NATSOpen: true, Dumpable: true,
		DataDir: "d", HTTPAddr: "", SubjectPrefix: "we_chat-1", Bucket: "B",
		Replicas: 5, RefreshBefore: time.Hour, ResolveConcurrency: 65536, ResolveTimeout: time.Minute,
		LogFormat: "json", LogLevel: "debug",
	}
	got, err := config.Load(env)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}

	for _, more := range []vars{ // they contradict each other
		{"NATS_URL": "nats://u:p@h", "NATS_NKEY": "n"}, {"NATS_USER": "u", "NATS_PASSWORD": "p"}, {"NATS_TOKEN": "t"},
		{"WECHAT_TICKETS": "none"},
		{"WECHAT_API_URL": "http://127.0.0.1:1234"}, {"WECHAT_API_URL": "http://[::1]:1"},
		{"WECHAT_API_URL": "http://localhost"}, {"WXKEEPER_NATS_LISTEN": ":4222"},
	} {
		if _, err := config.Load(more); err != nil {
			t.Errorf("%v: %v", more, err)
		}
	}
}

func TestWrongVariableIsOneClearLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, value string
		want        []string
	}{
		{"WECHAT_HTTP_TIMEOUT", "5", []string{`"5"`, "unit", "5s"}},
		{"WECHAT_HTTP_TIMEOUT", "soon", []string{`"soon"`, "duration"}},
		{"WECHAT_HTTP_TIMEOUT", "99ms", []string{"99ms", "from 100ms to 10s"}},
		{"WECHAT_HTTP_TIMEOUT", "10001ms", []string{"10.001s", "from 100ms to 10s"}},
		{"WECHAT_HTTP_TIMEOUT", "-5s", []string{"-5s", "from 100ms to 10s"}},
		{"WXKEEPER_REFRESH_BEFORE", "600", []string{`"600"`, "unit", "10m"}},
		{"WXKEEPER_REFRESH_BEFORE", "999ms", []string{"from 1s to 1h"}},
		{"WXKEEPER_REFRESH_BEFORE", "61m", []string{"from 1s to 1h"}},
		{"WXKEEPER_RESOLVE_TIMEOUT", "4", []string{`"4"`, "unit", "4s"}},
		{"WXKEEPER_RESOLVE_TIMEOUT", "1ms", []string{"from 100ms to 60s"}},
		{"WXKEEPER_RESOLVE_TIMEOUT", "61s", []string{"from 100ms to 60s"}},
		{"WXKEEPER_RESOLVE_CONCURRENCY", "many", []string{`"many"`, "whole number from 1 to 65536"}},
		{"WXKEEPER_RESOLVE_CONCURRENCY", "0", []string{"from 1 to 65536"}},
		{"WXKEEPER_RESOLVE_CONCURRENCY", "65537", []string{"from 1 to 65536"}},
		{"WXKEEPER_REPLICAS", "three", []string{`"three"`, "whole number from 0 to 5"}},
		{"WXKEEPER_REPLICAS", "-1", []string{"from 0 to 5"}},
		{"NATS_TLS_FIRST", "yes", []string{"true or false"}},
		{"NATS_TLS_FIRST", "true", []string{"the embedded NATS server has no TLS", "NATS_URL"}},
		{"WXKEEPER_BUCKET_MAX_BYTES", "much", []string{`"much" is not a size`, "64MB"}},
		{"WXKEEPER_BUCKET_MAX_BYTES", "-1", []string{"64MB"}},
		{"WXKEEPER_BUCKET_MAX_BYTES", "64XB", []string{"64MB"}},
		{"WXKEEPER_BUCKET_MAX_BYTES", "9999999999GB", []string{"64MB"}},
		{"WXKEEPER_BUCKET_MAX_BYTES", "64", []string{"64 bytes are too few", "at least 1MB"}},
		{"WXKEEPER_BUCKET_STORAGE", "disk", []string{`"disk" is not one of file, memory`}},
		{"WXKEEPER_JS_DOMAIN", "a.b", []string{`"a.b" is not the name of a domain`}},
		{"WXKEEPER_BUCKET_PLACEMENT_TAGS", "a b", []string{`"a b" is not a tag`}},
		{"WXKEEPER_REPLICAS", "6", []string{"from 0 to 5"}},
		{"WXKEEPER_REPLICAS", "3", []string{"3 replicas", "NATS_URL"}},
		{"WECHAT_TOKEN_API", "stable", []string{`"stable"`, "stable_token, token"}},
		{"WECHAT_TICKETS", "jsapi,card", []string{`"card"`, "wx_card", "none"}},
		{"WECHAT_TICKETS", "none,jsapi", []string{"none"}},
		{"WECHAT_API_INSECURE", "yes please", []string{`"yes please"`, "true or false"}},
		{"WECHAT_API_URL", ",", []string{"https://api.weixin.qq.com"}},
		{"WECHAT_API_URL", "api.weixin.qq.com", []string{"URL 1", "https://api.weixin.qq.com"}},
		{"WECHAT_API_URL", "https://", []string{"URL 1", "https://api.weixin.qq.com"}},
		{"WECHAT_API_URL", "https://a.example,ftp://b.example", []string{"URL 2", "https"}},
		{"WECHAT_API_URL", "https://a.example,:" + canary, []string{"URL 2", "cannot be parsed"}},
		{"WECHAT_API_URL", "https://u:" + canary + "@a.example", []string{"URL 1", "leave https://a.example"}},
		{"WECHAT_API_URL", "https://a.example/cgi-bin/token?secret=" + canary,
			[]string{"URL 1", "leave https://a.example"}},
		{"WECHAT_API_URL", "http://a.example", []string{"http://a.example", "https://", "WECHAT_API_INSECURE=true"}},
		{"NATS_URL", "nats://u:" + canary + "@ho st", []string{"***@ho st", "nats://host:4222"}},
		{"NATS_URL", "https://" + canary + "@host", []string{`"https"`, "nats, tls, ws, wss"}},
		{"NATS_URL", ",", []string{"nats://host:4222"}},
		{"NATS_INBOX_PREFIX", "_INBOX.", []string{`"_INBOX."`, "_INBOX_worker"}},
		{"NATS_INBOX_PREFIX", "_INBOX.>", []string{`"_INBOX.>"`, "beginning of a subject"}},
		{"NATS_INBOX_PREFIX", "my inbox", []string{`"my inbox"`, "letters"}},
		{"NATS_INBOX_PREFIX", "$KV.wechat", []string{`"$KV.wechat"`, "letters"}},
		{"NATS_INBOX_PREFIX", "wechat.inbox", []string{`"wechat.inbox"`, "WXKEEPER_SUBJECT_PREFIX"}},
		{"NATS_CREDS", "f", []string{"NATS_URL"}},
		{"NATS_NKEY", "f", []string{"NATS_URL"}},
		{"NATS_CA", "f", []string{"NATS_URL"}},
		{"NATS_CERT", "f", []string{"NATS_URL"}},
		{"NATS_KEY", "f", []string{"NATS_URL"}},
		{"NATS_USER", "u", []string{"NATS_PASSWORD", "NATS_TOKEN"}},
		{"NATS_PASSWORD", canary, []string{"NATS_USER"}},
		{"WXKEEPER_NATS_LISTEN", "4222", []string{`"4222"`, "host:port", "127.0.0.1:4222"}},
		{"WXKEEPER_NATS_LISTEN", "127.0.0.1:nats", []string{"port", "65535"}},
		{"WXKEEPER_HTTP_ADDR", "8080", []string{"host:port", "none"}},
		{"WXKEEPER_HTTP_ADDR", "127.0.0.1:70000", []string{"65535"}},
		{"WXKEEPER_SUBJECT_PREFIX", "we.chat", []string{`"we.chat"`, "one token"}},
		{"WXKEEPER_SUBJECT_PREFIX", "*", []string{"one token"}},
		{"WXKEEPER_SUBJECT_PREFIX", "_INBOX", []string{`"_INBOX"`, "begins with _"}},
		{"WXKEEPER_SUBJECT_PREFIX", "$KV", []string{`"$KV"`, "one token"}},
		{"WXKEEPER_BUCKET", "my bucket", []string{`"my bucket"`, "one token"}},
		{"WXKEEPER_BUCKET", strings.Repeat("b", 65), []string{"64"}},
	} {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			t.Parallel()
			_, err := config.Load(vars{tt.name: tt.value})
			wants(t, err, tt.name, tt.want...)
		})
	}

	for _, tt := range []struct {
		env      vars
		variable string
		want     string
	}{
		{vars{"NATS_URL": "h", "NATS_CERT": "f"}, "NATS_CERT", "NATS_KEY"},
		{vars{"NATS_URL": "h", "NATS_KEY": "f"}, "NATS_KEY", "NATS_CERT"},
		{vars{"NATS_URL": "h", "NATS_CREDS": "f", "NATS_NKEY": "g"}, "NATS_CREDS, NATS_NKEY", "set one"},
		{vars{"NATS_USER": "u", "NATS_PASSWORD": canary, "NATS_TOKEN": canary}, "NATS_USER, NATS_TOKEN", "set one"},
	} {
		_, err := config.Load(tt.env)
		wants(t, err, tt.variable, tt.want)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	c, err := config.Load(vars{
		"WECHAT_APPID": "wx1", "WECHAT_SECRET": canary, "NATS_URL": "nats://" + canary + "@h", "NATS_USER": "u",
		"NATS_PASSWORD":           canary,
		"WECHAT_ACCOUNTS_0_APPID": "wx2", "WECHAT_ACCOUNTS_0_SECRET": canary, "WECHAT_ACCOUNTS_1_APPID": "wx3",
		"WECHAT_ACCOUNTS_1_SECRET": canary,
	})
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := c.Accounts()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, v := range []any{
		c, &c, c.Numbered, c.Numbered[0], accounts, accounts[0], &accounts[0],
		c.Worker(accounts).Accounts, c.NATS("name").Password, c.Embedded(), []any{c.Embedded()},
	} {
		fmt.Fprintf(&b, "%v %+v %#v %s\n", v, v, v, v)
		slog.New(slog.NewTextHandler(&b, nil)).Info("text", "v", v)
		slog.New(slog.NewJSONHandler(&b, nil)).Info("json", "v", v)
	}
	if strings.Contains(b.String(), canary) {
		t.Errorf("a secret was printed:\n%s", b.String())
	}
	for _, text := range []string{"WECHAT_APPID=wx1", "WECHAT_ACCOUNTS_1_APPID=wx3", "NATS_URL=nats://***@h",
		"NATS_PASSWORD=***", "WXKEEPER_REFRESH_BEFORE=10m", "WECHAT_TICKETS=jsapi,wx_card"} {
		if !strings.Contains(c.String(), text) {
			t.Errorf("%s is not printed:\n%s", text, c)
		}
	}
}

func TestTableNamesEveryVariableOnce(t *testing.T) {
	t.Parallel()
	md := config.Markdown()
	var names []string
	for _, r := range config.Table() {
		if r.Name == "" || r.Meaning == "" || slices.Contains(names, r.Name) {
			t.Errorf("row %+v", r)
		}
		names = append(names, r.Name)
		if !strings.Contains(md, "| `"+r.Name+"` |") {
			t.Errorf("the Markdown lacks %s", r.Name)
		}
	}
	if got := strings.Count(md, "\n"); got != len(names)+2 {
		t.Errorf("%d lines for %d variables", got, len(names))
	}
	if !strings.Contains(md, "| `WECHAT_HTTP_TIMEOUT` | `5s` | time limit of one call of the WeChat server API (100ms to 10s) |\n") {
		t.Errorf("Markdown:\n%s", md)
	}
	numbered := slices.DeleteFunc(slices.Clone(names),
		func(name string) bool { return !strings.HasPrefix(name, "WECHAT_ACCOUNTS_0_") })
	// but for Numbered
	if got, want := len(names)-len(numbered), reflect.TypeFor[config.Config]().NumField()-1; got != want {
		t.Errorf("%d variables for %d fields", got, want)
	}
	if len(numbered) != 6 {
		t.Errorf("%d variables of numbered accounts", len(numbered))
	}
}

// write creates files in a new directory and returns the directory.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestEnvironmentOfTheProcessIsTheDefault(t *testing.T) {
	t.Setenv("WXKEEPER_BUCKET", "of-the-process")
	c, err := config.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Bucket != "of-the-process" {
		t.Errorf("the bucket is %q", c.Bucket)
	}
}
