package config_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// unexported lets cmp compare structs with unexported fields.
var unexported = cmp.Exporter(func(reflect.Type) bool { return true })

func load(t *testing.T, env vars) config.Config {
	t.Helper()
	c, err := config.Load(env)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Every variable of the packages below arrives in their configuration.
func TestConfigMakesTheConfigurationsOfThePackagesBelow(t *testing.T) {
	t.Parallel()
	c := load(t, vars{
		"WECHAT_API_URL": "http://a.example", "WECHAT_API_INSECURE": "true", "WECHAT_HTTP_TIMEOUT": "1s",
		"WXKEEPER_BUCKET": "creds", "WXKEEPER_SUBJECT_PREFIX": "corp", "NATS_URL": "h", "WXKEEPER_REPLICAS": "3",
		"WXKEEPER_REFRESH_BEFORE": "2m", "WXKEEPER_RESOLVE_CONCURRENCY": "7", "WXKEEPER_RESOLVE_TIMEOUT": "3s",
		"WXKEEPER_JS_DOMAIN": "hub", "WXKEEPER_BUCKET_MAX_BYTES": "1048577", "WXKEEPER_BUCKET_STORAGE": "memory",
		"WXKEEPER_BUCKET_PLACEMENT_TAGS": "ssd",
	})
	accounts := []worker.Account{{AppID: "wx1", Secret: canary}}
	if d := cmp.Diff(worker.Config{
		Accounts: accounts, Bucket: "creds", SubjectPrefix: "corp", Replicas: 3,
		MaxBytes: 1<<20 + 1, Memory: true, PlacementTags: []string{"ssd"}, JSDomain: "hub",
		WeChat:        wechat.Config{URLs: []string{"http://a.example"}, AllowInsecure: true, Timeout: time.Second},
		RefreshBefore: 2 * time.Minute, ResolveConcurrency: 7, ResolveTimeout: 3 * time.Second,
	}, c.Worker(accounts), unexported); d != "" {
		t.Errorf("worker: -want +got\n%s", d)
	}

	want := natsconn.Config{URL: "h", CA: "ca", Cert: "cert", Key: "key", TLSFirst: true, InboxPrefix: "_INBOX_a",
		Name: "name"}
	for name, set := range map[string]func(){
		"NATS_CREDS": func() { want.Creds = "value" },
		"NATS_NKEY":  func() { want.NKey = "value" },
		"NATS_TOKEN": func() { want.Token = "value" },
		"NATS_USER":  func() { want.User, want.Password = "value", "password" },
	} {
		env := vars{"NATS_URL": "h", "NATS_CA": "ca", "NATS_CERT": "cert", "NATS_KEY": "key",
			"NATS_TLS_FIRST": "true", "NATS_INBOX_PREFIX": "_INBOX_a", name: "value"}
		if name == "NATS_USER" {
			env["NATS_PASSWORD"] = "password"
		}
		plain := want
		set()
		if d := cmp.Diff(want, load(t, env).NATS("name"), revealed, unexported); d != "" {
			t.Errorf("%s: -want +got\n%s", name, d)
		}
		want = plain
	}

	c = load(t, vars{"WXKEEPER_NATS_LISTEN": "127.0.0.1:1", "WXKEEPER_DATA_DIR": "d", "NATS_USER": "u",
		"NATS_PASSWORD": "p", "WXKEEPER_NATS_OPEN": "true", "WXKEEPER_BUCKET": "creds",
		"WXKEEPER_SUBJECT_PREFIX": "corp"})
	server := c.Embedded()
	for _, subject := range []string{"corp.code.resolve", "corp.code.resolve.*", "corp.credential.get.*",
		"$JS.API.DIRECT.GET.KV_creds.$KV.creds.*.*"} {
		if !slices.Contains(server.Exports.Requests, subject) {
			t.Errorf("consumers have no %s, only %q", subject, server.Exports.Requests)
		}
	}
	if d := cmp.Diff([]string{"corp.published.*.*", "corp.event.>"}, server.Exports.Messages); d != "" {
		t.Errorf("messages for consumers: -want +got\n%s", d)
	}
	server.Exports = embedded.Exports{}
	if d := cmp.Diff(embedded.Config{Listen: "127.0.0.1:1", DataDir: "d", User: "u", Password: "p", Open: true}, server,
		revealed); d != "" {
		t.Errorf("embedded: -want +got\n%s", d)
	}
	if got := load(t, vars{"NATS_TOKEN": "t"}).Embedded().Token.Reveal(); got != "t" {
		t.Errorf("embedded: the token is %q", got)
	}
}

// An empty environment configures a worker like an empty worker.Config: a default is defined once.
func TestDefaultsAreThoseOfThePackagesBelow(t *testing.T) {
	t.Parallel()
	got := load(t, vars{}).Worker(nil)
	if d := cmp.Diff(worker.Config{
		Bucket: "wechat", SubjectPrefix: "wechat",
		WeChat:        wechat.Config{URLs: []string{wechat.DefaultURL}, Timeout: wechat.DefaultTimeout},
		RefreshBefore: worker.DefaultRefreshBefore, ResolveConcurrency: worker.DefaultResolveConcurrency,
		ResolveTimeout: worker.DefaultResolveTimeout,
	}, got, unexported); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestClientsFindTheServersOfAWorkerWithTheSameEnvironment(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		env         vars
		nats, pages string
	}{
		{vars{}, "nats://127.0.0.1:4222", "http://127.0.0.1:8080"},
		{vars{"NATS_URL": "nats://a,nats://b", "WXKEEPER_HTTP_ADDR": "none"}, "nats://a,nats://b", ""},
		{vars{"WXKEEPER_NATS_LISTEN": "0.0.0.0:1", "WXKEEPER_HTTP_ADDR": ":80"}, "nats://127.0.0.1:1",
			"http://127.0.0.1:80"},
		{vars{"WXKEEPER_NATS_LISTEN": "[::]:1", "WXKEEPER_HTTP_ADDR": "[2001:db8::1]:80"}, "nats://[::1]:1",
			"http://[2001:db8::1]:80"},
		{vars{"WXKEEPER_NATS_LISTEN": "127.0.0.1:0"}, "", "http://127.0.0.1:8080"},
	} {
		tt.env["WXKEEPER_DATA_DIR"] = t.TempDir()
		c := load(t, tt.env)
		if nc, found, err := c.Client("", embedded.Consumers); nc.URL != tt.nats || found != nil || err != nil {
			t.Errorf("%v: NATS is at %q, want %q; found %+v, %v", tt.env, nc.URL, tt.nats, found, err)
		}
		if got := c.PagesURL(); got != tt.pages {
			t.Errorf("%v: the pages are at %q, want %q", tt.env, got, tt.pages)
		}
	}
}

// A list of permissions is printed for a domain on a machine without NATS_URL, but a worker would start its own server.
func TestSettingsOfOtherServersContradictTheEmbeddedServerOfAWorker(t *testing.T) {
	t.Parallel()
	for variable, value := range map[string]string{"WXKEEPER_JS_DOMAIN": "hub", "WXKEEPER_BUCKET_PLACEMENT_TAGS": "ssd"} {
		wants(t, load(t, vars{variable: value}).CheckEmbedded(), variable, "NATS_URL")
		if err := load(t, vars{variable: value, "NATS_URL": "h"}).CheckEmbedded(); err != nil {
			t.Error(err)
		}
	}
}

func TestSizesHaveTheUnitsOfNATS(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0": 0, "1048576": 1 << 20, "2M": 2e6, "2MB": 2 << 20, "2mb": 2 << 20, "2 MiB": 2 << 20, "2000K": 2e6,
		"2000KB": 2000 << 10, "1G": 1e9, "1GB": 1 << 30, "1T": 1e12, "1TiB": 1 << 40,
	} {
		if got := load(t, vars{"WXKEEPER_BUCKET_MAX_BYTES": text}).Worker(nil).MaxBytes; got != want {
			t.Errorf("%s is %d bytes, want %d", text, got, want)
		}
	}
}
