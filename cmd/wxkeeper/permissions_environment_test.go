package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

// The verbs run with the environment of an operator.
func TestOperatorLivesByItsListAndIsRefusedTheRest(t *testing.T) {
	text := permissionsOf(t, "operator")
	g := guard(t, text)
	g.startWorker(g.as(admin))
	follow, _ := g.read(g.as(admin), kv.ReaderConfig{})
	for _, k := range messages.Kinds {
		g.await(follow, mine, k, 0)
	}
	g.await(follow, other, messages.AccessToken, 0)
	t.Setenv("NATS_URL", g.srv.URL())
	for name, value := range map[string]string{
		"NATS_USER": "operator", "NATS_PASSWORD": passphrase, "NATS_INBOX_PREFIX": "_INBOX_operator",
		"WXKEEPER_SUBJECT_PREFIX": names.SubjectPrefix, "WXKEEPER_BUCKET": names.Bucket,
	} {
		t.Setenv(name, value)
	}
	for _, args := range []string{
		"status", "status --appid wx1", "get --appid wx1", "get jsapi_ticket --appid wx1",
		"refresh --appid wx1 --revision 1", "resolve --appid wx1 o t",
	} {
		term, _, errs := screen(false)
		if code := execute(g.context(), term, strings.Fields(args)); code != exitOK {
			t.Errorf("wxkeeper %s: exit code %d: %s", args, code, errs)
		}
	}
	for _, args := range []string{"get", "refresh", "resolve o t"} { // the answer is that there are two accounts
		term, _, errs := screen(false)
		if execute(g.context(), term, strings.Fields(args)); !strings.Contains(errs.String(), "invalid_request") {
			t.Errorf("wxkeeper %s: %s", args, errs)
		}
	}
	for _, cfg := range []kv.ReaderConfig{
		{}, {AppIDs: []string{mine}, Feed: kv.FeedWatch}, {AppIDs: []string{mine, other}, Feed: kv.FeedWatch},
	} {
		r, stop := g.read(g.as("operator"), cfg)
		g.await(r, mine, messages.AccessToken, 0)
		stop()
	}
	nc := g.as("operator")
	if _, err := nc.SubscribeSync("corp.event.>"); err != nil {
		t.Error(err)
	}
	for _, subject := range []string{"$SRV.PING", "$SRV.STATS.corp"} { // nats micro
		if _, err := nc.RequestWithContext(g.context(), subject, nil); err != nil {
			t.Error(err)
		}
	}
	g.rareRequests(nc, "creds")
	g.noViolations()
	g.usesAll("operator", text)
	g.deniesPublish(nc, strings.Fields(`
		$KV.creds.wx1.access_token $KV.creds.lease.wx1.access_token $KV.creds_ledger.wx1.access_token
		$JS.API.STREAM.DELETE.KV_creds $JS.API.STREAM.PURGE.KV_creds $JS.API.STREAM.UPDATE.KV_creds $JS.API.STREAM.CREATE.KV_creds $JS.API.STREAM.LIST
		$JS.API.STREAM.MSG.GET.KV_creds $JS.API.STREAM.MSG.GET.KV_creds_ledger $JS.API.DIRECT.GET.KV_creds $JS.API.CONSUMER.LIST.KV_creds
		corp.jssdk.sign corp.card.sign corp.published.wx1.access_token corp.event.wx1.access_token.expired _INBOX_other.x orders.new`)...)
	g.deniesSubscribe(nc, strings.Fields(`> $KV.> $JS.> $SRV.> corp.> corp.code.resolve corp.published.*.* _INBOX.> _INBOX_worker.> orders.new`)...)
}

// Two lists of the permissions of a worker were written independently and must agree: what `wxkeeper
// permissions` prints, and what `wxkeeper check` tries.
func TestCheckFindsNothingMissingInTheListOfAWorker(t *testing.T) {
	g := guard(t, permissionsOf(t, "worker"))
	g.startWorker(g.as(admin))
	t.Setenv("NATS_URL", g.srv.URL())
	t.Setenv("WXKEEPER_HTTP_ADDR", "none")
	for name, value := range map[string]string{
		"NATS_USER": "worker", "NATS_PASSWORD": passphrase, "NATS_INBOX_PREFIX": "_INBOX_worker",
		"WXKEEPER_SUBJECT_PREFIX": names.SubjectPrefix, "WXKEEPER_BUCKET": names.Bucket,
	} {
		t.Setenv(name, value)
	}
	term, out, errs := screen(false)
	if code := execute(g.context(), term, []string{"check"}); code != exitOK {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if !strings.Contains(out.String(), "\nok    permissions   this NATS user may use every subject") {
		t.Errorf("a permission is missing:\n%s", out)
	}
}

// The password comes from a variable of the server's environment: in quotes, or as a bcrypt hash.
func TestPrintedUserTakesItsPasswordFromTheEnvironment(t *testing.T) {
	t.Setenv("SHOP_1_PASSWORD", "")
	text := permissionsOf(t, "resolver", "appid=wx1", "user=shop-1") + "authorization: { users: [$user_shop-1] }\n"
	const hash = "$2a$04$l/Y1Mdd1Rj0HzYBmjGE3teRAZKYGDWvhfb8oVM0xHnU1oNIYHkCkO"
	for set, want := range map[string]string{`"0123"`: "0123", hash: hash} {
		t.Setenv("SHOP_1_PASSWORD", set)
		var o server.Options
		if err := o.ProcessConfigString(text); err != nil {
			t.Fatal(err)
		}
		if len(o.Users) != 1 || o.Users[0].Username != "shop-1" || o.Users[0].Password != want {
			t.Errorf("%s: %+v", set, o.Users)
		}
	}
}

// The examples of docs/security.md include the files in the right way.
func TestFilesAreIncludedAsTheDocumentSays(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("WORKER_PASSWORD", `"p"`)
	t.Setenv("SHOP_PASSWORD", `"p"`)
	t.Setenv("OPERATOR_PASSWORD", `"p"`)
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("worker.conf", permissionsOf(t, "worker"))
	write("shop.conf", permissionsOf(t, "direct resolver", "appid=wx1", "user=shop"))
	write("operator.conf", permissionsOf(t, "operator"))
	doc, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	confs := regexp.MustCompile("(?s)```conf\n([^`]*include worker.conf[^`]*)```").FindAllStringSubmatch(string(doc),
		-1)
	if len(confs) != 2 {
		t.Fatalf("docs/security.md has %d examples", len(confs))
	}
	confs[1][1] += permissionsOf(t, "accounts", "user=shop")
	for i, m := range confs {
		o, err := server.ProcessConfigFile(write("nats-server.conf", m[1]))
		if err != nil {
			t.Fatalf("%v\n%s", err, m[1])
		}
		if len(o.Users) != 3-i || slices.ContainsFunc(o.Users,
			func(u *server.User) bool { return u.Permissions == nil }) {
			t.Errorf("%d users with\n%s", len(o.Users), m[1])
		}
	}
}
