package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

// twoAccounts starts a server with workers and consumers in two NATS accounts. Besides the users of the
// lists, each account has a user without limits.
func twoAccounts(t *testing.T, shop string) *guarded {
	t.Helper()
	accounts := permissionsOf(t, "accounts", "user=shop")
	for list, user := range map[string]string{"[$user_worker]": admin, "[$user_shop]": "unlimited"} {
		if !strings.Contains(accounts, list) {
			t.Fatalf("no %s in\n%s", list, accounts)
		}
		accounts = strings.Replace(accounts, list,
			strings.TrimSuffix(list, "]")+", { user: "+user+", password: "+passphrase+" }]", 1)
	}
	return guardConf(t, permissionsOf(t, "worker")+shop+accounts)
}

func TestTwoAccountsGiveConsumersWhatIsExportedAndNothingElse(t *testing.T) {
	t.Parallel()
	g := twoAccounts(t, permissionsOf(t, "direct resolver signer", "appid=wx1", "user=shop"))
	s := g.startWorker(g.as("worker"))
	nc := g.as("shop")
	cfg := kv.ReaderConfig{AppIDs: []string{mine}, Feed: kv.FeedDirect}
	r, _ := g.read(nc, cfg)
	for _, k := range messages.Kinds {
		g.await(r, mine, k, 0)
	}
	unlimited := g.as("unlimited")
	events, err := unlimited.SubscribeSync("corp.event.wx1.access_token.refreshed")
	if err == nil {
		err = unlimited.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	g.awaitRefreshed(s, nc, r, mine)
	if _, err := events.NextMsgWithContext(g.context()); err != nil {
		t.Error("no event:", err)
	}
	ask := messages.NewClient(nc, names.SubjectPrefix)
	if _, err := ask.ResolveCode(g.context(),
		messages.ResolveCodeRequest{AppID: mine, OpenID: "o", CodeTicket: "t"}); err != nil {
		t.Error(err)
	}
	if _, err := ask.SignJSSDK(g.context(),
		messages.SignJSSDKRequest{AppID: mine, URL: "https://a.example/"}); err != nil {
		t.Error(err)
	}
	if _, err := ask.SignCard(g.context(), messages.SignCardRequest{AppID: mine, CardID: "c"}); err != nil {
		t.Error(err)
	}
	g.noViolations()
	g.deniesPublish(nc, neverPublish[:4]...)
	g.deniesPublish(nc, notOfOneAccount...)
	g.deniesPublish(nc, "corp.code.resolve.wx2", "$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx2.access_token")
	g.deniesSubscribe(nc, neverSubscribe...)
}

// A user of the consumers' account without a list of permissions: the boundary is the account, not the list.
func TestTwoAccountsKeepEvenAUserWithoutLimitsOutOfTheBucket(t *testing.T) {
	t.Parallel()
	g := twoAccounts(t, permissionsOf(t, "direct", "appid=wx1", "user=shop"))
	g.startWorker(g.as("worker"))
	root, unlimited := g.as(admin), g.as("unlimited")
	follow, _ := g.read(root, kv.ReaderConfig{})
	record := g.await(follow, other, messages.AccessToken, 0)
	for _, k := range messages.Kinds {
		g.await(follow, mine, k, 0)
	}
	js, err := jetstream.New(root)
	if err != nil {
		t.Fatal(err)
	}
	st, err := js.Stream(g.context(), "KV_creds")
	if err != nil {
		t.Fatal(err)
	}
	// No worker receives its requests without an AppID in the subject, and JetStream does not receive its requests.
	for _, subject := range strings.Fields(`corp.status corp.credential.get corp.credential.get.wx1 corp.code.resolve $SRV.PING
		$JS.API.STREAM.INFO.KV_creds $JS.API.CONSUMER.CREATE.KV_creds.c.$KV.creds.wx1.* $JS.API.STREAM.MSG.GET.KV_creds
		$JS.API.DIRECT.GET.KV_creds`) {
		m, err := unlimited.RequestWithContext(g.context(), subject, []byte(`{}`))
		if err == nil && !strings.Contains(string(m.Data), "not enabled for account") {
			t.Errorf("%s: %s", subject, m.Data)
		}
	}
	// It receives neither requests to workers nor replies to the admin.
	received, err := unlimited.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := unlimited.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := messages.NewClient(root, "corp").ResolveCode(g.context(),
		messages.ResolveCodeRequest{AppID: other, OpenID: "o", CodeTicket: "t"}); err != nil {
		t.Fatal(err)
	}
	// It writes nothing: its messages stay in its account, and so do the replies to its requests, whatever
	// their subject.
	for _, subject := range []string{"$KV.creds.wx2.access_token", "$KV.creds.lease.wx2.jsapi_ticket"} {
		if err := unlimited.Publish(subject, []byte("junk")); err != nil {
			t.Fatal(err)
		}
		if err := unlimited.PublishRequest("$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.access_token", subject,
			nil); err != nil {
			t.Fatal(err)
		}
		if err := unlimited.PublishRequest("corp.code.resolve.wx1", subject,
			[]byte(`{"openid":"o","code_ticket":"t"}`)); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < 3; { // its own message, the record and the code arrive in its account
			m, err := received.NextMsgWithContext(g.context())
			switch {
			case err != nil:
				t.Fatal(err)
			case m.Subject == subject:
				n++
			case m.Subject == "corp.code.resolve.wx2", strings.HasPrefix(m.Subject, "_INBOX."): // the admin's
				t.Errorf("it receives %s", m.Subject)
			}
		}
	}
	if m, err := st.GetLastMsgForSubject(g.context(), "$KV.creds.wx2.access_token"); err != nil ||
		m.Sequence != record.Revision {
		t.Errorf("the record was overwritten: %v, %v", m, err)
	}
	if m, err := st.GetLastMsgForSubject(g.context(), "$KV.creds.lease.wx2.jsapi_ticket"); !errors.Is(err,
		jetstream.ErrMsgNotFound) {
		t.Errorf("a lease was written: %v, %v", m, err)
	}
}

// docs/permissions.md describes what NATS cannot deny within one account. If this test fails, NATS can deny it now.
func TestInOneAccountAReplyGoesWhereItsAskerMayNotPublish(t *testing.T) {
	t.Parallel()
	g := guard(t, permissionsOf(t, "direct resolver", "appid=wx1", "user=shop"),
		permissionsOf(t, "watcher", "appid=wx1", "user=eye"))
	g.startWorker(g.as(admin))
	root, shop, eye := g.as(admin), g.as("shop"), g.as("eye")
	follow, _ := g.read(root, kv.ReaderConfig{})
	g.await(follow, other, messages.AccessToken, 0)
	g.await(follow, mine, messages.AccessToken, 0)
	elsewhere, err := root.SubscribeSync("orders.new")
	if err != nil {
		t.Fatal(err)
	}
	if err := root.Flush(); err != nil {
		t.Fatal(err)
	}
	arrives := func(what string) {
		t.Helper()
		if _, err := elsewhere.NextMsgWithContext(g.context()); err != nil {
			t.Errorf("%s does not arrive: %v", what, err)
		}
	}
	const get = "$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.access_token"
	send := func(nc *nats.Conn, subject, reply, body string) {
		t.Helper()
		if err := nc.PublishRequest(subject, reply, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	send(shop, get, "orders.new", "")
	arrives("a record of the bucket, as a reply")
	send(shop, "corp.code.resolve.wx1", "orders.new", `{"openid":"o","code_ticket":"t"}`)
	arrives("a code, as a reply")
	send(eye, "$JS.API.CONSUMER.CREATE.KV_creds.c.$KV.creds.wx1.*", eye.NewRespInbox(),
		`{"stream_name":"KV_creds","config":{"name":"c","ack_policy":"none","deliver_policy":"all","filter_subject":"$KV.creds.wx1.*","deliver_subject":"orders.new"},"action":""}`)
	arrives("a message that a consumer delivers")

	// Into the bucket: a reply overwrites the record of another account, and no Reader accepts it as a
	// record. The worker publishes the record again. (The reply is that there is no record: a record would
	// carry the fence of its own lease.)
	b, err := g.js().KeyValue(g.context(), "creds")
	if err != nil {
		t.Fatal(err)
	}
	w, err := b.Watch(g.context(), "wx2.access_token")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Stop() }()
	send(shop, "$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.nothing", "$KV.creds.wx2.access_token", "")
	late := time.After(patience)
	for overwritten := false; ; {
		select {
		case e := <-w.Updates():
			if e == nil {
				continue
			}
			if ours := strings.Contains(string(e.Value()), `"wx2"`); !ours {
				overwritten = true
			} else if overwritten {
				g.noViolations()
				return
			}
		case <-late:
			t.Fatalf("overwritten: %t, but never published again", overwritten)
		}
	}
}
