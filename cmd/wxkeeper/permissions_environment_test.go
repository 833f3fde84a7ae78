package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/permissions"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

// asUser runs verbs with the environment of a user, except for its inbox. They must succeed.
func (g *guarded) asUser(t *testing.T, user string, verbs ...string) {
	t.Helper()
	for name, value := range g.environment(user) {
		t.Setenv(name, value)
	}
	for _, args := range verbs {
		term, _, errs := screen(false)
		if code := execute(g.context(), term, strings.Fields(args)); code != exitOK {
			t.Errorf("wxkeeper %s: exit code %d: %s", args, code, errs)
		}
	}
}

// operates sends every request of an operator.
func (g *guarded) operates(nc *nats.Conn) {
	g.Helper()
	ask := messages.NewClient(nc, names.SubjectPrefix)
	ctx := g.context()
	var errs [3]error
	_, errs[0] = ask.Status(ctx, messages.StatusRequest{})
	_, errs[1] = ask.Status(ctx, messages.StatusRequest{AppID: mine})
	_, errs[2] = ask.RefreshCredential(ctx, messages.RefreshCredentialRequest{AppID: mine, Revision: 1})
	// A request without an AppID in the subject; the answer is that there are two accounts.
	_, err := ask.RefreshCredential(ctx, messages.RefreshCredentialRequest{Revision: 1})
	var refusal *messages.Error
	if !errors.As(err, &refusal) || refusal.Symbol != messages.InvalidRequest {
		errs[2] = errors.Join(errs[2], fmt.Errorf("a report without an AppID: %w", err))
	}
	if err := errors.Join(errs[:]...); err != nil {
		g.Errorf("%v; violations: %q", err, g.log.violations(0))
	}
}

func TestOperatorLivesByItsListAndIsRefusedTheRest(t *testing.T) {
	text := permissionsOf(t, "operator")
	g := guard(t, text)
	s := g.startWorker(g.as(admin))
	follow, _ := g.read(g.as(admin), kv.ReaderConfig{})
	for _, k := range messages.Kinds {
		g.await(follow, mine, k, 0)
	}
	g.await(follow, other, messages.AccessToken, 0)
	nc := g.as("operator")
	events := g.subscribe(nc, "corp.event.>")
	g.awaitRefreshed(s, nc, follow, mine)
	g.receives(events)
	g.operates(nc)
	t.Setenv("NATS_INBOX_PREFIX", permissions.Inbox("operator"))
	g.asUser(t, "operator", "status", "status --appid wx1", "refresh --appid wx1 --revision 1")
	g.noViolations()
	g.usesAll("operator", text)
	g.deniesPublish(nc, without(neverPublish, "corp.status", "corp.status.wx1")...)
	g.deniesPublish(nc, notWithoutFeed...)
	g.deniesPublish(nc, "$JS.API.STREAM.INFO.KV_creds", "$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.access_token",
		"corp.code.resolve.wx1", "corp.jssdk.sign.wx1", "corp.card.sign.wx1")
	g.deniesSubscribe(nc, without(neverSubscribe, "corp.event.>")...)
}

func TestMicroLivesByItsListAndIsRefusedTheRest(t *testing.T) {
	t.Parallel()
	text := permissionsOf(t, "micro")
	g := guard(t, text)
	g.startWorker(g.as(admin))
	nc := g.as("micro")
	g.findsWorkers(nc)
	g.noViolations()
	g.usesAll("micro", text)
	g.deniesPublish(nc, without(neverPublish, "$SRV.PING", "$SRV.INFO.corp")...)
	g.deniesPublish(nc, notOfOneAccount...)
	g.deniesPublish(nc, notWithoutFeed...)
	g.deniesSubscribe(nc, neverSubscribe...)
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
	code := execute(g.context(), term, []string{"check"})
	if code != exitUsage || strings.Count(out.String(), "FAIL") != 1 { // no account is configured
		t.Errorf("exit code %d: %s%s", code, out, errs)
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
	write("shop.conf", permissionsOf(t, "requester", "appid=wx1", "user=shop"))
	write("operator.conf", permissionsOf(t, "operator"))
	doc, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	conf := regexp.MustCompile("(?s)```conf\n([^`]*include worker.conf[^`]*)```").FindSubmatch(doc)
	authorization := regexp.MustCompile("`(authorization: [^`]*)`").FindSubmatch(doc)
	if conf == nil || authorization == nil {
		t.Fatal("docs/security.md lacks an example")
	}
	for _, end := range []string{permissionsOf(t, "accounts", "user=shop", "user=operator"), string(authorization[1])} {
		text := string(conf[1]) + end
		o, err := server.ProcessConfigFile(write("nats-server.conf", text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if len(o.Users) != 3 || slices.ContainsFunc(o.Users,
			func(u *server.User) bool { return u.Permissions == nil }) {
			t.Errorf("%d users with\n%s", len(o.Users), text)
		}
	}
}
