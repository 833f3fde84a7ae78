package permissions

import (
	"strings"
	"testing"
)

func request(roles ...Role) Request {
	return Request{Prefix: "wechat", Bucket: "wechat", Roles: roles}
}

// configuration returns the configuration of a user.
func configuration(t *testing.T, r Request) string {
	t.Helper()
	text, err := User(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// wantParts checks that a configuration has some parts.
func wantParts(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %s in\n%s", part, text)
		}
	}
}

func TestUserWithSeveralRolesMayDoWhatAnyOfThemDoesAndHasEachSubjectOnce(t *testing.T) {
	t.Parallel()
	r := request(Reader, Direct, Requester, Resolver, Operator, Micro, Worker)
	r.AppIDs, r.User = []string{"wx1", "wx-2"}, "all-of_it"
	text := configuration(t, r)
	wantParts(t, text,
		`"$JS.API.DIRECT.GET.KV_wechat.$KV.wechat.wx1.*"`, `"$JS.API.DIRECT.GET.KV_wechat.$KV.wechat.wx-2.*"`,
		`"wechat.code.resolve.wx-2"`, `"wechat.published.wx1.*"`, `"wechat.status"`, `"$KV.wechat.lease.*.*"`,
		`"_INBOX_all-of_it.>"`, "allow_responses", "password: $ALL_OF_IT_PASSWORD")
	publish, subscribe, _ := strings.Cut(text, "subscribe:")
	for _, list := range []string{publish, subscribe} {
		seen := map[string]bool{}
		for line := range strings.Lines(list) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, `"`) && seen[line] {
				t.Errorf("%s is there twice", line)
			}
			seen[line] = true
		}
	}
}

func TestUserOfAllAccountsHasAWildcardInPlaceOfTheAppID(t *testing.T) {
	t.Parallel()
	r := request(Requester, Direct)
	r.AppIDs, r.User = []string{AllAccounts}, "service"
	wantParts(t, configuration(t, r), "# given accounts: all\n", `"wechat.credential.get.*"`, `"wechat.published.*.*"`,
		`"$JS.API.DIRECT.GET.KV_wechat.$KV.wechat.*.*"`)
}

func TestUserIsNamedAfterItsRolesAndAccounts(t *testing.T) {
	t.Parallel()
	r := request(Direct, Signer)
	r.AppIDs = []string{"wx1"}
	wantParts(t, configuration(t, r), "\nuser_direct-signer-wx1: {\n", `"_INBOX_direct-signer-wx1.>"`)
}

func TestRequestThatMakesNoUserIsRefused(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]Request{
		"a role is missing": request(),
		`no role "king"`:    request("king"),
		"worker is for all accounts: leave --appid out":         {Roles: []Role{Worker}, AppIDs: []string{"wx1"}},
		"signer is limited to accounts: name them with --appid": request(Worker, Signer),
		`"wx.1" is not an AppID`:                                {Roles: []Role{Direct}, AppIDs: []string{"wx.1"}},
		`"wx*" is not an AppID`:                                 {Roles: []Role{Resolver}, AppIDs: []string{"wx*"}},
		"* is for all accounts: name no other AppID": {Roles: []Role{Resolver},
			AppIDs: []string{"wx1", "*"}, User: "shop"},
		"name the user of all accounts with --user": {Roles: []Role{Resolver}, AppIDs: []string{"*"}},
		"watcher is for one account": {Roles: []Role{Watcher},
			AppIDs: []string{"wx1", "wx2"}},
		`the user "a b" is not`:      {Roles: []Role{Worker}, User: "a b"},
		`the user "x\", \"y" is not`: {Roles: []Role{Worker}, User: `x", "y`},
		`is not a name of 1 to 64`: {Roles: []Role{Direct},
			AppIDs: []string{strings.Repeat("a", 64)}},
	} {
		text, err := User(r)
		if err == nil {
			t.Errorf("%+v makes a user, want the error %q\n%s", r, want, text)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: the error is %q, want %q", r, err, want)
		}
	}
	if _, err := Accounts("wechat", "wechat", "", []string{"shop", "a b"}); err == nil {
		t.Error("an account with a wrong user name")
	}
}

// The server takes a password from a variable whose name is made of the user's: two users must not share it.
func TestUsersWhoseNamesCollideAreRefused(t *testing.T) {
	t.Parallel()
	for want, users := range map[string][]string{
		`"a-b" and "a_b" would have the same password variable A_B_PASSWORD`: {"a-b", "shop", "a_b"},
		`"shop" and "Shop" would have the same password variable`:            {"shop", "Shop"},
		`the user "shop" is named twice`:                                     {"shop", "till", "shop"},
		`the user "worker" has the name of the workers' user`:                {"worker"},
		`the user "Worker" has the name of the workers' user`:                {"shop", "Worker"},
	} {
		if text, err := Accounts("wechat", "wechat", "", users); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: the error is %v, want %q\n%s", users, err, want, text)
		}
	}
	for want, r := range map[string]Request{
		"has the name of the user of `wxkeeper permissions worker`": {
			Roles: []Role{Requester}, AppIDs: []string{"wx1"}, User: "worker"},
		"has the name of the user of `wxkeeper permissions operator`": {
			Roles: []Role{Requester, Micro}, AppIDs: []string{"wx1"}, User: "OPERATOR"},
		"name the user of wx_1 with --user": {Roles: []Role{Direct}, AppIDs: []string{"wx_1"}},
		"name the user of wxA with --user":  {Roles: []Role{Direct}, AppIDs: []string{"wx1", "wxA"}},
	} {
		if text, err := User(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: the error is %v, want %q\n%s", r, err, want, text)
		}
	}
	r := request(Operator, Micro)
	r.User = "operator"
	configuration(t, r) // the name of one of its own lists
	r = request(Requester)
	r.User, r.AppIDs = "shop", []string{"wx_A"}
	configuration(t, r)
}

// Which lists make a user as powerful as the NATS account must be the first thing that an administrator reads.
func TestFirstLineSaysWhetherAUserIsTrustedWithTheNATSAccount(t *testing.T) {
	t.Parallel()
	trusting := map[Role]bool{Worker: true, Direct: true, Watcher: true, Reader: true, Micro: true}
	for _, role := range Roles {
		r := request(role)
		if role.OfAccount() {
			r.AppIDs = []string{"wx1"}
		}
		first, rest, _ := strings.Cut(configuration(t, r), "\n")
		if got := strings.Contains(first, "trusted with the whole NATS account"); got != trusting[role] {
			t.Errorf("%s: %s", role, first)
		}
		// A right to publish on one of these subjects is what makes the difference.
		publish, _, _ := strings.Cut(rest, "subscribe:")
		if got := strings.Contains(publish, `"$JS.`) || strings.Contains(publish, `"$KV.`) ||
			strings.Contains(publish, `"$SRV.`); got != trusting[role] {
			t.Errorf("%s is trusted: %t, but it may publish\n%s", role, trusting[role], publish)
		}
	}
}

func TestEveryRoleHasAMeaningAndAList(t *testing.T) {
	t.Parallel()
	for _, r := range Roles {
		q := request(r)
		if r.OfAccount() {
			q.AppIDs = []string{"wx1"}
		}
		if r.Meaning() == "" {
			t.Errorf("%s has no meaning", r)
		}
		// NATS lets a user without a list publish everything.
		wantParts(t, configuration(t, q), "publish: { allow: [\n      #")
	}
}

// A server of the domain checks the first subject, other servers the second.
func TestListForADomainHasEachSubjectOfJetStreamTwice(t *testing.T) {
	t.Parallel()
	for _, role := range Roles {
		r := request(role)
		if role.OfAccount() {
			r.AppIDs = []string{"wx1"}
		}
		without := configuration(t, r)
		r.Domain = "hub"
		with := configuration(t, r)
		for line := range strings.Lines(without) {
			wantParts(t, with, line)
			if subject, ok := strings.CutPrefix(strings.TrimSpace(line), `"$JS.API.`); ok {
				wantParts(t, with, `"$JS.hub.API.`+subject)
			}
			if subject, ok := strings.CutPrefix(strings.TrimSpace(line), `"$KV.`); ok {
				wantParts(t, with, `"$JS.hub.API.$KV.`+subject)
			}
		}
		if jetstream := strings.Contains(without, "$JS."); jetstream == (with == without) {
			t.Errorf("%s: the domain changes the list: %t", role, with != without)
		}
	}
	text, err := Accounts("wechat", "wechat", "hub", []string{"shop"})
	if err != nil {
		t.Fatal(err)
	}
	wantParts(t, text, `{ service: "$JS.hub.API.DIRECT.GET.KV_wechat.$KV.wechat.*.*", accounts: [APPS] }`,
		`{ service: { account: WX, subject: "$JS.API.DIRECT.GET.KV_wechat.$KV.wechat.*.*" } }`)
}
