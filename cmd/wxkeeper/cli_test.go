//go:build cli

package main

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/messages"
)

const (
	appid  = "wx0123456789abcdef"
	secret = "0123456789abcdef0123456789abcdef"

	// The sample of WeChat's page of tickettocode.
	sampleOpenID = "oiV2luCau8Cx0TMOy9lvZSLqRcKc"
	sampleTicket = "6cb4bc95e1f1abc97034cbe8fd484989"
	sample       = `{"openid":"` + sampleOpenID + `","code_ticket":"` + sampleTicket + `"}`
)

// sampleReply is the answer on WeChat's page, with the comma that is missing there.
func sampleReply(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../worker/wechat/testdata/tickettocode_repaired.json")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// account is the environment of a worker with one account of a simulation.
func (s *simulation) account(t *testing.T) vars {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil { // editors add the newline
		t.Fatal(err)
	}
	return vars{"WECHAT_API_URL": s.api, "WECHAT_APPID": appid, "WECHAT_SECRET_FILE": file}
}

// The nats command is enough for an operator, and shows what a service in any language can do.
func TestNATSCommand(t *testing.T) {
	t.Parallel()
	nats := natsCommand(t)
	sim := simulate(t, "--account="+appid+":"+secret, "--token-life=8s", "--ticket-life=8s")
	k := run(t, sim.account(t))
	k.awaitFresh(t)
	env, worker := k.client(t), k.another(t)
	ask := func(args ...string) string {
		t.Helper()
		env := env
		if args[0] == "kv" { // a consumer has no JetStream
			env = worker
		}
		r := call(t, env, "", nats, args...)
		if r.code != 0 {
			t.Fatalf("nats %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
		}
		return r.out
	}
	request := func(subject, body string) (headers, reply string) { // nats prints only the reply to stdout
		t.Helper()
		r := call(t, env, "", nats, "req", subject, body)
		if r.code != 0 {
			t.Fatalf("nats req %s: %+v", subject, r)
		}
		return r.err, r.out
	}

	for _, subject := range []string{"wechat.code.resolve", "wechat.code.resolve." + appid} {
		headers, reply := request(subject, sample)
		t.Logf("nats req %s '%s'\n%s%s", subject, sample, headers, reply)
		sameJSON(t, reply, sampleReply(t))
		if strings.Contains(headers, messages.HeaderErrorCode) {
			t.Errorf("a good answer has an error header:\n%s", headers)
		}
	}
	sameJSON(t, ask("req", "wechat.code.resolve", sample, "--raw"), sampleReply(t))

	for _, tt := range []struct{ name, subject, request, code, symbol, errcode string }{
		{"refused by WeChat", "wechat.code.resolve", `{"openid":"o1","code_ticket":"unknown"}`, "422", "rejected",
			"40097"},
		{"not JSON", "wechat.code.resolve", `openid=o1`, "400", "invalid_request", ""},
		{"field missing", "wechat.code.resolve", `{"openid":"o1"}`, "400", "invalid_request", ""},
		{"other appid in the body", "wechat.code.resolve." + appid, `{"appid":"wx2","openid":"o1","code_ticket":"t"}`,
			"400", "invalid_request", ""},
		{"unknown account", "wechat.credential.get.wx2", `{}`, "404", "unknown_account", ""},
		{"unknown kind", "wechat.credential.get", `{"kind":"password"}`, "404", "unknown_kind", ""},
	} {
		headers, reply := request(tt.subject, tt.request)
		if !strings.Contains(headers, messages.HeaderErrorCode+": "+tt.code) ||
			!strings.Contains(headers, messages.HeaderError+": ") {
			t.Errorf("%s: no header with %s:\n%s", tt.name, tt.code, headers)
		}
		var e messages.Error
		if err := json.Unmarshal([]byte(reply), &e); err != nil || string(e.Symbol) != tt.symbol {
			t.Errorf("%s: symbol %q, want %q: %v\n%s", tt.name, e.Symbol, tt.symbol, err, reply)
		}
		if tt.errcode != "" && (fmt.Sprint(e.Errcode) != tt.errcode || e.RID == "") {
			t.Errorf("%s: errcode %d, rid %q", tt.name, e.Errcode, e.RID)
		}
	}

	// The watch shows a refresh: two records of the token, the second with the next generation.
	watch := start(t, worker, nats, "kv", "watch", "wechat", "*.*")
	token := regexp.MustCompile(`PUT .*` + appid + `\.access_token: (\{.*\})`)
	var records [][]string
	if !watch.stdout.await(testContext(t),
		func(text string) bool { records = token.FindAllStringSubmatch(text, -1); return len(records) >= 2 }) {
		t.Fatalf("`nats kv watch` shows no refresh:\n%s", watch.stdout)
	}
	var first, second messages.Credential
	for i, c := range []*messages.Credential{&first, &second} {
		if err := json.Unmarshal([]byte(records[i][1]), c); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := second.Generation, first.Generation+1; got != want {
		t.Errorf("the second record has generation %d, want %d", got, want)
	}
	if second.Value == first.Value {
		t.Error("the second record has the same value")
	}
	if !second.ExpiresAt.After(first.ExpiresAt) {
		t.Errorf("the second record expires at %s, the first at %s", second.ExpiresAt, first.ExpiresAt)
	}
	if first.ExpiresAt.Before(second.ObtainedAt) {
		t.Errorf("the first record expired at %s, the second was obtained at %s", first.ExpiresAt, second.ObtainedAt)
	}

	// WeChat accepts the token in the bucket.
	var c messages.Credential
	if err := json.Unmarshal([]byte(ask("kv", "get", "wechat", appid+".access_token", "--raw")), &c); err != nil {
		t.Fatal(err)
	}
	if c.Generation < 2 || c.Worker == "" {
		t.Errorf("nats kv get: generation %d, worker %q", c.Generation, c.Worker)
	}
	want := messages.Credential{AppID: appid, Kind: messages.AccessToken, Source: messages.SourceStableToken}
	if d := cmp.Diff(want, messages.Credential{AppID: c.AppID, Kind: c.Kind, Source: c.Source}); d != "" {
		t.Errorf("nats kv get: -want +got\n%s", d)
	}
	if state := sim.post(t, "/judge", map[string]string{"appid": appid, "kind": "access_token",
		"value": c.Value}); !strings.Contains(state, "valid") {
		t.Errorf("for WeChat, the token in the bucket is %s", state)
	}

	// A page is signed with the ticket in the bucket. If the ticket changes in between, the test tries again.
	signed := false
	for try := 0; !signed && try < 3; try++ {
		if err := json.Unmarshal([]byte(ask("kv", "get", "wechat", appid+".jsapi_ticket", "--raw")), &c); err != nil {
			t.Fatal(err)
		}
		var page messages.JSSDKSignature
		if err := json.Unmarshal([]byte(ask("req", "wechat.jssdk.sign",
			`{"url":"https://shop.example.com/p?id=1#top"}`, "--raw")), &page); err != nil {
			t.Fatal(err)
		}
		sum := sha1.Sum(fmt.Appendf(nil,
			"jsapi_ticket=%s&noncestr=%s&timestamp=%d&url=https://shop.example.com/p?id=1", c.Value, page.NonceStr,
			page.Timestamp))
		signed = page.Signature == hex.EncodeToString(sum[:])
	}
	if !signed {
		t.Error("wechat.jssdk.sign does not sign with the ticket of the bucket")
	}
	if got := ask("req", "wechat.card.sign."+appid, `{"card_id":"pCard"}`, "--raw"); !strings.Contains(got,
		`"cardExt":"{\"timestamp\":\"`) {
		t.Errorf("wechat.card.sign: %s", got)
	}

	if got := ask("micro", "ls"); !strings.Contains(got, "wechat") {
		t.Errorf("nats micro ls:\n%s", got)
	}
	if got := ask("micro", "info", "wechat"); !strings.Contains(got, "wechat.code.resolve.*") ||
		!strings.Contains(got, "code_ticket") || !strings.Contains(got, "wechat.status") {
		t.Errorf("nats micro info:\n%s", got)
	}
	if got := ask("micro", "stats", "wechat"); !strings.Contains(got, "code_resolve") {
		t.Errorf("nats micro stats:\n%s", got)
	}
	if got := ask("kv", "get", "wechat", appid+".jsapi_ticket", "--raw"); !strings.Contains(got,
		`"source":"getticket"`) {
		t.Errorf("nats kv get, ticket: %s", got)
	}
	for _, p := range []*process{k.process, sim.process} {
		if code := p.stop(t, syscall.SIGTERM); code != 0 {
			t.Errorf("%s: exit code %d after SIGTERM", p.name, code)
		}
	}
}

// A second worker, a stop and a kill cause no call of WeChat.
func TestWorkersComeAndGoWithoutCallingWeChat(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--account="+appid+":"+secret)
	env := sim.account(t).with(vars{"WXKEEPER_DATA_DIR": filepath.Join(t.TempDir(), "data")})
	unchanged := func(when string, want map[string]int) {
		t.Helper()
		if got := sim.calls(t, appid); !maps.Equal(got, want) {
			t.Fatalf("%s: calls %v, want %v", when, got, want)
		}
	}

	first := run(t, env)
	first.awaitFresh(t)
	calls := map[string]int{"stable_token": 1, "getticket": 2}
	unchanged("after the start", calls)

	// The second worker finds its token in the directory of the first.
	second := run(t, env.with(vars{"NATS_URL": first.nats}))
	second.awaitFresh(t)
	infos := call(t, first.client(t), "", natsCommand(t), "micro", "ls")
	if n := len(regexp.MustCompile(`\b[A-Za-z0-9]{22}\b`).FindAllString(infos.out, -1)); n != 2 {
		t.Errorf("nats micro ls shows %d workers:\n%s", n, infos.out)
	}
	if code := second.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("the second worker: exit code %d after SIGTERM", code)
	}
	unchanged("after a second worker has come and gone", calls)
	if r := call(t, first.client(t), "", wxkeeper(t), "resolve", sampleOpenID, sampleTicket); r.code != 0 {
		t.Errorf("after the second worker has gone: %+v", r)
	}
	calls["tickettocode"] = 1

	// kill -9, and a new worker with the same data directory.
	if code := first.stop(t, syscall.SIGKILL); code != -1 {
		t.Errorf("killed: exit code %d", code)
	}
	third := run(t, env)
	third.awaitFresh(t)
	dir := vars{"WXKEEPER_DATA_DIR": env["WXKEEPER_DATA_DIR"]}
	if r := call(t, dir, "", wxkeeper(t), "get"); r.code != 0 || len(r.out) < 100 {
		t.Errorf("after the kill: %+v", r)
	}
	// The error of a second worker on the same directory contains how to join.
	r := call(t, env.with(vars{"WXKEEPER_HTTP_ADDR": "none", "WXKEEPER_NATS_LISTEN": "127.0.0.1:0"}), "", wxkeeper(t),
		"run")
	if r.code != exitFailure || strings.Count(r.err, "\n") != 1 {
		t.Errorf("a second worker on the same directory: %+v", r)
	}
	for _, want := range []string{fmt.Sprintf("another wxkeeper (pid %d)", third.cmd.Process.Pid),
		"NATS_URL=" + third.nats + ";"} {
		if !strings.Contains(r.err, want) {
			t.Errorf("a second worker on the same directory: no %q in %q", want, r.err)
		}
	}
	if code := third.stop(t, syscall.SIGINT); code != 0 {
		t.Errorf("exit code %d after SIGINT", code)
	}
	unchanged("after kill -9 and a restart", calls)
}

func TestVerbs(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--account="+appid+":"+secret, "--account=wx2:other", "--force-gap=0s")
	accounts := filepath.Join(t.TempDir(), "accounts.json")
	if err := os.WriteFile(accounts, []byte(`[{"appid":"`+appid+`","secret":"`+secret+`","name":"shop"},{"appid":"wx2","secret":"wrong"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	// wx2 has a wrong secret: WeChat issues no token for it.
	k := run(t, vars{"WECHAT_API_URL": sim.api, "WECHAT_ACCOUNTS_FILE": accounts})
	k.find(t, k.stderr, `"msg":"refresh failed","appid":"wx2"`)
	k.find(t, k.stderr, `"msg":"credential published","appid":"`+appid+`","kind":"jsapi_ticket"`)
	k.find(t, k.stderr, `"msg":"credential published","appid":"`+appid+`","kind":"wx_card_ticket"`)
	if r := call(t, vars{"WXKEEPER_HTTP_ADDR": strings.TrimPrefix(k.http, "http://")}, "", wxkeeper(t),
		"health"); r.code != 0 || r.out != "ok\n" {
		t.Errorf("health: %+v", r)
	}
	if r := call(t, vars{"WXKEEPER_HTTP_ADDR": "none"}, "", wxkeeper(t), "health"); r.code != 2 ||
		!strings.Contains(r.err, "WXKEEPER_HTTP_ADDR: none") {
		t.Errorf("health of a worker without pages: %+v", r)
	}
	env := k.client(t)
	mine := env.with(vars{"WECHAT_APPID": appid})
	bin := wxkeeper(t)
	ok := func(env vars, stdin string, args ...string) string {
		t.Helper()
		r := call(t, env, stdin, bin, args...)
		if r.code != 0 || r.err != "" {
			t.Fatalf("wxkeeper %s: %+v", strings.Join(args, " "), r)
		}
		return r.out
	}
	refused := func(env vars, stdin string, symbol string, args ...string) result {
		t.Helper()
		r := call(t, env, stdin, bin, args...)
		if r.code != 1 || r.out != "" || !strings.HasPrefix(r.err, "wxkeeper: "+symbol+" (") {
			t.Errorf("wxkeeper %s: %+v, want %s", strings.Join(args, " "), r, symbol)
		}
		return r
	}

	t.Run("get", func(t *testing.T) {
		value := ok(mine, "", "get")
		if strings.Count(value, "\n") != 1 || len(value) < 100 || strings.ContainsAny(value, " {") {
			t.Errorf("get to a pipe: %q", value)
		}
		var c messages.Credential
		if err := json.Unmarshal([]byte(ok(env, "", "get", "--appid="+appid, "--json")), &c); err != nil {
			t.Fatal(err)
		}
		if c.Value+"\n" != value {
			t.Error("get --json has another value than get")
		}
		if c.Revision == 0 || c.Generation != 1 || c.AppID != appid {
			t.Errorf("get --json: %v", c)
		}
		for _, kind := range []string{"jsapi_ticket", "wx_card_ticket"} {
			if got := ok(mine, "", "get", kind); got == value || len(got) < 10 {
				t.Errorf("get %s: %q", kind, got)
			}
		}
		refused(env, "", "invalid_request", "get") // two accounts, and no --appid
		refused(env, "", "unknown_account", "get", "--appid=wx3")
		r := refused(env, "", "no_credential", "get", "--appid=wx2")
		if !strings.Contains(r.err, "\n  try again in: ") {
			t.Errorf("no retry-after: %q", r.err)
		}
	})

	t.Run("resolve", func(t *testing.T) {
		sameJSON(t, ok(mine, "", "resolve", sampleOpenID, sampleTicket), sampleReply(t))
		sameJSON(t, ok(mine, sample, "resolve", "-"), sampleReply(t))
		sameJSON(t, ok(env, `{"appid":"`+appid+`",`+sample[1:], "resolve", "-"), sampleReply(t))
		sim.post(t, "/codes", map[string]string{"appid": appid, "openid": "o1", "code_ticket": "-dash"})
		if got := ok(mine, "", "resolve", "o1", "--", "-dash"); !strings.Contains(got, `"code"`) {
			t.Errorf("a ticket with a dash: %s", got)
		}
		r := refused(mine, "", "rejected", "resolve", "o1", "unknown")
		if strings.Count(r.err, "errcode 40097 ") != 1 || strings.Count(r.err, "rid ") != 1 ||
			strings.Count(r.err, "\n") != 1 {
			t.Errorf("errcode and rid are not printed once: %q", r.err)
		}
		refused(mine, "", "invalid_request", "resolve", strings.Repeat("o", 129), "t")
	})

	t.Run("status", func(t *testing.T) {
		r := call(t, env, "", bin, "status")
		t.Logf("wxkeeper status\n%s", r.out)
		if r.code != 1 || r.err != "" {
			t.Errorf("with a credential missing: exit code %d, %q", r.code, r.err)
		}
		for _, want := range []string{
			`(?m)^STATE +ACCOUNT +KIND`, `(?m)^MISSING +wx2 +access_token`,
			`(?m)^fresh +` + appid + ` \(shop\) +access_token +in 1h5\dm`,
			`(?m)^fresh +` + appid + ` \(shop\) +jsapi_ticket +in 1h5\dm +check in 1\dm`,
			`(?m)^    why: .*40125`, `(?m)^    do: `, `(?m)^2 accounts, 6 credentials: 3 missing, 3 fresh; worker `,
		} {
			if !regexp.MustCompile(want).MatchString(r.out) {
				t.Errorf("status lacks %q", want)
			}
		}
		if got := ok(env, "", "status", "--appid="+appid); !strings.Contains(got, ", 3 credentials: 3 fresh;") {
			t.Errorf("status of one account:\n%s", got)
		}
		var st messages.Status
		if err := json.Unmarshal([]byte(call(t, env, "", bin, "status", "--json").out), &st); err != nil ||
			len(st.Credentials) != 6 {
			t.Errorf("status --json: %d credentials, %v", len(st.Credentials), err)
		}
		refused(env, "", "unknown_account", "status", "--appid=wx3")
	})

	t.Run("watch", func(t *testing.T) {
		env := k.another(t)
		w := start(t, env, bin, "watch", "--json", "--appid="+appid)
		text := start(t, env, bin, "watch")
		w.find(t, w.stdout, `(?m)^\{.*"kind":"access_token","generation":1,.*"source":"stable_token".*\}$`)
		w.find(t, w.stdout, `"kind":"wx_card_ticket","generation":1`)
		text.find(t, text.stdout, `(?m)^\d\d:\d\d:\d\d  `+appid+`  access_token    generation 1  revision \d+  expires in 1h5\dm  stable_token by `)
		value := strings.TrimSpace(ok(mine, "", "get"))

		// Another system forces a new token twice: the token in the bucket is dead, and the next report replaces it.
		for range 2 {
			sim.post(t, "/foreign-refresh", map[string]string{"appid": appid, "endpoint": "stable_token"})
		}
		if got := ok(mine, "", "refresh"); !strings.HasPrefix(got, "refreshed: ") ||
			!strings.Contains(got, "is generation 2,") {
			t.Errorf("refresh of a dead token: %q", got)
		}
		w.find(t, w.stdout, `(?m)^\{.*"kind":"access_token","generation":2,`)
		text.find(t, text.stdout, `access_token    generation 2  `)
		if now := strings.TrimSpace(ok(mine, "", "get")); now == value {
			t.Error("the value is still the dead token")
		}
		none := start(t, env, bin, "watch", "--appid=wx3")
		none.find(t, none.stderr, `^wxkeeper: .*wx3.*unknown_account.* \(trying again\)\n`)
		for p, wantErr := range map[*process]string{w: "", text: "wxkeeper: no credential of wx2 yet\n"} {
			if code := p.stop(t, syscall.SIGTERM); code != 0 || strings.Contains(p.stdout.String(), value) ||
				p.stderr.String() != wantErr {
				t.Errorf("%s: exit code %d, or it shows a value:\n%s%s", p.name, code, p.stdout, p.stderr)
			}
		}
		if got := call(t, env, "", bin, "status", "--appid="+appid).out; !strings.Contains(got, "conflicts: ") ||
			!strings.Contains(got, ", last conflict ") {
			t.Errorf("the conflict is not in the status:\n%s", got)
		}
	})

	t.Run("refresh", func(t *testing.T) {
		value := strings.TrimSpace(ok(mine, "", "get"))
		report := func(args ...string) (r messages.Refreshed) {
			t.Helper()
			if err := json.Unmarshal([]byte(ok(mine, "", append([]string{"refresh", "--json"}, args...)...)),
				&r); err != nil {
				t.Fatal(err)
			}
			return r
		}
		if r := report("--revision=1"); r.Reason != messages.ReasonNotCurrent || r.Generation != 2 {
			t.Errorf("report of an old revision: %+v", r)
		}
		if r := report("--value-sha256=" + strings.Repeat("0", 64)); r.Reason != messages.ReasonNotCurrent ||
			r.Refreshed {
			t.Errorf("report of another value: %+v", r)
		}
		sum := sha256.Sum256([]byte(value))
		if r := report("--value-sha256=" + hex.EncodeToString(sum[:])); r.Reason != messages.ReasonAlive ||
			r.Refreshed {
			t.Errorf("report of a living value: %+v", r)
		}
		if got := ok(mine, "", "refresh", "--value-sha256="+strings.Repeat("0", 64)); !strings.HasPrefix(got,
			"not_current: ") || !strings.Contains(got, "expires in ") {
			t.Errorf("refresh: %q", got)
		}
		refused(mine, "", "invalid_request", "refresh", "--value-sha256=zz")
	})

	t.Run("no worker", func(t *testing.T) {
		r := call(t, mine.with(vars{"WXKEEPER_SUBJECT_PREFIX": "other"}), "", bin, "get")
		if r.code != 1 || strings.Count(r.err, "\n") != 1 ||
			!strings.Contains(r.err, "no worker answers on other.> at nats://") {
			t.Errorf("%+v", r)
		}
		w := start(t, env.with(vars{"WXKEEPER_SUBJECT_PREFIX": "other"}), bin, "watch", "--appid="+appid)
		w.find(t, w.stderr, `^wxkeeper: .*no worker listens \(trying again\)\n`)
		if code := w.stop(t, syscall.SIGINT); code != 0 || w.stdout.String() != "" {
			t.Errorf("exit code %d, %q", code, w.stdout)
		}
	})
}
