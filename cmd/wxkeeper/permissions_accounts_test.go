package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

// unlimited is a user of the account APPS without a list.
const unlimited = "unlimited"

// twoAccounts is the configuration of two accounts, with the users of some lists in the account APPS. Besides
// them, each account has a user without a list.
func twoAccounts(t *testing.T, lists map[string]string) string {
	t.Helper()
	args := []string{}
	texts, refs := permissionsOf(t, "worker"), []string{}
	for _, user := range slices.Sorted(maps.Keys(lists)) {
		args, refs, texts = append(args, "user="+user), append(refs, "$user_"+user), texts+lists[user]
	}
	accounts := permissionsOf(t, "accounts", args...)
	for users, more := range map[string]string{"$user_worker": admin, strings.Join(refs, ", "): unlimited} {
		if !strings.Contains(accounts, "["+users+"]") {
			t.Fatalf("no [%s] in\n%s", users, accounts)
		}
		accounts = strings.Replace(accounts, "["+users+"]",
			"["+users+", { user: "+more+", password: "+passphrase+" }]", 1)
	}
	return texts + accounts
}

func TestTwoAccountsGiveServicesAndOperatorsWhatTheyNeedAndNothingElse(t *testing.T) {
	t.Parallel()
	lists := map[string]string{
		"shop":  permissionsOf(t, "requester", "appid=wx1", "user=shop"),
		"cache": permissionsOf(t, "direct", "appid=wx1", "user=cache"),
		"desk":  permissionsOf(t, "operator micro", "user=desk"),
	}
	g := guardConf(t, twoAccounts(t, lists))
	s := g.startWorker(g.as("worker"))
	shop, cache, desk := g.as("shop"), g.as("cache"), g.as("desk")
	cfg := kv.ReaderConfig{AppIDs: []string{mine}, Feed: kv.FeedDirect}
	r, _ := g.read(cache, cfg)
	byRequests, _ := g.read(shop, kv.ReaderConfig{AppIDs: []string{mine}, Feed: kv.FeedRequests})
	for _, k := range messages.Kinds {
		g.await(r, mine, k, 0)
		g.await(byRequests, mine, k, 0)
	}
	events := g.subscribe(desk, "corp.event.>")
	next := g.awaitRefreshed(s, cache, r, mine)
	g.await(byRequests, mine, messages.AccessToken, next.Generation-1)
	g.receives(events)
	g.requests(shop)
	g.operates(desk)
	g.findsWorkers(desk)
	g.noViolations()
	for user, text := range lists {
		g.usesAll(user, text)
	}
	g.deniesPublish(shop, without(neverPublish, "corp.credential.get.wx1")...)
	g.deniesPublish(shop, notOfOneAccount...)
	g.deniesPublish(shop, "$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.access_token")
	g.deniesPublish(cache, neverPublish...)
	g.deniesPublish(cache, notOfOneAccount...)
	g.deniesPublish(cache, "corp.credential.get.wx1")
	for _, nc := range []*nats.Conn{shop, cache} {
		g.deniesSubscribe(nc, neverSubscribe...)
	}
}

// subscribe subscribes, and returns when the server has the subscription.
func (g *guarded) subscribe(nc *nats.Conn, subject string) *nats.Subscription {
	g.Helper()
	sub, err := nc.SubscribeSync(subject)
	if err == nil {
		err = nc.FlushWithContext(g.context())
	}
	if err != nil {
		g.Fatal(err)
	}
	return sub
}

// receives waits until each subscription has a message.
func (g *guarded) receives(subs ...*nats.Subscription) {
	g.Helper()
	for _, sub := range subs {
		if _, err := sub.NextMsgWithContext(g.context()); err != nil {
			g.Errorf("%s: %v; violations: %q", sub.Subject, err, g.log.violations(0))
		}
	}
}

// findsWorkers asks for services as `nats micro` does. Two services answer.
func (g *guarded) findsWorkers(nc *nats.Conn) {
	g.Helper()
	root := g.as(admin)
	svc, err := micro.AddService(root, micro.Config{Name: "second", Version: "1.0.0"})
	if err == nil {
		err = root.FlushWithContext(g.context())
	}
	if err != nil {
		g.Fatal(err)
	}
	inbox := nc.NewRespInbox()
	pongs := g.subscribe(nc, inbox)
	if err := nc.PublishRequest("$SRV.PING", inbox, nil); err != nil {
		g.Fatal(err)
	}
	g.receives(pongs, pongs)
	m, err := nc.RequestWithContext(g.context(), "$SRV.STATS.corp", nil)
	if err != nil || !strings.Contains(string(m.Data), `"corp.code.resolve"`) {
		g.Errorf("the statistics: %v %v", err, m)
	}
	if err := svc.Stop(); err != nil {
		g.Error(err)
	}
}

// A user of APPS without a list: the boundary is the account, not the list. What such a user can change is tested
// by TestInTwoAccountsAUserWithoutAListChangesNothingInWX.
func TestTwoAccountsHideWhatIsNotExportedFromAUserWithoutAList(t *testing.T) {
	t.Parallel()
	g := guardConf(t, twoAccounts(t, map[string]string{
		"shop": permissionsOf(t, "requester", "appid=wx1", "user=shop"),
	}))
	g.startWorker(g.as("worker"))
	root, free := g.as(admin), g.as(unlimited)
	follow, _ := g.read(root, kv.ReaderConfig{})
	g.await(follow, other, messages.AccessToken, 0)
	// No worker receives its requests without an AppID in the subject, except for operators. JetStream does not
	// receive its requests.
	for _, subject := range strings.Fields(`corp.credential.get corp.code.resolve corp.jssdk.sign corp.card.sign
		$JS.API.STREAM.INFO.KV_creds $JS.API.CONSUMER.CREATE.KV_creds.c.$KV.creds.wx1.* $JS.API.STREAM.MSG.GET.KV_creds
		$JS.API.DIRECT.GET.KV_creds`) {
		m, err := free.RequestWithContext(g.context(), subject, []byte(`{}`))
		if err == nil && !strings.Contains(string(m.Data), "not enabled for account") {
			t.Errorf("%s: %s", subject, m.Data)
		}
	}
	// It receives neither requests of WX nor the replies to them.
	everything := g.subscribe(free, ">")
	if _, err := messages.NewClient(root, "corp").ResolveCode(g.context(),
		messages.ResolveCodeRequest{AppID: other, OpenID: "o", CodeTicket: "t"}); err != nil {
		t.Fatal(err)
	}
	own := free.NewRespInbox()
	if err := free.PublishRequest("corp.code.resolve.wx1", own, []byte(`{"openid":"o","code_ticket":"t"}`)); err != nil {
		t.Fatal(err)
	}
	for m := new(nats.Msg); m.Subject != own; { // the reply to its own request is the last message
		var err error
		if m, err = everything.NextMsgWithContext(g.context()); err != nil {
			t.Fatal(err)
		}
		if m.Subject == "corp.code.resolve.wx2" || strings.HasPrefix(m.Subject, "_INBOX") && m.Subject != own {
			t.Errorf("it receives %s", m.Subject)
		}
	}
}
