//go:build cli

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
)

// The NATS account demands a largest size of each stream, and the worker has no setting for it.
func TestBucketsMadeByTheCommandsOfTheDocumentAreAccepted(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)### Buckets by hand\n.*?```sh\n(.*?)```").FindSubmatch(doc)
	if m == nil {
		t.Fatal("docs/deploy.md has no commands")
	}
	commands := strings.ReplaceAll(string(m[1]), "--replicas 3", "--replicas 1") // one server
	if strings.Count(commands, "nats kv add") != 2 {
		t.Fatalf("want the commands for two buckets: %s", commands)
	}
	s := natstest.StartAccounts(t, map[string]string{"A": "max_bytes: true"})
	sim := simulate(t, "--account="+appid+":"+secret)
	env := vars{"NATS_URL": s.URL(), "NATS_USER": "A", "NATS_PASSWORD": "only-for-this-test", "WECHAT_APPID": appid,
		"WECHAT_SECRET": secret, "WECHAT_API_URL": sim.api, "WXKEEPER_HTTP_ADDR": "none", "WXKEEPER_LOG_FORMAT": "json"}

	before := call(t, env, "", wxkeeper(t), "check")
	if before.code != exitFailure || !strings.Contains(before.out, "WXKEEPER_BUCKET_MAX_BYTES") {
		t.Errorf("check without the buckets: exit code %d\n%s", before.code, before.out)
	}
	path := filepath.Dir(natsCommand(t)) + ":/usr/bin:/bin"
	if r := call(t, env.with(vars{"PATH": path}), "", "sh", "-ec", commands); r.code != 0 {
		t.Fatalf("exit code %d: %s%s", r.code, r.out, r.err)
	}
	after := call(t, env, "", wxkeeper(t), "check")
	if after.code != exitOK || !strings.Contains(after.out, "bucket wechat_ledger has the settings that workers need") {
		t.Errorf("check with the buckets: exit code %d\n%s", after.code, after.out)
	}
	w := start(t, env, wxkeeper(t), "run")
	w.find(t, w.stderr, `"msg":"worker ready"`)
	w.find(t, w.stderr, `"msg":"credential published"`)
	if code := w.stop(t, syscall.SIGTERM); code != exitOK {
		t.Errorf("run: exit code %d", code)
	}
}
