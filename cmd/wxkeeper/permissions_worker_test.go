package main

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

func TestWorkerLivesByItsList(t *testing.T) {
	t.Parallel()
	text := permissionsOf(t, "worker")
	g := guard(t, text)
	root := g.as(admin)
	events, err := root.SubscribeSync("corp.event.>")
	if err != nil {
		t.Fatal(err)
	}
	nc := g.as("worker")
	s := g.startWorker(nc) // it creates the buckets
	follow, _ := g.read(root, kv.ReaderConfig{})
	for _, k := range messages.Kinds {
		g.await(follow, mine, k, 0)
	}
	g.await(follow, other, messages.AccessToken, 0)
	if _, err := events.NextMsgWithContext(g.context()); err != nil {
		t.Error("no event:", err)
	}

	// It answers on both subjects of each endpoint, and answers `nats micro`.
	for _, ask := range []struct{ subject, body string }{
		{"code.resolve", `{"appid":"wx1","openid":"o","code_ticket":"t"}`},
		{"code.resolve.wx1", `{"openid":"o","code_ticket":"t"}`},
		{"credential.get", `{"appid":"wx1"}`}, {"credential.get.wx1", ``}, {"status", ``}, {"status.wx1", ``},
		{"jssdk.sign", `{"appid":"wx1","url":"https://a.example/"}`},
		{"jssdk.sign.wx1", `{"url":"https://a.example/"}`},
		{"card.sign", `{"appid":"wx1","card_id":"c"}`}, {"card.sign.wx1", `{"card_id":"c"}`},
		{"credential.refresh", `{"appid":"wx1","revision":1}`}, {"credential.refresh.wx1", `{"revision":1}`},
	} {
		m, err := root.RequestWithContext(g.context(), "corp."+ask.subject, []byte(ask.body))
		if err != nil || m.Header.Get("Nats-Service-Error") != "" {
			t.Errorf("%s: %v %v", ask.subject, err, m)
		}
	}
	for _, subject := range []string{"$SRV.PING", "$SRV.INFO.corp", "$SRV.STATS.corp"} {
		if _, err := root.RequestWithContext(g.context(), subject, nil); err != nil {
			t.Errorf("%s: %v", subject, err)
		}
	}
	// For a report it takes a lease, writes the ledger, and publishes.
	g.awaitRefreshed(s, root, follow, other)
	// It takes a lease that was released just before.
	st, err := store.New(nc, store.Config{Bucket: names.Bucket, SubjectPrefix: names.SubjectPrefix, Worker: "w",
		Keys: func(appid string) []seal.Key { return []seal.Key{seal.New(appid, "secret")} }})
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

	// It restores what was purged or deleted.
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
	g.awaitRestored(js)
	for _, bucket := range []string{"creds", "creds_ledger"} {
		if err := js.DeleteKeyValue(g.context(), bucket); err != nil {
			t.Fatal(err)
		}
	}
	g.awaitRestored(js)
	g.restart(nc, root)
	g.rareRequests(nc, "creds", "creds_ledger")
	if _, err := messages.NewClient(root, "corp").Status(g.context(), messages.StatusRequest{}); err != nil {
		t.Error(err)
	}
	s.stop()
	if err := nc.Drain(); err != nil {
		t.Error(err)
	}
	g.noViolations()
	g.usesAll("worker", text)
}

// awaitRestored waits until the buckets have an entry of the second account.
func (g *guarded) awaitRestored(js jetstream.JetStream) {
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
				g.Fatalf("%s is not restored: %v; violations: %q", bucket, err, g.log.violations(0))
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

func TestWorkerIsRefusedWhatIsNotItsWork(t *testing.T) {
	t.Parallel()
	g := guard(t, permissionsOf(t, "worker"))
	nc := g.as("worker")
	g.deniesPublish(nc, strings.Fields(`
		$JS.API.STREAM.UPDATE.KV_creds $JS.API.STREAM.DELETE.KV_creds $JS.API.STREAM.PURGE.KV_creds $JS.API.STREAM.DELETE.KV_creds_ledger
		$JS.API.STREAM.CREATE.ORDERS $JS.API.STREAM.INFO.ORDERS $JS.API.STREAM.MSG.GET.ORDERS $JS.API.STREAM.LIST
		$JS.API.DIRECT.GET.KV_creds $JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.access_token
		$JS.API.CONSUMER.LIST.KV_creds $JS.API.CONSUMER.NAMES.KV_creds $JS.API.CONSUMER.CREATE.KV_creds $JS.API.CONSUMER.CREATE.KV_creds.c
		$JS.API.CONSUMER.CREATE.ORDERS.c.orders.new $JS.API.CONSUMER.MSG.NEXT.ORDERS.c
		$KV.orders.a.b $KV.creds.a orders.new corp.code.resolve corp.published.wx1.access_token _INBOX_other.x _INBOX.x $SRV.PING $SYS.REQ.SERVER.PING`)...)
	g.deniesSubscribe(nc, strings.Fields(`> $KV.> $JS.> corp.> corp.event.> orders.new _INBOX.> _INBOX_other.> $SYS.>`)...)
	// It may send one reply to each request, and nothing else to that subject.
	root := g.as(admin)
	if _, err := nc.Subscribe("corp.status", func(m *nats.Msg) { _ = m.Respond(nil); _ = m.Respond(nil) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	inbox := root.NewRespInbox()
	g.denies(nc, inbox, func() error { return root.PublishRequest("corp.status", inbox, nil) })
}
