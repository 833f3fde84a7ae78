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

// apart is a server with workers and consumers in two NATS accounts; besides those of the lists, each account has a user
// without limits.
func apart(t *testing.T, shop string) *guarded {
	t.Helper()
	accounts := printed(t, "accounts", "user=shop")
	for list, boss := range map[string]string{"[$user_worker]": admin, "[$user_shop]": "chief"} {
		if !strings.Contains(accounts, list) {
			t.Fatalf("no %s in\n%s", list, accounts)
		}
		accounts = strings.Replace(accounts, list, strings.TrimSuffix(list, "]")+", { user: "+boss+", password: "+passphrase+" }]", 1)
	}
	return guardConf(t, printed(t, "worker")+shop+accounts)
}

func TestTwoAccountsGiveConsumersWhatIsExportedAndNothingElse(t *testing.T) {
	t.Parallel()
	g := apart(t, printed(t, "direct resolver signer", "appid=wx1", "user=shop"))
	s := g.hire(g.as("worker"))
	nc := g.as("shop")
	cfg := kv.ReaderConfig{AppIDs: []string{mine}, Direct: true}
	r, _ := g.read(nc, cfg)
	for _, k := range messages.Kinds {
		g.has(r, mine, k, 0)
	}
	chief := g.as("chief")
	events, err := chief.SubscribeSync("corp.event.wx1.access_token.refreshed")
	if err == nil {
		err = chief.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	g.renewed(s, nc, r, mine)
	if _, err := events.NextMsgWithContext(g.context()); err != nil {
		t.Error("no event:", err)
	}
	ask := messages.NewClient(nc, house.SubjectPrefix)
	if _, err := ask.ResolveCode(g.context(), messages.ResolveCodeRequest{AppID: mine, OpenID: "o", CodeTicket: "t"}); err != nil {
		t.Error(err)
	}
	if _, err := ask.SignJSSDK(g.context(), messages.SignJSSDKRequest{AppID: mine, URL: "https://a.example/"}); err != nil {
		t.Error(err)
	}
	if _, err := ask.SignCard(g.context(), messages.SignCardRequest{AppID: mine, CardID: "c"}); err != nil {
		t.Error(err)
	}
	g.unhindered()
	g.refusesTo(nc, never[:4]...)
	g.refusesTo(nc, ofOneAccount...)
	g.refusesTo(nc, "corp.code.resolve.wx2", "$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx2.access_token")
	g.refusesToHear(nc, neverHeard...)
}

// A user of the consumers' account whom no list limits: the wall is the account, not the list.
func TestTwoAccountsKeepEvenAUserWithoutLimitsOutOfTheBucket(t *testing.T) {
	t.Parallel()
	g := apart(t, printed(t, "direct", "appid=wx1", "user=shop"))
	g.hire(g.as("worker"))
	boss, chief := g.as(admin), g.as("chief")
	follow, _ := g.read(boss, kv.ReaderConfig{})
	record := g.has(follow, other, messages.AccessToken, 0)
	for _, k := range messages.Kinds {
		g.has(follow, mine, k, 0)
	}
	js, err := jetstream.New(boss)
	if err != nil {
		t.Fatal(err)
	}
	st, err := js.Stream(g.context(), "KV_creds")
	if err != nil {
		t.Fatal(err)
	}
	// Nobody hears what it asks of workers without an account, and of JetStream.
	for _, subject := range strings.Fields(`corp.status corp.credential.get corp.credential.get.wx1 corp.code.resolve $SRV.PING
		$JS.API.STREAM.INFO.KV_creds $JS.API.CONSUMER.CREATE.KV_creds.c.$KV.creds.wx1.* $JS.API.STREAM.MSG.GET.KV_creds
		$JS.API.DIRECT.GET.KV_creds`) {
		m, err := chief.RequestWithContext(g.context(), subject, []byte(`{}`))
		if err == nil && !strings.Contains(string(m.Data), "not enabled for account") {
			t.Errorf("%s: %s", subject, m.Data)
		}
	}
	// It hears nothing of what workers are asked, or the admin is told.
	heard, err := chief.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := chief.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := messages.NewClient(boss, "corp").ResolveCode(g.context(), messages.ResolveCodeRequest{AppID: other, OpenID: "o", CodeTicket: "t"}); err != nil {
		t.Fatal(err)
	}
	// It writes nothing: what it sends stays in its account, and so does the reply to a request, wherever it is to go.
	for _, subject := range []string{"$KV.creds.wx2.access_token", "$KV.creds.lease.wx2.jsapi_ticket"} {
		if err := chief.Publish(subject, []byte("junk")); err != nil {
			t.Fatal(err)
		}
		if err := chief.PublishRequest("$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.access_token", subject, nil); err != nil {
			t.Fatal(err)
		}
		if err := chief.PublishRequest("corp.code.resolve.wx1", subject, []byte(`{"openid":"o","code_ticket":"t"}`)); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < 3; { // its own message, the record, the code: they arrive here
			m, err := heard.NextMsgWithContext(g.context())
			switch {
			case err != nil:
				t.Fatal(err)
			case m.Subject == subject:
				n++
			case m.Subject == "corp.code.resolve.wx2", strings.HasPrefix(m.Subject, "_INBOX."): // the admin's
				t.Errorf("it hears %s", m.Subject)
			}
		}
	}
	if m, err := st.GetLastMsgForSubject(g.context(), "$KV.creds.wx2.access_token"); err != nil || m.Sequence != record.Revision {
		t.Errorf("the record was written over: %v, %v", m, err)
	}
	if m, err := st.GetLastMsgForSubject(g.context(), "$KV.creds.lease.wx2.jsapi_ticket"); !errors.Is(err, jetstream.ErrMsgNotFound) {
		t.Errorf("a lease was written: %v, %v", m, err)
	}
}

// What docs/security.md says that NATS cannot refuse in one account. Where one of these fails, NATS has learnt it.
func TestInOneAccountAReplyGoesWhereItsAskerMayNotPublish(t *testing.T) {
	t.Parallel()
	g := guard(t, printed(t, "direct resolver", "appid=wx1", "user=shop"), printed(t, "watcher", "appid=wx1", "user=eye"))
	g.hire(g.as(admin))
	boss, shop, eye := g.as(admin), g.as("shop"), g.as("eye")
	follow, _ := g.read(boss, kv.ReaderConfig{})
	g.has(follow, other, messages.AccessToken, 0)
	g.has(follow, mine, messages.AccessToken, 0)
	elsewhere, err := boss.SubscribeSync("orders.new")
	if err != nil {
		t.Fatal(err)
	}
	if err := boss.Flush(); err != nil {
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
	arrives("what a consumer delivers")

	// Into the bucket: the record of another account is written over, with an answer that no Reader takes for one. The
	// worker puts it back. (The answer is that there is nothing: a record would carry the fence of its own lease.)
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
	late := time.After(soon)
	for over := false; ; {
		select {
		case e := <-w.Updates():
			if e == nil {
				continue
			}
			if ours := strings.Contains(string(e.Value()), `"wx2"`); !ours {
				over = true
			} else if over {
				g.unhindered()
				return
			}
		case <-late:
			t.Fatalf("written over: %v, and never put back", over)
		}
	}
}
