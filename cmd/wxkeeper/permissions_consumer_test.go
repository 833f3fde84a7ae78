package main

import (
	"context"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

// follows lets a Reader live through what happens to one: it starts, sees a change, reports a dead token, loses its
// connection, and the bucket is lost.
func (g *guarded) follows(user string, cfg kv.ReaderConfig) {
	g.Helper()
	s := g.hire(g.as(admin))
	nc := g.as(user)
	changes := make(chan kv.Change, 1024)
	told := cfg
	told.OnChange = func(c kv.Change) { changes <- c }
	r, stop := g.read(nc, told)
	for _, k := range messages.Kinds {
		g.has(r, mine, k, 0)
	}
	g.renewed(s, nc, r, mine)

	g.restart(nc)
	// A Reader that begins after the restart sees what is there; the other sees the next change.
	again, _ := g.read(nc, cfg)
	ticket := g.has(again, mine, messages.JSAPITicket, 0)
	b, err := g.js().KeyValue(g.context(), house.Bucket)
	if err == nil {
		err = b.Delete(g.context(), messages.Key(mine, messages.JSAPITicket)) // the worker publishes it again
	}
	if err != nil {
		g.Fatal(err)
	}
	for late := g.context(); ; {
		select {
		case c := <-changes:
			if c.Kind == messages.JSAPITicket && c.Record != nil && c.Revision > ticket.Revision {
				stop()
				g.unhindered()
				return
			}
		case <-late.Done():
			g.Fatalf("no change came after the restart; refused: %q", g.log.refusals(0))
		}
	}
}

// never is what no user of a consumer may publish.
var never = strings.Fields(`
	$KV.creds.wx1.access_token $KV.creds.wx2.access_token $KV.creds.lease.wx1.access_token $KV.creds_ledger.wx1.access_token
	$JS.API.INFO $JS.API.STREAM.NAMES $JS.API.STREAM.LIST $JS.API.STREAM.INFO.KV_creds_ledger
	$JS.API.STREAM.CREATE.KV_creds $JS.API.STREAM.UPDATE.KV_creds $JS.API.STREAM.DELETE.KV_creds $JS.API.STREAM.PURGE.KV_creds
	$JS.API.STREAM.MSG.GET.KV_creds $JS.API.STREAM.MSG.DELETE.KV_creds $JS.API.STREAM.SNAPSHOT.KV_creds
	$JS.API.DIRECT.GET.KV_creds $JS.API.DIRECT.GET.KV_creds.$KV.creds.wx2.access_token $JS.API.DIRECT.GET.KV_creds.$KV.creds.>
	$JS.API.CONSUMER.NAMES.KV_creds $JS.API.CONSUMER.LIST.KV_creds
	$JS.API.CONSUMER.CREATE.KV_creds $JS.API.CONSUMER.DURABLE.CREATE.KV_creds.c
	$JS.API.CONSUMER.CREATE.KV_creds.c.$KV.creds.> $JS.API.CONSUMER.CREATE.KV_creds_ledger.c.$KV.creds_ledger.wx1.access_token
	corp.credential.get corp.credential.get.wx1 corp.credential.get.wx2 corp.status corp.status.wx1
	corp.code.resolve corp.code.resolve.wx2 corp.jssdk.sign corp.jssdk.sign.wx2 corp.card.sign corp.card.sign.wx2
	corp.published.wx1.access_token corp.event.wx1.access_token.expired $SRV.PING $SRV.INFO.corp
	_INBOX_worker.x _INBOX_other.x _INBOX.x orders.new`)

// ofOneAccount is what no user of one account may publish besides.
var ofOneAccount = strings.Fields(`
	$JS.API.STREAM.INFO.KV_creds $JS.API.CONSUMER.CREATE.KV_creds.c $JS.API.CONSUMER.CREATE.KV_creds.c.$KV.creds.wx2.* $JS.API.CONSUMER.CREATE.KV_creds.c.$KV.creds.*.*
	corp.credential.refresh corp.credential.refresh.wx2`)

// ofTheFeed is what a user who follows nothing may not publish besides.
var ofTheFeed = strings.Fields(`
	$JS.API.CONSUMER.CREATE.KV_creds.c.$KV.creds.wx1.* $JS.API.CONSUMER.MSG.NEXT.KV_creds.c $JS.API.CONSUMER.INFO.KV_creds.c
	$JS.API.CONSUMER.DELETE.KV_creds.c`)

// neverHeard is what no user of a consumer may subscribe to: what others say and are told, and what workers are asked.
var neverHeard = strings.Fields(`
	> *.> $KV.> $KV.creds.wx1.access_token $JS.> $JS.API.> $JS.EVENT.> $SRV.> $SRV.PING $SYS.>
	corp.> corp.code.resolve corp.code.resolve.wx1 corp.credential.refresh.> corp.published.> corp.published.wx2.* corp.published.*.*
	corp.event.> _INBOX.> _INBOX_other.> _INBOX_worker.> _R_.>`)

func TestReaderLivesByItsListAndIsRefusedTheRest(t *testing.T) {
	t.Parallel()
	text := printed(t, "reader")
	g := guard(t, text)
	g.follows("reader", kv.ReaderConfig{})
	nc := g.as("reader")
	several, _ := g.read(nc, kv.ReaderConfig{AppIDs: []string{mine, "wx2"}})
	g.has(several, mine, messages.AccessToken, 0)
	g.seldom(nc, "creds")
	// A service in another language, where there is one account: the answer here is that there are two.
	if _, err := nc.RequestWithContext(g.context(), "corp.credential.refresh", nil); err != nil {
		t.Error(err)
	}
	g.unhindered()
	g.needed("reader", text)
	g.refusesTo(nc, never...)
	g.refusesTo(nc, "corp.code.resolve.wx1", "corp.jssdk.sign.wx1", "corp.card.sign.wx1", "$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.access_token")
	g.refusesToHear(nc, neverHeard...)
}

func TestWatcherOfOneAccountLivesByItsListAndIsRefusedTheRest(t *testing.T) {
	t.Parallel()
	text := printed(t, "watcher", "appid=wx1", "user=shop")
	g := guard(t, text)
	g.follows("shop", kv.ReaderConfig{AppIDs: []string{mine}})
	nc := g.as("shop")
	g.seldom(nc, "creds")
	g.unhindered()
	g.needed("shop", text)
	g.refusesTo(nc, never...)
	g.refusesTo(nc, ofOneAccount...)
	g.refusesTo(nc, "corp.code.resolve.wx1", "corp.jssdk.sign.wx1", "corp.card.sign.wx1", "$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.access_token")
	g.refusesToHear(nc, neverHeard...)
	g.refusesToHear(nc, "corp.published.wx1.*")

	// A request that says one account in its subject and another in its body.
	for _, filter := range []string{`"filter_subject":"$KV.creds.wx2.*"`, `"filter_subjects":["$KV.creds.wx1.*","$KV.creds.wx2.*"]`} {
		m, err := nc.RequestWithContext(g.context(), "$JS.API.CONSUMER.CREATE.KV_creds.c.$KV.creds.wx1.*",
			[]byte(`{"stream_name":"KV_creds","config":{"name":"c","ack_policy":"none","deliver_policy":"all",`+filter+`},"action":""}`))
		if err != nil || !strings.Contains(string(m.Data), `"error"`) {
			t.Errorf("%s: %v %s", filter, err, m.Data)
		}
	}
}

// seldom does what a watch does too seldom for a test: the first every half a minute, the second where it can after trouble.
func (g *guarded) seldom(nc *nats.Conn, buckets ...string) {
	g.Helper()
	for _, bucket := range buckets {
		for _, request := range []string{"INFO", "DELETE"} {
			if _, err := nc.RequestWithContext(g.context(), "$JS.API.CONSUMER."+request+".KV_"+bucket+".c", nil); err != nil {
				g.Error(err)
			}
		}
	}
}

func TestDirectReaderLivesByItsListAndIsRefusedTheRest(t *testing.T) {
	t.Parallel()
	text := printed(t, "direct", "appid=wx1", "user=shop")
	g := guard(t, text)
	g.follows("shop", kv.ReaderConfig{AppIDs: []string{mine}, Direct: true})
	g.needed("shop", text)
	nc := g.as("shop")
	g.refusesTo(nc, never...)
	g.refusesTo(nc, ofOneAccount...)
	g.refusesTo(nc, ofTheFeed...)
	g.refusesTo(nc, "corp.code.resolve.wx1", "corp.jssdk.sign.wx1", "corp.card.sign.wx1")
	g.refusesToHear(nc, neverHeard...)
}

func TestResolverAndSignerLiveByTheirListsAndAreRefusedTheRest(t *testing.T) {
	t.Parallel()
	resolver, signer := printed(t, "resolver", "appid=wx1"), printed(t, "signer", "appid=wx1")
	g := guard(t, resolver, signer)
	g.hire(g.as(admin))
	follow, _ := g.read(g.as(admin), kv.ReaderConfig{})
	for _, k := range messages.Kinds {
		g.has(follow, mine, k, 0)
	}
	rc, sc := g.as("resolver-wx1"), g.as("signer-wx1")
	ask := func(ctx context.Context) error {
		resolve, sign := messages.NewClient(rc, "corp"), messages.NewClient(sc, "corp")
		if _, err := resolve.ResolveCode(ctx, messages.ResolveCodeRequest{AppID: mine, OpenID: "o", CodeTicket: "t"}); err != nil {
			return err
		}
		if _, err := sign.SignJSSDK(ctx, messages.SignJSSDKRequest{AppID: mine, URL: "https://a.example/"}); err != nil {
			return err
		}
		_, err := sign.SignCard(ctx, messages.SignCardRequest{AppID: mine, CardID: "c"})
		return err
	}
	if err := ask(g.context()); err != nil {
		t.Error(err)
	}
	g.unhindered()
	g.needed("resolver-wx1", resolver)
	g.needed("signer-wx1", signer)
	for _, nc := range []*nats.Conn{rc, sc} {
		g.refusesTo(nc, never...)
		g.refusesTo(nc, ofOneAccount...)
		g.refusesTo(nc, ofTheFeed...)
		g.refusesTo(nc, "corp.credential.refresh.wx1", "$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.access_token")
		g.refusesToHear(nc, neverHeard...)
		g.refusesToHear(nc, "corp.published.wx1.*")
	}
	g.refusesTo(rc, "corp.jssdk.sign.wx1", "corp.card.sign.wx1")
	g.refusesTo(sc, "corp.code.resolve.wx1")
	g.refusesToHear(rc, "_INBOX_signer-wx1.>")
	g.refusesToHear(sc, "_INBOX_resolver-wx1.>")
}
