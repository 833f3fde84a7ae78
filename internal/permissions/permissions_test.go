package permissions

import (
	"strings"
	"testing"
)

func request(roles ...Role) Request {
	return Request{Prefix: "wechat", Bucket: "wechat", Roles: roles}
}

func TestUserOfSeveralRolesMayDoWhatAnyOfThemDoesAndEachLineStandsOnce(t *testing.T) {
	t.Parallel()
	r := request(Reader, Direct, Resolver, Operator, Worker)
	r.AppIDs, r.User = []string{"wx1", "wx-2"}, "all-of_it"
	text, err := User(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`"$JS.API.DIRECT.GET.KV_wechat.$KV.wechat.wx1.*"`, `"$JS.API.DIRECT.GET.KV_wechat.$KV.wechat.wx-2.*"`, `"wechat.code.resolve.wx-2"`,
		`"wechat.published.wx1.*"`, `"wechat.status"`, `"$KV.wechat.lease.*.*"`, `"_INBOX_all-of_it.>"`, "allow_responses", "password: $ALL_OF_IT_PASSWORD",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
	publish, subscribe, _ := strings.Cut(text, "subscribe:")
	for _, list := range []string{publish, subscribe} {
		seen := map[string]bool{}
		for line := range strings.Lines(list) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, `"`) && seen[line] {
				t.Errorf("twice: %s", line)
			}
			seen[line] = true
		}
	}
}

func TestUserIsNamedAfterItsRolesAndAccounts(t *testing.T) {
	t.Parallel()
	r := request(Direct, Signer)
	r.AppIDs = []string{"wx1"}
	text, err := User(r)
	if err != nil || !strings.Contains(text, "\nuser_direct-signer-wx1: {\n") || !strings.Contains(text, `"_INBOX_direct-signer-wx1.>"`) {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestWhatMakesNoUserIsRefused(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]Request{
		"a role is missing":              request(),
		`no role "king"`:                 request("king"),
		"say which with --appid":         request(Worker, Signer),
		"leave --appid out":              {Roles: []Role{Operator}, AppIDs: []string{"wx1"}},
		`"wx.1" is not an AppID`:         {Roles: []Role{Direct}, AppIDs: []string{"wx.1"}},
		`"*" is not an AppID`:            {Roles: []Role{Resolver}, AppIDs: []string{"*"}},
		"watcher is for one account":     {Roles: []Role{Watcher}, AppIDs: []string{"wx1", "wx2"}},
		`the user "a b" is not`:          {Roles: []Role{Worker}, User: "a b"},
		`the user "x\", \"y" is not`:     {Roles: []Role{Worker}, User: `x", "y`},
		`is not 1 to 64 letters, digits`: {Roles: []Role{Direct}, AppIDs: []string{strings.Repeat("a", 64)}},
	} {
		if text, err := User(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q\n%s", r, err, want, text)
		}
	}
	if _, err := Accounts("wechat", "wechat", []string{"shop", "a b"}); err == nil {
		t.Error("an account with a wrong user")
	}
}

func TestEveryRoleHasAMeaningAndAList(t *testing.T) {
	t.Parallel()
	for _, r := range Roles {
		q := request(r)
		if r.OfAccount() {
			q.AppIDs = []string{"wx1"}
		}
		text, err := User(q)
		// Without a list of its own, NATS would let the user publish everything.
		if err != nil || r.Meaning() == "" || !strings.Contains(text, "publish: { allow: [\n      #") {
			t.Errorf("%s: %v\n%s", r, err, text)
		}
	}
}
