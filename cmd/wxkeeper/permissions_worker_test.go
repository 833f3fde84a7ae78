package main

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

func TestWorkerLivesByItsList(t *testing.T) {
	t.Parallel()
	text := printed(t, "worker")
	g := guard(t, text)
	boss := g.as(admin)
	events, err := boss.SubscribeSync("corp.event.>")
	if err != nil {
		t.Fatal(err)
	}
	nc := g.as("worker")
	s := g.hire(nc) // makes the buckets
	follow, _ := g.read(boss, kv.ReaderConfig{})
	for _, k := range messages.Kinds {
		g.has(follow, mine, k, 0)
	}
	g.has(follow, other, messages.AccessToken, 0)
	if _, err := events.NextMsgWithContext(g.context()); err != nil {
		t.Error("no event:", err)
	}

	// It answers, on both subjects of each endpoint, and to `nats micro`.
	for _, ask := range []struct{ subject, body string }{
		{"code.resolve", `{"appid":"wx1","openid":"o","code_ticket":"t"}`}, {"code.resolve.wx1", `{"openid":"o","code_ticket":"t"}`},
		{"credential.get", `{"appid":"wx1"}`}, {"credential.get.wx1", ``}, {"status", ``}, {"status.wx1", ``},
		{"jssdk.sign", `{"appid":"wx1","url":"https://a.example/"}`}, {"jssdk.sign.wx1", `{"url":"https://a.example/"}`},
		{"card.sign", `{"appid":"wx1","card_id":"c"}`}, {"card.sign.wx1", `{"card_id":"c"}`},
		{"credential.refresh", `{"appid":"wx1","revision":1}`}, {"credential.refresh.wx1", `{"revision":1}`},
	} {
		m, err := boss.RequestWithContext(g.context(), "corp."+ask.subject, []byte(ask.body))
		if err != nil || m.Header.Get("Nats-Service-Error") != "" {
			t.Errorf("%s: %v %v", ask.subject, err, m)
		}
	}
	for _, subject := range []string{"$SRV.PING", "$SRV.INFO.corp", "$SRV.STATS.corp"} {
		if _, err := boss.RequestWithContext(g.context(), subject, nil); err != nil {
			t.Errorf("%s: %v", subject, err)
		}
	}
	// A report: it takes a lease, writes the ledger, publishes.
	g.renewed(s, boss, follow, other)
	// A lease that was given back a moment ago.
	st, err := store.New(nc, store.Config{Bucket: house.Bucket, SubjectPrefix: house.SubjectPrefix, Worker: "w"})
	if err == nil {
		err = st.Ensure(g.context())
	}
	for range 2 {
		var lease store.Lease
		if err == nil {
			lease, err = st.Acquire(g.context(), "wx3", messages.AccessToken, time.Second)
		}
		if err == nil {
			lease.Release(g.context())
		}
	}
	if err != nil {
		t.Fatal(err)
	}

	// What is purged, or deleted, comes back.
	js := g.js()
	for _, bucket := range []string{"creds", "creds_ledger"} {
		st, err := js.Stream(g.context(), "KV_"+bucket)
		if err == nil {
			err = st.Purge(g.context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	g.comeBack(js)
	for _, bucket := range []string{"creds", "creds_ledger"} {
		if err := js.DeleteKeyValue(g.context(), bucket); err != nil {
			t.Fatal(err)
		}
	}
	g.comeBack(js)
	g.restart(nc, boss)
	g.seldom(nc, "creds", "creds_ledger")
	if _, err := messages.NewClient(boss, "corp").Status(g.context(), messages.StatusRequest{}); err != nil {
		t.Error(err)
	}
	s.stop()
	if err := nc.Drain(); err != nil {
		t.Error(err)
	}
	g.unhindered()
	g.needed("worker", text)
}

// comeBack waits until the buckets have an entry of the second account.
func (g *guarded) comeBack(js jetstream.JetStream) {
	g.Helper()
	ctx := g.context()
	for _, bucket := range []string{"creds", "creds_ledger"} {
		for there := false; !there; {
			b, err := js.KeyValue(ctx, bucket)
			if err == nil {
				_, err = b.Get(ctx, messages.Key(other, messages.AccessToken))
			}
			there = err == nil
			select {
			case <-ctx.Done():
				g.Fatalf("%s does not come back: %v; refused: %q", bucket, err, g.log.refusals(0))
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

func TestWorkerIsRefusedWhatIsNotItsWork(t *testing.T) {
	t.Parallel()
	g := guard(t, printed(t, "worker"))
	nc := g.as("worker")
	g.refusesTo(nc, strings.Fields(`
		$JS.API.STREAM.UPDATE.KV_creds $JS.API.STREAM.DELETE.KV_creds $JS.API.STREAM.PURGE.KV_creds $JS.API.STREAM.DELETE.KV_creds_ledger
		$JS.API.STREAM.CREATE.ORDERS $JS.API.STREAM.INFO.ORDERS $JS.API.STREAM.MSG.GET.ORDERS $JS.API.STREAM.LIST $JS.API.STREAM.NAMES
		$JS.API.DIRECT.GET.KV_creds $JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.access_token
		$JS.API.CONSUMER.LIST.KV_creds $JS.API.CONSUMER.NAMES.KV_creds $JS.API.CONSUMER.CREATE.KV_creds $JS.API.CONSUMER.CREATE.KV_creds.c
		$JS.API.CONSUMER.CREATE.ORDERS.c.orders.new $JS.API.CONSUMER.MSG.NEXT.ORDERS.c
		$KV.orders.a.b $KV.creds.a orders.new corp.code.resolve corp.published.wx1.access_token _INBOX_other.x _INBOX.x $SRV.PING $SYS.REQ.SERVER.PING`)...)
	g.refusesToHear(nc, strings.Fields(`> $KV.> $JS.> corp.> corp.event.> orders.new _INBOX.> _INBOX_other.> $SYS.>`)...)
	// One reply to each request, and to nothing else.
	boss := g.as(admin)
	if _, err := nc.Subscribe("corp.status", func(m *nats.Msg) { _ = m.Respond(nil); _ = m.Respond(nil) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	inbox := boss.NewRespInbox()
	g.refuses(nc, inbox, func() error { return boss.PublishRequest("corp.status", inbox, nil) })
}
