package wechattest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// ask calls the control API and returns status and body.
func ask(h http.Handler, method, path, body string) (int, string) {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(method, path, strings.NewReader(body)))
	return rec.Code, strings.TrimSpace(rec.Body.String())
}

func TestControlDoesWhatTheMethodsDo(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	c := fx.Control()
	step := func(method, path, body string, want string) string {
		t.Helper()
		status, got := ask(c, method, path, body)
		if status != http.StatusOK || want != "" && got != want {
			t.Errorf("%s %s %s: %d %s, want %s", method, path, body, status, got, want)
		}
		return got
	}
	step("GET", "/healthz", "", `{"ok":true}`)
	step("POST", "/accounts", `{"appid":"wx2","secret":"s2"}`, `{"appid":"wx2"}`)
	step("GET", "/accounts", "", `{"accounts":[{"appid":"`+app+`"},{"appid":"wx2"}]}`)
	step("POST", "/secrets", `{"appid":"wx2","secret":"new"}`, `{"appid":"wx2"}`)
	token := fx.ok(fx.classicOf("wx2", "new")).AccessToken

	code := `{"appid":"wx2","openid":"o","code_ticket":"t","reply":{"errcode":0,"code":"012345678"}}`
	step("POST", "/codes", code, `{"ok":true}`)
	fx.equal("code", fx.ok(fx.code(token, "o", "t")).Code, "012345678")

	step("POST", "/faults", `{"appid":"wx2","endpoint":"token","times":2,"errcode":-1,"delay_ms":1}`,
		`{"faults":[{"appid":"wx2","endpoint":"token","times":2,"errcode":-1,"delay_ms":1}]}`)
	fx.refused(fx.classicOf("wx2", "new"), -1, "system error")
	step("GET", "/faults", "", `{"faults":[{"appid":"wx2","endpoint":"token","times":1,"errcode":-1,"delay_ms":1}]}`)
	step("DELETE", "/faults", "", `{"ok":true}`)
	step("GET", "/faults", "", `{"faults":[]}`)

	var foreign struct{ Token string }
	reply := step("POST", "/foreign-refresh", `{"appid":"wx2","endpoint":"token"}`, "")
	if err := json.Unmarshal([]byte(reply), &foreign); err != nil {
		t.Fatal(err)
	}
	step("POST", "/judge", `{"appid":"wx2","kind":"access_token","value":"`+foreign.Token+`"}`, `{"verdict":"valid"}`)
	step("POST", "/revoke", `{"token":"`+foreign.Token+`"}`, `{"ok":true}`)
	step("POST", "/judge", `{"appid":"wx2","kind":"access_token","value":"`+foreign.Token+`"}`, `{"verdict":"dead"}`)

	step("GET", "/calls", "", `{"accounts":{"wx2":{`+
		`"tickettocode":{"calls":1,"max_concurrent":1,"minted":0,"foreign":0,"faults":0,"errcodes":{"0":1}},`+
		`"token":{"calls":2,"max_concurrent":1,"minted":1,"foreign":1,"faults":1,"errcodes":{"-1":1,"0":1}}}},"not_found":0}`)
	step("POST", "/calls/reset", "", `{"ok":true}`)
	step("GET", "/calls", "", `{"accounts":{},"not_found":0}`)
	step("DELETE", "/accounts/wx2", "", `{"appid":"wx2"}`)
	fx.refused(fx.classicOf("wx2", "new"), 40013, "")
}

func TestControlNamesTheFaultOfARequest(t *testing.T) {
	t.Parallel()
	c := newFixture(t).Control()
	for _, tt := range []struct {
		method, path, body string
		status             int
		text               string
	}{
		{"POST", "/accounts", `{"appid":"wx2"}`, 400, "secret"},
		{"POST", "/accounts", `{"appid":"wx2","secrets":"x"}`, 400, "unknown field"},
		{"POST", "/accounts", `{`, 400, "body"},
		{"POST", "/accounts", ``, 400, "body"},
		{"POST", "/accounts", `{"appid":"a","secret":"b"} {}`, 400, "more than one"},
		{"POST", "/secrets", `{"appid":"wx2"}`, 400, "secret"},
		{"POST", "/secrets", `{"appid":"wx2","secret":"x"}`, 404, "wx2"},
		{"DELETE", "/accounts/wx2", ``, 404, "wx2"},
		{"POST", "/codes", `{"code_ticket":"t"}`, 400, "openid"},
		{"POST", "/codes", `{"openid":"o"}`, 400, "code_ticket"},
		{"POST", "/codes", `{"appid":"wx2","openid":"o","code_ticket":"t"}`, 404, "wx2"},
		{"POST", "/faults", `{}`, 400, "does nothing"},
		{"POST", "/faults", `{"endpoint":"x","errcode":1}`, 400, "endpoint"},
		{"POST", "/faults", `{"body":"x"}`, 400, "truncated"},
		{"POST", "/faults", `{"delay":"1s"}`, 400, "unknown field"},
		{"POST", "/foreign-refresh", `{"appid":"wx2","endpoint":"token"}`, 404, "wx2"},
		{"POST", "/foreign-refresh", `{"appid":"` + app + `"}`, 400, "issues no token"},
		{"POST", "/revoke", `{"token":"x"}`, 404, "token"},
		{"POST", "/revoke", `{}`, 400, "token"},
		{"POST", "/judge", `{"appid":"` + app + `","kind":"ticket","value":"x"}`, 400, "jsapi_ticket"},
		{"PUT", "/faults", `{}`, 404, "PUT /faults"},
		{"GET", "/nothing", ``, 404, "/nothing"},
	} {
		status, got := ask(c, tt.method, tt.path, tt.body)
		var e struct{ Error string }
		if err := json.Unmarshal([]byte(got), &e); err != nil {
			t.Errorf("%s %s %s: %v in %s", tt.method, tt.path, tt.body, err, got)
		}
		if status != tt.status || !strings.Contains(e.Error, tt.text) {
			t.Errorf("%s %s %s: %d %s, want %d with %q", tt.method, tt.path, tt.body, status, got, tt.status, tt.text)
		}
	}
}

func TestFaultSurvivesJSON(t *testing.T) {
	t.Parallel()
	for _, f := range []Fault{
		{
			AppID: "a", Endpoint: "token", Times: 1, Errcode: 2, Errmsg: "m", Status: 500, Body: "raw:x",
			Delay: 1500 * time.Millisecond, Hang: true, After: true,
		},
		{Drop: true},
	} {
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var got Fault
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(f, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", b, diff)
		}
	}
}

// runCurl runs the curl lines of a text in order. Their base is $C or the host of httptest.
func runCurl(t *testing.T, text string) (ran int) {
	t.Helper()
	fx := newFixture(t)
	c := fx.Control()
	fx.AddAccount(Account{AppID: "wx1", Secret: "s1"})
	line := regexp.MustCompile(`(?m)^(?://\t)?curl (?:-X (\w+) )?(?:-d '(.*)' )?(?:\$C|http://example\.com)(\S+)$`)
	for _, l := range line.FindAllStringSubmatch(text, -1) {
		ran++
		method, body, path := l[1], l[2], l[3]
		switch {
		case method == "" && body != "":
			method = "POST"
		case method == "":
			method = "GET"
		}
		if path == "/accounts/wx1" { // later lines still use the account
			defer ask(c, method, path, body)
			continue
		}
		if strings.Contains(body, "97_…") {
			body = strings.ReplaceAll(body, "97_…", fx.ok(fx.classic()).AccessToken)
		}
		if status, got := ask(c, method, path, body); status != http.StatusOK {
			t.Errorf("%s: %d %s", l[0], status, got)
		}
		if path == "/faults" && body != "" {
			fx.ClearFaults() // otherwise later lines would get no token
		}
	}
	return ran
}

func TestEveryCurlLineOfThePackageCommentWorks(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := runCurl(t, string(doc)); n < 17 {
		t.Errorf("only %d curl lines found", n)
	}
}

func TestTheListOfCallsIsCompleteAndWorks(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	status, list := ask(fx.Control(), "GET", "/", "")
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, list)
	}
	routes := fx.controlRoutes()
	if n := runCurl(t, list); n != len(routes) {
		t.Errorf("%d curl lines for %d calls:\n%s", n, len(routes), list)
	}
}
