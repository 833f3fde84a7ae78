//go:build cli

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/messages"
)

// fault is a fault of one endpoint, in the form of the simulation's control API.
type fault map[string]any

func (f fault) with(more fault) fault {
	all := fault{}
	for _, m := range []fault{f, more} {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

// faultsOf returns the faults of one endpoint, by name. In some of them the answer quotes the request; quoted is the
// content of the request.
func faultsOf(quoted string) map[string]fault {
	return map[string]fault{
		"busy": {"errcode": -1}, "dead-token": {"errcode": 40001}, "expired-token": {"errcode": 42001},
		"bad-ticket": {"errcode": 40097},
		"quota":      {"errcode": 45009}, "minute": {"errcode": 45011}, "white-list": {"errcode": 40164},
		"unknown-code": {"errcode": 99999},
		"quoting":      {"errcode": 40125, "errmsg": "invalid request " + quoted},
		"gateway":      {"status": 502}, "refusing": {"status": 403}, "hang": {"hang": true},
		"late": {"hang": true, "after": true}, "drop": {"drop": true},
		"truncated": {"body": "truncated"}, "half": {"body": "truncated", "after": true},
		"cut": {"body": "cut", "after": true}, "html": {"body": "html"},
		"empty": {"body": "empty"}, "binary": {"body": "binary"}, "huge": {"body": "huge"},
		"zipped":  {"body": "gzip", "after": true},
		"no-life": {"body": "zero_life", "after": true}, "no-value": {"body": "no_value"},
		"empty-value": {"body": "empty_value"},
		"long":        {"body": "long_value"}, "unprintable": {"body": "unprintable_value"},
		"page": {"body": "raw:<html>cannot serve " + quoted + "</html>", "status": 500},
	}
}

// evidence is the output of all processes, by its kind.
type evidence struct {
	mu      sync.Mutex
	seen    map[string]string
	secrets map[string]bool // texts that the output must not contain
}

func (e *evidence) add(where, what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen[where] += what + "\n"
}

func (e *evidence) secret(value string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.secrets[value] = true
}

// tokenLike matches tokens of the simulation, also tokens that were never published.
var tokenLike = regexp.MustCompile(`9\d_[A-Za-z0-9_-]{8,}`)

func (e *evidence) check(t *testing.T) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for where, what := range e.seen {
		for secret := range e.secrets {
			if i := strings.Index(what, secret); i >= 0 {
				t.Errorf("%s shows %q: …%s…", where, secret, what[max(0, i-300):min(len(what), i+300)])
			}
		}
		for _, i := range tokenLike.FindAllStringIndex(what, 3) {
			t.Errorf("%s shows a token: …%s…", where, what[max(0, i[0]-300):min(len(what), i[1]+100)])
		}
	}
}

// Every fault happens, at debug level, with secrets, tokens, tickets and openids that the test recognizes. No
// output shows one of them, no account causes a storm of calls, and the account without faults is not
// affected.
func TestNoSecretComesOut(t *testing.T) {
	t.Parallel()
	const (
		good     = "wx-good"
		openid   = "o" + canary + "_openid"
		ticket   = "t" + canary + "-ticket"
		user     = "keeper"
		password = "p" + canary + "-password"
	)
	e := &evidence{seen: map[string]string{}, secrets: map[string]bool{canary: true}}
	secretOf := func(appid string) string { return canary + "0123456789" + appid }

	// One account for each fault, so that the pause after one fault does not hide another fault.
	type entry struct {
		AppID    string `json:"appid"`
		Secret   string `json:"secret"`
		TokenAPI string `json:"token_api"`
	}
	accounts := []entry{{AppID: good, Secret: secretOf(good), TokenAPI: "stable_token"}}
	faults := map[string]fault{}
	for name := range faultsOf("") {
		accounts = append(accounts, entry{AppID: "report-" + name, Secret: secretOf("report-" + name),
			TokenAPI: "stable_token"})
		for _, endpoint := range []string{"stable_token", "token", "getticket"} {
			a := entry{AppID: endpoint + "-" + name, TokenAPI: "stable_token"}
			if endpoint == "token" {
				a.TokenAPI = "token"
			}
			a.Secret = secretOf(a.AppID)
			accounts = append(accounts, a)
			quoted := "/cgi-bin/" + endpoint + "?grant_type=client_credential&appid=" + a.AppID + "&secret=" +
				a.Secret + ` {"secret":"` + a.Secret + `"}`
			if endpoint == "getticket" {
				quoted = "/cgi-bin/ticket/getticket" // the token is not known yet; it is quoted below
			}
			faults[a.AppID] = faultsOf(quoted)[name].with(fault{"appid": a.AppID, "endpoint": endpoint, "times": 2})
		}
	}
	args := []string{"--latency=0s"}
	for _, a := range accounts {
		args = append(args, "--account="+a.AppID+":"+a.Secret)
	}
	sim := simulate(t, args...)
	for _, f := range faults {
		sim.post(t, "/faults", f)
	}
	file := filepath.Join(t.TempDir(), "accounts.json")
	body, err := json.Marshal(accounts)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}

	// The first worker only provides the NATS server, so that the test subscribes before the second worker starts.
	base := vars{
		"WECHAT_API_URL": sim.api, "WXKEEPER_LOG_LEVEL": "debug", "WECHAT_HTTP_TIMEOUT": "300ms",
		"WXKEEPER_RESOLVE_TIMEOUT": "1s",
		"NATS_USER":                user, "NATS_PASSWORD": password,
	}
	sim.post(t, "/accounts", map[string]string{"appid": "wx-host", "secret": secretOf("wx-host")})
	host := run(t, base.with(vars{
		"WECHAT_APPID": "wx-host", "WECHAT_SECRET": secretOf("wx-host"), "WXKEEPER_BUCKET": "host",
		"WXKEEPER_SUBJECT_PREFIX": "host",
	}))
	token := host.another(t)["NATS_TOKEN"]
	e.secret(token)
	nc, err := nats.Connect(host.nats, nats.Token(token))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	events := newOutput()
	subscribe := func(subject string, f func(m *nats.Msg)) {
		t.Helper()
		if _, err := nc.Subscribe(subject, f); err != nil {
			t.Fatal(err)
		}
	}
	subscribe("*.published.>", func(m *nats.Msg) {
		var c messages.Credential
		if json.Unmarshal(m.Data, &c) == nil && c.Value != "" {
			e.secret(c.Value)
		}
	})
	subscribe("*.event.>", func(m *nats.Msg) {
		fmt.Fprintf(events, "%s %v %s\n", m.Subject, m.Header, m.Data)
	})
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	withPassword := strings.Replace(host.nats, "nats://", "nats://"+user+":"+password+"@", 1)
	withToken := strings.Replace(host.nats, "nats://", "nats://"+token+"@", 1)
	k := run(t, base.with(vars{"WECHAT_ACCOUNTS_FILE": file, "NATS_URL": withToken, "NATS_USER": "",
		"NATS_PASSWORD": ""}))

	// Every fault happens, and causes a log line and an event.
	for appid, f := range faults {
		kind := "access_token"
		if f["endpoint"] == "getticket" {
			kind = "(jsapi|wx_card)_ticket"
		}
		k.find(t, k.stderr, `"msg":"refresh failed","appid":"`+appid+`","kind":"`+kind)
		failed := regexp.MustCompile(`(?m)^wechat\.event\.` + appid + `\.` + kind + `\.failed `)
		if !events.await(testContext(t), failed.MatchString) {
			t.Errorf("there is no event for the failure of %s", appid)
		}
	}
	k.find(t, k.stderr, `"msg":"credential published","appid":"`+good+`","kind":"access_token"`)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	value := func(bucket, key string) string {
		t.Helper()
		b, err := js.KeyValue(ctx, bucket)
		if err != nil {
			t.Fatal(err)
		}
		entry, err := b.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		var c messages.Credential
		if err := json.Unmarshal(entry.Value(), &c); err != nil {
			t.Fatal(err)
		}
		e.secret(c.Value)
		return c.Value
	}
	value("host", "wx-host.access_token")
	current := value("wechat", good+".access_token")

	// Requests, and their error replies.
	symbols := map[string]int{}
	ask := func(what, subject, body string) messages.Symbol {
		t.Helper()
		asking, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		m, err := nc.RequestWithContext(asking, subject, []byte(body))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if m.Header.Get(messages.HeaderErrorCode) == "" {
			symbols["ok"]++
			return "ok"
		}
		e.add("the error reply to "+what, fmt.Sprintf("%v %s", m.Header, m.Data))
		var refusal messages.Error
		if err := json.Unmarshal(m.Data, &refusal); err != nil || refusal.Symbol.Code() == 0 {
			t.Errorf("%s: %s", what, m.Data)
		}
		symbols[string(refusal.Symbol)]++
		return refusal.Symbol
	}
	marked := fmt.Sprintf(`{"appid":%q,"openid":%q,"code_ticket":%q}`, good, openid, ticket)
	sim.post(t, "/codes", map[string]string{"appid": good, "openid": openid, "code_ticket": ticket})
	if s := ask("a good request", "wechat.code.resolve", marked); s != "ok" {
		t.Fatalf("a good request: %s", s)
	}
	quoted := "/intp/marketcode/tickettocode?access_token=" + current + " " + marked + " openid=" + openid +
		" Bearer " + current
	for name, f := range faultsOf(quoted) {
		sim.post(t, "/faults", f.with(fault{"appid": good, "endpoint": "tickettocode"}))
		ask("a resolution with "+name, "wechat.code.resolve", marked)
		fetch(t, http.MethodDelete, sim.control+"/faults", "")
	}
	// A token that WeChat refuses, and then every fault while the worker handles the report; each with its
	// own account, because a pause follows a report.
	for name := range faultsOf("") {
		appid := "report-" + name
		for _, kind := range []string{"access_token", "jsapi_ticket", "wx_card_ticket"} {
			k.find(t, k.stderr, `"msg":"credential published","appid":"`+appid+`","kind":"`+kind)
		}
		token := value("wechat", appid+".access_token")
		jsapi := value("wechat", appid+".jsapi_ticket")
		sim.post(t, "/faults", fault{"appid": appid, "endpoint": "tickettocode", "errcode": 40001,
			"errmsg": "invalid credential, access_token " + token + " is invalid or not latest"})
		for endpoint, sent := range map[string]string{
			"get_api_domain_ip": "?access_token=" + token + " Bearer " + token,
			"getticket":         "?access_token=" + token + "&type=jsapi " + token, "stable_token": secretOf(appid),
		} {
			sim.post(t, "/faults", faultsOf(sent)[name].with(fault{"appid": appid, "endpoint": endpoint, "times": 1}))
		}
		ask("a resolution with a dead token and "+name, "wechat.code.resolve."+appid,
			`{"openid":"`+openid+`","code_ticket":"`+ticket+`"}`)
		ask("a report and "+name, "wechat.credential.refresh."+appid, `{}`)
		ask("a report of a ticket and "+name, "wechat.credential.refresh."+appid, `{"kind":"jsapi_ticket"}`)
		ask("a report of a value and "+name, "wechat.credential.refresh."+appid,
			`{"kind":"jsapi_ticket","value_sha256":"`+jsapi+`"}`)
	}
	fetch(t, http.MethodDelete, sim.control+"/faults", "")
	for what, r := range map[string][2]string{
		"no JSON":    {"wechat.code.resolve", "openid=" + openid + "&code_ticket=" + ticket},
		"half of it": {"wechat.code.resolve", marked[:len(marked)-4]},
		"an array":   {"wechat.code.resolve", "[" + marked + "]"},
		"a number": {"wechat.code.resolve",
			`{"appid":"` + good + `","openid":1,"code_ticket":"` + ticket + `"}`},
		"an object": {"wechat.code.resolve",
			`{"appid":"` + good + `","openid":{"` + openid + `":"` + ticket + `"},"code_ticket":"t"}`},
		"no ticket":  {"wechat.code.resolve." + good, `{"openid":"` + openid + `"}`},
		"no account": {"wechat.code.resolve", `{"openid":"` + openid + `","code_ticket":"` + ticket + `"}`},
		"another account": {"wechat.code.resolve." + good,
			`{"appid":"wx-other","openid":"` + openid + `","code_ticket":"` + ticket + `"}`},
		"an overlong openid": {"wechat.code.resolve." + good,
			`{"openid":"` + strings.Repeat(openid, 20) + `","code_ticket":"` + ticket + `"}`},
		"an overlong ticket": {"wechat.code.resolve." + good,
			`{"openid":"` + openid + `","code_ticket":"` + strings.Repeat(ticket, 20) + `"}`},
		"a ticket with a break": {"wechat.code.resolve." + good,
			`{"openid":"` + openid + `","code_ticket":"` + ticket + `\u0000"}`},
		"a secret for a kind":    {"wechat.credential.get." + good, `{"kind":1,"value":"` + current + `"}`},
		"a report of no digest":  {"wechat.credential.refresh." + good, `{"value_sha256":"` + current + `"}`},
		"a report of a number":   {"wechat.credential.refresh." + good, `{"revision":"` + current + `"}`},
		"a revision of tomorrow": {"wechat.credential.refresh." + good, `{"revision":18446744073709551615}`},
		"a page with a space":    {"wechat.jssdk.sign." + good, `{"url":"https://a.example/ ?code=` + ticket + `"}`},
		"a page without a URL":   {"wechat.jssdk.sign." + good, `{"url":"` + openid + `"}`},
		"an overlong card":       {"wechat.card.sign." + good, `{"card_id":"` + strings.Repeat(ticket, 20) + `"}`},
		"a choice for a user":    {"wechat.card.sign." + good, `{"action":"chooseCard","openid":"` + openid + `"}`},
		"an unknown action":      {"wechat.card.sign." + good, `{"action":"` + openid + `"}`},
		"an unknown account":     {"wechat.status.wx-nobody", `{}`},
	} {
		ask("a request with "+what, r[0], r[1])
	}
	t.Logf("replies: %v", symbols)
	if !strings.Contains(events.String(), ".conflict ") || !strings.Contains(events.String(), ".recovered ") {
		t.Error("there is no event of a conflict, or of a recovery")
	}
	for _, s := range []messages.Symbol{
		messages.InvalidRequest, messages.UnknownAccount, messages.Rejected, messages.Throttled,
		messages.QuotaExhausted, messages.Upstream, messages.UpstreamTimeout,
	} {
		if symbols[string(s)] == 0 {
			t.Errorf("no reply was %s: one kind of failure is not covered", s)
		}
	}

	// After all faults, the worker runs, and the account without faults has its token.
	if s := ask("a good request at the end", "wechat.code.resolve", marked); s != "ok" {
		t.Errorf("a good request at the end: %s", s)
	}
	value("wechat", good+".access_token")
	for appid, f := range faults {
		endpoint := f["endpoint"].(string)
		if n := sim.calls(t, appid)[endpoint]; n > 20 {
			t.Errorf("%d calls of %s for %s", n, endpoint, appid)
		}
	}

	// Other output.
	m, err := nc.RequestWithContext(ctx, "wechat.status", nil)
	if err != nil {
		t.Fatal(err)
	}
	e.add("the status", string(m.Data))
	env := vars{"NATS_URL": withToken}
	for _, args := range [][]string{
		{"status"}, {"status", "--json"}, {"resolve", "--appid=" + good, openid, "no" + ticket},
		{"get", "--appid=wx-nobody"}, {"refresh", "--appid=" + good},
	} {
		r := call(t, env, "", wxkeeper(t), args...)
		e.add("wxkeeper "+args[0], r.out+r.err)
	}
	// The verb check calls WeChat for every account, with new faults, and after all earlier faults.
	for _, f := range faults {
		sim.post(t, "/faults", f.with(fault{"endpoint": "stable_token", "times": 1}))
	}
	checking := base.with(vars{"WXKEEPER_HTTP_ADDR": "none", "WECHAT_ACCOUNTS_FILE": file, "NATS_URL": withToken,
		"NATS_USER": "", "NATS_PASSWORD": "", "WXKEEPER_LOG_LEVEL": ""})
	for _, args := range [][]string{{"check", "--timeout=3m"}, {"check", "--json", "--appid=" + good}} {
		r := call(t, checking, "", wxkeeper(t), args...)
		e.add("wxkeeper check", r.out+r.err)
		if want := map[int]int{2: exitFailure, 3: exitOK}[len(args)]; r.code != want {
			t.Errorf("wxkeeper %v: exit code %d, want %d", args, r.code, want)
		}
		if r.err != "" || !strings.Contains(r.out, "account") {
			t.Errorf("wxkeeper %v: %+v", args, r)
		}
	}
	r := call(t, vars{"NATS_URL": "nats://" + user + ":" + password + "@127.0.0.1:1"}, "", wxkeeper(t), "get")
	e.add("wxkeeper get without a server", r.out+r.err)
	r = call(t, vars{"NATS_URL": strings.Replace(withPassword, password, password+"x", 1)}, "", wxkeeper(t), "get")
	e.add("wxkeeper get with a wrong password", r.out+r.err)
	if r.code != 1 || !strings.Contains(r.err, "refuses this client") {
		t.Errorf("wxkeeper get with a wrong password: %+v", r)
	}
	for _, args := range [][]string{{"micro", "stats", "wechat"}, {"micro", "info", "wechat"}} {
		r := call(t, env, "", natsCommand(t), args...)
		e.add("nats "+strings.Join(args, " "), r.out)
	}
	for _, w := range []*workerProcess{host, k} {
		for _, page := range []string{"/", "/metrics", "/healthz", "/readyz", "/nothing"} {
			e.add("the page "+page, fetch(t, http.MethodGet, w.http+page, ""))
		}
	}
	for _, w := range []*workerProcess{k, host} {
		if code := w.stop(t, syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d", code)
		}
		e.add("standard output", w.stdout.String())
		e.add("standard error", w.stderr.String())
	}
	e.add("the events", events.String())
	if !strings.Contains(k.stderr.String(), `"level":"DEBUG"`) {
		t.Error("no line at debug level")
	}
	if len(e.secrets) < 50 {
		t.Errorf("only %d secrets are known", len(e.secrets))
	}
	e.check(t)
}
