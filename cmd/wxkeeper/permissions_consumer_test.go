package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/permissions"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

// runReader runs a Reader of the user through everything that needs a permission: it starts, sees a change,
// reports a dead token, reconnects, and sees that a deleted record was published again.
func (g *guarded) runReader(user string, cfg kv.ReaderConfig) {
	g.Helper()
	s := g.startWorker(g.as(admin))
	nc := g.as(user)
	changes := make(chan kv.Change, 1024)
	withChanges := cfg
	withChanges.OnChange = func(c kv.Change) { changes <- c }
	r, stop := g.read(nc, withChanges)
	for _, k := range messages.Kinds {
		g.await(r, mine, k, 0)
	}
	g.awaitRefreshed(s, nc, r, mine)

	g.restart(nc)
	// A Reader that starts after the restart sees the records; the first Reader sees the next change.
	again, _ := g.read(nc, cfg)
	ticket := g.await(again, mine, messages.JSAPITicket, 0)
	b, err := g.js().KeyValue(g.context(), names.Bucket)
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
				g.noViolations()
				return
			}
		case <-late.Done():
			g.Fatalf("no change after the restart; violations: %q", g.log.violations(0))
		}
	}
}

// neverPublish are subjects to which no user of a consumer may publish.
var neverPublish = strings.Fields(`
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

// notOfOneAccount are further subjects to which no user of one account may publish.
var notOfOneAccount = strings.Fields(`
	$JS.API.STREAM.INFO.KV_creds $JS.API.CONSUMER.CREATE.KV_creds.c $JS.API.CONSUMER.CREATE.KV_creds.c.$KV.creds.wx2.* $JS.API.CONSUMER.CREATE.KV_creds.c.$KV.creds.*.*
	corp.credential.refresh corp.credential.refresh.wx2`)

// notWithoutFeed are further subjects to which a user without a watch may not publish.
var notWithoutFeed = strings.Fields(`
	$JS.API.CONSUMER.CREATE.KV_creds.c.$KV.creds.wx1.* $JS.API.CONSUMER.MSG.NEXT.KV_creds.c $JS.API.CONSUMER.INFO.KV_creds.c
	$JS.API.CONSUMER.DELETE.KV_creds.c`)

// neverSubscribe are subjects to which no user of a consumer may subscribe: replies to others, events, and requests.
var neverSubscribe = strings.Fields(`
	> *.> $KV.> $KV.creds.wx1.access_token $JS.> $JS.API.> $JS.EVENT.> $SRV.> $SRV.PING $SYS.>
	corp.> corp.code.resolve corp.code.resolve.wx1 corp.credential.refresh.> corp.published.> corp.published.wx2.* corp.published.*.*
	corp.event.> _INBOX.> _INBOX_other.> _INBOX_worker.> _R_.>`)

// without returns a list without some subjects.
func without(list []string, subjects ...string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(subjects, s) })
}

func TestReaderLivesByItsListAndIsRefusedTheRest(t *testing.T) {
	t.Parallel()
	text := permissionsOf(t, "reader")
	g := guard(t, text)
	g.runReader("reader", kv.ReaderConfig{})
	nc := g.as("reader")
	several, _ := g.read(nc, kv.ReaderConfig{AppIDs: []string{mine, "wx2"}, Feed: kv.FeedWatch})
	g.await(several, mine, messages.AccessToken, 0)
	g.rareRequests(nc, "creds")
	// A service in another language sends this if there is one account; here the answer is that there are two.
	if _, err := nc.RequestWithContext(g.context(), "corp.credential.refresh", nil); err != nil {
		t.Error(err)
	}
	g.noViolations()
	g.usesAll("reader", text)
	g.deniesPublish(nc, neverPublish...)
	g.deniesPublish(nc, "corp.code.resolve.wx1", "corp.jssdk.sign.wx1", "corp.card.sign.wx1",
		"$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.access_token")
	g.deniesSubscribe(nc, neverSubscribe...)
}

func TestWatcherOfOneAccountLivesByItsListAndIsRefusedTheRest(t *testing.T) {
	t.Parallel()
	text := permissionsOf(t, "watcher", "appid=wx1", "user=shop")
	g := guard(t, text)
	g.runReader("shop", kv.ReaderConfig{AppIDs: []string{mine}, Feed: kv.FeedWatch})
	nc := g.as("shop")
	g.rareRequests(nc, "creds")
	g.noViolations()
	g.usesAll("shop", text)
	g.deniesPublish(nc, neverPublish...)
	g.deniesPublish(nc, notOfOneAccount...)
	g.deniesPublish(nc, "corp.code.resolve.wx1", "corp.jssdk.sign.wx1", "corp.card.sign.wx1",
		"$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.access_token")
	g.deniesSubscribe(nc, neverSubscribe...)
	g.deniesSubscribe(nc, "corp.published.wx1.*")

	// A request with one account in the subject and another in the body.
	for _, filter := range []string{`"filter_subject":"$KV.creds.wx2.*"`,
		`"filter_subjects":["$KV.creds.wx1.*","$KV.creds.wx2.*"]`} {
		m, err := nc.RequestWithContext(g.context(), "$JS.API.CONSUMER.CREATE.KV_creds.c.$KV.creds.wx1.*",
			[]byte(`{"stream_name":"KV_creds","config":{"name":"c","ack_policy":"none","deliver_policy":"all",`+filter+`},"action":""}`))
		if err != nil || !strings.Contains(string(m.Data), `"error"`) {
			t.Errorf("%s: %v %s", filter, err, m.Data)
		}
	}
}

// rareRequests sends requests that a watch sends too rarely for a test: INFO every half minute, DELETE after
// an error.
func (g *guarded) rareRequests(nc *nats.Conn, buckets ...string) {
	g.Helper()
	for _, bucket := range buckets {
		for _, request := range []string{"INFO", "DELETE"} {
			if _, err := nc.RequestWithContext(g.context(), "$JS.API.CONSUMER."+request+".KV_"+bucket+".c",
				nil); err != nil {
				g.Error(err)
			}
		}
	}
}

func TestDirectReaderLivesByItsListAndIsRefusedTheRest(t *testing.T) {
	t.Parallel()
	text := permissionsOf(t, "direct", "appid=wx1", "user=shop")
	g := guard(t, text)
	g.runReader("shop", kv.ReaderConfig{AppIDs: []string{mine}, Feed: kv.FeedDirect})
	g.usesAll("shop", text)
	nc := g.as("shop")
	g.deniesPublish(nc, neverPublish...)
	g.deniesPublish(nc, notOfOneAccount...)
	g.deniesPublish(nc, notWithoutFeed...)
	g.deniesPublish(nc, "corp.code.resolve.wx1", "corp.jssdk.sign.wx1", "corp.card.sign.wx1")
	g.deniesSubscribe(nc, neverSubscribe...)
}

// requests sends every request of a service for its own account.
func (g *guarded) requests(nc *nats.Conn) {
	g.Helper()
	ask := messages.NewClient(nc, names.SubjectPrefix)
	ctx := g.context()
	var errs [5]error
	_, errs[0] = ask.ResolveCode(ctx, messages.ResolveCodeRequest{AppID: mine, OpenID: "o", CodeTicket: "t"})
	_, errs[1] = ask.GetCredential(ctx, messages.GetCredentialRequest{AppID: mine, Kind: messages.JSAPITicket})
	_, errs[2] = ask.RefreshCredential(ctx, messages.RefreshCredentialRequest{AppID: mine, Revision: 1})
	_, errs[3] = ask.SignJSSDK(ctx, messages.SignJSSDKRequest{AppID: mine, URL: "https://a.example/"})
	_, errs[4] = ask.SignCard(ctx, messages.SignCardRequest{AppID: mine, CardID: "c"})
	if err := errors.Join(errs[:]...); err != nil {
		g.Errorf("%v; violations: %q", err, g.log.violations(0))
	}
}

func TestRequesterLivesByItsListAndIsRefusedTheRest(t *testing.T) {
	text := permissionsOf(t, "requester", "appid=wx1", "user=shop")
	g := guard(t, text)
	g.runReader("shop", kv.ReaderConfig{AppIDs: []string{mine}, Feed: kv.FeedRequests})
	nc := g.as("shop")
	g.requests(nc)
	t.Setenv("NATS_INBOX_PREFIX", permissions.Inbox("shop"))
	g.asUser(t, "shop", "get --appid wx1", "get jsapi_ticket --appid wx1", "refresh --appid wx1 --revision 1",
		"resolve --appid wx1 o t")
	ctx, stop := context.WithCancel(g.context())
	term, _, errs := screen(false)
	term.out = writer(func(line string) {
		if strings.Contains(line, "generation") {
			stop()
		}
	})
	if code := execute(ctx, term, strings.Fields("watch --appid wx1")); code != exitOK {
		t.Errorf("wxkeeper watch: exit code %d: %s", code, errs)
	}
	stop()
	g.noViolations()
	g.usesAll("shop", text)
	g.deniesPublish(nc, without(neverPublish, "corp.credential.get.wx1")...)
	g.deniesPublish(nc, notOfOneAccount...)
	g.deniesPublish(nc, notWithoutFeed...)
	g.deniesPublish(nc, "$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.access_token")
	g.deniesSubscribe(nc, neverSubscribe...)
}

func TestResolverAndSignerLiveByTheirListsAndAreRefusedTheRest(t *testing.T) {
	t.Parallel()
	resolver, signer := permissionsOf(t, "resolver", "appid=wx1"), permissionsOf(t, "signer", "appid=wx1")
	g := guard(t, resolver, signer)
	g.startWorker(g.as(admin))
	follow, _ := g.read(g.as(admin), kv.ReaderConfig{})
	for _, k := range messages.Kinds {
		g.await(follow, mine, k, 0)
	}
	rc, sc := g.as("resolver-wx1"), g.as("signer-wx1")
	ask := func(ctx context.Context) error {
		resolve, sign := messages.NewClient(rc, "corp"), messages.NewClient(sc, "corp")
		if _, err := resolve.ResolveCode(ctx,
			messages.ResolveCodeRequest{AppID: mine, OpenID: "o", CodeTicket: "t"}); err != nil {
			return err
		}
		if _, err := sign.SignJSSDK(ctx,
			messages.SignJSSDKRequest{AppID: mine, URL: "https://a.example/"}); err != nil {
			return err
		}
		_, err := sign.SignCard(ctx, messages.SignCardRequest{AppID: mine, CardID: "c"})
		return err
	}
	if err := ask(g.context()); err != nil {
		t.Error(err)
	}
	g.noViolations()
	g.usesAll("resolver-wx1", resolver)
	g.usesAll("signer-wx1", signer)
	for _, nc := range []*nats.Conn{rc, sc} {
		g.deniesPublish(nc, neverPublish...)
		g.deniesPublish(nc, notOfOneAccount...)
		g.deniesPublish(nc, notWithoutFeed...)
		g.deniesPublish(nc, "corp.credential.refresh.wx1", "$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.access_token")
		g.deniesSubscribe(nc, neverSubscribe...)
		g.deniesSubscribe(nc, "corp.published.wx1.*")
	}
	g.deniesPublish(rc, "corp.jssdk.sign.wx1", "corp.card.sign.wx1")
	g.deniesPublish(sc, "corp.code.resolve.wx1")
	g.deniesSubscribe(rc, "_INBOX_signer-wx1.>")
	g.deniesSubscribe(sc, "_INBOX_resolver-wx1.>")
}
