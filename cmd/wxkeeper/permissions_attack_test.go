package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/messages"
)

// NATS checks no permission for the reply subject of a request. These tests aim every right of a user at every
// subject that could do harm, and compare the whole state before and after.

// mustChangeNothing aims the rights of a user at all targets. If something changes, it aims each right again,
// to name the right that is to blame.
func (a *attack) mustChangeNothing(user string, rights []string, isolated bool) {
	a.Helper()
	nc := a.as(user)
	before := a.state()
	a.aim(nc, rights, targets(), isolated)
	diff := cmp.Diff(before, a.state())
	if diff == "" {
		return
	}
	a.Errorf("%s changes the state: -before +after\n%s", user, diff)
	for _, right := range rights {
		before = a.state()
		a.aim(nc, []string{right}, targets(), isolated)
		if diff := cmp.Diff(before, a.state()); diff != "" {
			a.Errorf("%s does it with %s: -before +after\n%s", user, right, diff)
		}
	}
}

// lists are the users of the lists that do not trust a user with the NATS account, with what they print.
func listsOfServices(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{
		"shop": permissionsOf(t, "requester", "appid=wx1", "user=shop"),
		"till": permissionsOf(t, "resolver", "appid=wx1", "user=till"),
		"page": permissionsOf(t, "signer", "appid=wx1", "user=page"),
		"desk": permissionsOf(t, "operator", "user=desk"),
	}
}

func TestInOneAccountTheListsOfServicesReachNothingElseThroughAReply(t *testing.T) {
	t.Parallel()
	lists := listsOfServices(t)
	users := []string{permissionsOf(t, "worker")}
	for _, text := range lists {
		users = append(users, text)
	}
	a := newAttack(t, oneAccount(users...))
	all := targets()
	secrets := a.tokens()
	for user, text := range lists {
		rights := rightsOf(text)
		a.hears.on(nil)
		a.mustChangeNothing(user, rights, false)
		answers := 0
		for _, m := range a.hears.on(all) {
			if own(m, rights) {
				continue
			}
			answers++
			// A worker answers into every inbox, because it does not know whose inbox it is. The user could send
			// the answer to another user's inbox; it is an answer that the user may have.
			if !strings.HasPrefix(m.Subject, "_INBOX") {
				a.Errorf("%s: a message arrives on %s: %s", user, m.Subject, m.Data)
			}
			if strings.Contains(string(m.Data), secrets[other]) ||
				user != "shop" && strings.Contains(string(m.Data), secrets[mine]) {
				a.Errorf("%s: the answer on %s has a token", user, m.Subject)
			}
		}
		if answers == 0 {
			t.Errorf("%s has no answer: the test attacks nothing", user)
		}
	}
}

// own reports whether a message is a request that the user itself has sent. In WX it has another reply subject.
// A report of a delivery (Nats-Trace-Dest) has none.
func own(m *nats.Msg, rights []string) bool {
	return slices.Contains(rights, m.Subject)
}

// tokens are the access tokens of both accounts.
func (a *attack) tokens() map[string]string {
	a.Helper()
	tokens := map[string]string{}
	for _, id := range []string{mine, other} {
		c, err := messages.NewClient(a.as(admin), names.SubjectPrefix).GetCredential(a.context(),
			messages.GetCredentialRequest{AppID: id})
		if err != nil {
			a.Fatal(err)
		}
		tokens[id] = c.Value
	}
	return tokens
}

// docs/security.md says that these users are trusted with the whole NATS account. If this test fails, NATS can
// deny it now. nats-server refuses reply subjects below $JS. since 2.15.3; before, each of these users could also
// delete a stream.
func TestInOneAccountTheListsOfTrustedUsersReachEverythingThroughAReply(t *testing.T) {
	t.Parallel()
	a := newAttack(t, oneAccount(permissionsOf(t, "worker"), permissionsOf(t, "reader"), permissionsOf(t, "micro"),
		permissionsOf(t, "direct", "appid=wx1", "user=direct"), permissionsOf(t, "watcher", "appid=wx1", "user=watcher")))
	for user, filter := range map[string]string{"reader": "$KV.creds.*.*", "watcher": "$KV.creds.wx1.*"} {
		_, err := a.as(user).RequestWithContext(a.context(), "$JS.API.CONSUMER.CREATE.KV_creds."+user+"."+filter,
			[]byte(`{"stream_name":"KV_creds","config":{"name":"`+user+`","ack_policy":"none","deliver_policy":"new",`+
				`"filter_subject":"`+filter+`"},"action":""}`))
		if err != nil {
			t.Fatal(err)
		}
	}
	for user, request := range map[string]struct{ subject, body string }{
		"worker":  {"$JS.API.DIRECT.GET.KV_creds.$KV.creds.lease.wx9.access_token", ""},
		"direct":  {"$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.nothing", ""},
		"reader":  {"$JS.API.CONSUMER.MSG.NEXT.KV_creds.reader", `{"batch":1,"no_wait":true}`},
		"watcher": {"$JS.API.CONSUMER.MSG.NEXT.KV_creds.watcher", `{"batch":1,"no_wait":true}`},
		"micro":   {"$SRV.PING", ""},
	} {
		for stream, subject := range map[string]string{"KV_creds": "$KV.creds." + user + ".access_token", orders: "orders.new"} {
			before := a.state().Streams[stream].LastSeq
			a.send(user, request.subject, subject, request.body)
			a.eventually(user+" writes into "+stream, func() bool { return a.state().Streams[stream].LastSeq > before })
		}
	}
}

func (a *attack) send(user, subject, reply, body string) {
	a.Helper()
	nc := a.as(user)
	err := nc.PublishRequest(subject, reply, []byte(body))
	if err == nil {
		err = nc.FlushWithContext(a.context())
	}
	if err != nil {
		a.Fatal(err)
	}
}

// What no list of one account can refuse: a worker answers to a subject that belongs to neither NATS nor the workers.
func TestInOneAccountAnAnswerMayGoToAnotherService(t *testing.T) {
	t.Parallel()
	a := newAttack(t, oneAccount(permissionsOf(t, "worker"), permissionsOf(t, "requester", "appid=wx1", "user=shop")))
	a.send("shop", "corp.code.resolve.wx1", "orders.new", `{"openid":"o","code_ticket":"t"}`)
	a.eventually("the stream of another service stores the answer", func() bool {
		return a.state().Streams[orders].LastSeq == 4
	})
}

// The users of the account APPS. The user unlimited has no list at all.
func newAttackOnTwoAccounts(t *testing.T) (a *attack, lists map[string]string) {
	t.Helper()
	lists = listsOfServices(t)
	for user, kind := range map[string]string{"cache": "direct", "eye": "watcher"} {
		lists[user] = permissionsOf(t, kind, "appid=wx1", "user="+user)
	}
	lists["tail"], lists["stats"] = permissionsOf(t, "reader", "user=tail"), permissionsOf(t, "micro", "user=stats")
	return newAttack(t, twoAccounts(t, lists)), lists
}

func TestInTwoAccountsNoListOfAPPSReachesWXThroughAReply(t *testing.T) {
	t.Parallel()
	a, lists := newAttackOnTwoAccounts(t)
	apps := a.spy(a.as(unlimited))
	for user, text := range lists {
		a.mustStayInAPPS(apps, user, rightsOf(text))
	}
}

func TestInTwoAccountsAUserWithoutAListChangesNothingInWX(t *testing.T) {
	t.Parallel()
	a, _ := newAttackOnTwoAccounts(t)
	apps := a.spy(a.as(unlimited))
	var rights []string
	for _, pattern := range exports(t) {
		for _, right := range concrete(pattern) {
			if !strings.HasSuffix(right, "."+mine) { // the lists have those
				rights = append(rights, right)
			}
		}
	}
	a.mustStayInAPPS(apps, unlimited, rights)

	// The targets themselves, with and without a reply.
	before := a.state()
	nc := a.as(unlimited)
	a.hears.on(nil)
	for _, target := range targets() {
		if a.imported(target) {
			continue // a right
		}
		for _, body := range []string{"", `{}`, record} {
			if err := nc.PublishRequest(target, "elsewhere", []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
	}
	a.settle(nc, 0)
	if diff := cmp.Diff(before, a.state()); diff != "" {
		t.Errorf("the state has changed: -before +after\n%s", diff)
	}
	for _, m := range a.hears.on(targets()) {
		t.Errorf("WX receives %s with the reply subject %q", m.Subject, m.Reply)
	}
}

// exports are the subjects of requests that the block of the two accounts exports.
func exports(t *testing.T) (subjects []string) {
	t.Helper()
	text := permissionsOf(t, "accounts", "user=shop")
	for _, line := range strings.Split(text, "\n") {
		if _, rest, ok := strings.Cut(line, `{ service: "`); ok {
			subject, _, _ := strings.Cut(rest, `"`)
			subjects = append(subjects, subject)
		}
	}
	if len(subjects) < 10 {
		t.Fatalf("only %d exports of services", len(subjects))
	}
	return subjects
}

// mustStayInAPPS aims rights at all targets. Nothing changes in WX. What arrives there on a target is a reply
// that became a request, because APPS imports its subject: it has no reply subject, so nobody answers it.
func (a *attack) mustStayInAPPS(apps *spy, user string, rights []string) {
	a.Helper()
	all, token := targets(), a.tokens()[other]
	a.hears.on(nil)
	apps.on(nil)
	a.mustChangeNothing(user, rights, true)
	for _, m := range a.hears.on(all) {
		if !own(m, rights) && (m.Reply != "" || !a.imported(m.Subject)) {
			a.Errorf("%s: WX receives a message on %s with the reply subject %q", user, m.Subject, m.Reply)
		}
	}
	replies := 0
	for _, m := range apps.on(all) {
		if own(m, rights) {
			continue
		}
		replies++
		if user != unlimited && strings.Contains(string(m.Data), token) {
			a.Errorf("%s: a reply on %s has the token of another account", user, m.Subject)
		}
	}
	if replies == 0 && user != unlimited { // for a user with all rights, no target is only a target
		a.Errorf("%s has no reply: the test attacks nothing", user)
	}
}

func (a *attack) imported(subject string) bool {
	return slices.ContainsFunc(exports(a.T), func(pattern string) bool { return within(subject, pattern) })
}

func TestInTwoAccountsADirectGetReadsOnlyItsSubject(t *testing.T) {
	t.Parallel()
	a, _ := newAttackOnTwoAccounts(t)
	token := a.tokens()
	nc := a.as("cache")
	for _, subject := range rightsOf(permissionsOf(t, "direct", "appid=wx1")) {
		if !strings.HasPrefix(subject, "$JS.") {
			continue
		}
		for _, body := range bodies(subject, true) {
			m, err := nc.RequestWithContext(a.context(), subject, []byte(body))
			if err != nil {
				t.Fatalf("%s %s: %v", subject, body, err)
			}
			if strings.Contains(string(m.Data), token[other]) {
				t.Errorf("%s %s: the token of another account", subject, body)
			}
			if got := m.Header.Get("Nats-Subject"); got != "" && !strings.HasPrefix(got, "$KV.creds.wx1.") {
				t.Errorf("%s %s: the message of %s", subject, body, got)
			}
		}
	}
	m, err := nc.RequestWithContext(a.context(), "$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.access_token", nil)
	if err != nil || !strings.Contains(string(m.Data), token[mine]) {
		t.Errorf("the own record: %v %v", err, m)
	}
	// The form that has its subject only in the body is not exported.
	_, err = a.as(unlimited).RequestWithContext(a.context(), "$JS.API.DIRECT.GET.KV_creds",
		[]byte(`{"last_by_subj":"$KV.creds.wx2.access_token"}`))
	if err == nil || !strings.Contains(err.Error(), nats.ErrNoResponders.Error()) {
		t.Errorf("a direct get with its subject in the body: %v", err)
	}
}
