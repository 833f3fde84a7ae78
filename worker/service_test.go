package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

const sample = `{"openid":"` + openid + `","code_ticket":"` + codeTicket + `"}`

// Each error of docs/architecture.md#subjects that a request alone can cause, on the wire: headers, symbol, and
// no call of WeChat. The errors that WeChat causes are in resolver_test.go.
func TestBadRequestsAreRefusedClearlyAndCostNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{Accounts: []wechattest.Account{
		{AppID: appid, Secret: secret}, {AppID: "wx2", Secret: secret},
	}})
	w := f.worker(func(c *Config) {
		c.Accounts = append(c.Accounts, Account{AppID: "wx2", Secret: secret,
			Tickets: []messages.Kind{messages.JSAPITicket}})
	})
	for _, id := range []string{appid, "wx2"} {
		w.awaitOf(id, messages.AccessToken, 0)
	}
	w.awaitOf("wx2", messages.JSAPITicket, 0)
	calls := f.calls("")
	const invalid = messages.InvalidRequest
	const mark = "\ufeff" // the byte order mark
	long := strings.Repeat("x", 300)
	huge, longURL := strings.Repeat("x", messages.MaxRequest), strings.Repeat("x", messages.MaxURL)
	for _, tc := range []struct {
		subject, body string
		want          messages.Symbol
		message       string // a part of it
	}{
		{"code.resolve", `{`, invalid, "not a JSON object"},
		{"code.resolve", `[]`, invalid, "not a JSON object"},
		{"code.resolve", `"text"`, invalid, "not a JSON object"},
		{"code.resolve", sample + sample, invalid, "not a JSON object"},
		{"code.resolve", sample, invalid, "appid is missing"},
		{"code.resolve.wx2", ``, invalid, "openid is missing"},
		{"code.resolve.wx2", `{"openid":"o"}`, invalid, "code_ticket is missing"},
		{"code.resolve.wx2", `{"openid":7,"code_ticket":"t"}`, invalid, "openid must be a JSON string"},
		{"code.resolve.wx2", `{"openid":"o","code_ticket":{"a":1}}`, invalid, "code_ticket must be a JSON string"},
		{"code.resolve.wx2", `{"openid":"` + long + `","code_ticket":"t"}`, invalid, "openid has 300 bytes"},
		{"code.resolve.wx2", `{"openid":"o","code_ticket":"` + long + `"}`, invalid, "code_ticket has 300 bytes"},
		{"code.resolve.wx2", `{"openid":"a b","code_ticket":"t"}`, invalid, "not printable ASCII"},
		{"code.resolve.wx2", `{"openid":"o","code_ticket":"t","pad":"` + huge + `"}`, invalid, "at most"},
		{"code.resolve.wx2", `{"appid":"` + appid + `","openid":"o","code_ticket":"t"}`, invalid, "appid of the body"},
		{"code.resolve", `{"appid":"wx.2","openid":"o","code_ticket":"t"}`, invalid, "appid"},
		{"code.resolve", `{"appid":"wx3","openid":"o","code_ticket":"t"}`, messages.UnknownAccount, "wx3"},
		{"code.resolve.wx3", sample, messages.UnknownAccount, "wx3"},
		{"credential.get.wx2", `{"kind":"nonsense"}`, messages.UnknownKind, "nonsense"},
		{"credential.get.wx2", `{"kind":"wx_card_ticket"}`, messages.NotConfigured, "WECHAT_TICKETS"},
		{"credential.get.wx3", `{}`, messages.UnknownAccount, "wx3"},
		{"credential.get", `{}`, invalid, "appid is missing"},
		{"credential.refresh.wx2", `{"revision":-1}`, invalid, "revision must be a JSON number"},
		{"credential.refresh.wx2", `{"value_sha256":"abc"}`, invalid, "64 hexadecimal digits"},
		{"credential.refresh.wx2", `{"kind":"x"}`, messages.UnknownKind, "x"},
		{"jssdk.sign.wx2", `{}`, invalid, "url is missing"},
		{"jssdk.sign.wx2", `{"url":"#top"}`, invalid, "url is missing"},
		{"jssdk.sign.wx2", `{"url":7}`, invalid, "url must be a JSON string"},
		{"jssdk.sign.wx2", `{"url":"shop.example.com/` + long + `"}`, invalid, "must begin with http://"},
		{"jssdk.sign.wx2", `{"url":"ftp://shop.example.com/"}`, invalid, "must begin with http://"},
		{"jssdk.sign.wx2", `{"url":"https%3A%2F%2Fshop.example.com%2F"}`, invalid, "not URL-encoded"},
		{"jssdk.sign.wx2", `{"url":"https:///path"}`, invalid, "a host"},
		{"jssdk.sign.wx2", `{"url":"https://"}`, invalid, "a host"},
		{"jssdk.sign.wx2", `{"url":"https://a.example/b c"}`, invalid, "byte 19"},
		{"jssdk.sign.wx2", `{"url":"https://a.example/\n"}`, invalid, "unprintable"},
		{"jssdk.sign.wx2", "{\"url\":\"https://a.example/\xff\"}", invalid, "unprintable"},
		{"jssdk.sign.wx2", `{"url":"https://a.example/` + longURL + `"}`, invalid, "at most 8192"},
		{"jssdk.sign.wx2", `{"appid":"` + appid + `","url":"https://a.example/"}`, invalid, "appid of the body"},
		{"jssdk.sign", `{"appid":"` + appid + `","url":"https://a.example/"}`, messages.NotConfigured,
			"WECHAT_TICKETS"},
		{"jssdk.sign.wx3", `{"url":"https://a.example/"}`, messages.UnknownAccount, "wx3"},
		{"card.sign.wx2", `{}`, invalid, "card_id is missing"},
		{"card.sign.wx2", `{"action":"openCard"}`, invalid, "addCard or chooseCard"},
		{"card.sign.wx2", `{"card_id":"` + long + `"}`, invalid, "card_id has 300 bytes"},
		{"card.sign.wx2", `{"card_id":"p","openid":"` + long + `"}`, invalid, "openid has 300 bytes"},
		{"card.sign.wx2", `{"card_id":"p","code":"1 2"}`, invalid, "code has a space"},
		{"card.sign.wx2", `{"card_id":"p","code":12}`, invalid, "code must be a JSON string"},
		{"card.sign.wx2", `{"card_id":"p","shop_id":"1"}`, invalid, "only the action chooseCard"},
		{"card.sign.wx2", `{"card_id":"p","card_type":"CASH"}`, invalid, "only the action chooseCard"},
		{"card.sign.wx2", `{"action":"chooseCard","code":"1"}`, invalid, "only the action addCard"},
		{"card.sign.wx2", `{"action":"chooseCard","openid":"o"}`, invalid, "only the action addCard"},
		{"card.sign.wx2", `{"action":"chooseCard","fixed_begintimestamp":1}`, invalid, "only the action addCard"},
		{"card.sign.wx2", `{"card_id":"p","fixed_begintimestamp":-1}`, invalid, "negative"},
		{"card.sign.wx2", `{"card_id":"p","fixed_begintimestamp":"1"}`, invalid, "must be a JSON number"},
		{"card.sign.wx2", `{"card_id":"p"}`, messages.NotConfigured, "WECHAT_TICKETS"},
		{"card.sign.wx3", `{"card_id":"p"}`, messages.UnknownAccount, "wx3"},
		{"status.wx3", `{}`, messages.UnknownAccount, "wx3"},
		{"status", `{"appid":true}`, invalid, "appid must be a JSON string"},

		// Requests are saved by editors: the byte order mark is no fault, and another encoding than UTF-8 is named.
		{"code.resolve.wx2", mark + `{"openid":"o"}`, invalid, "code_ticket is missing"},
		{"credential.get.wx2", mark + `{"kind":"nonsense"}`, messages.UnknownKind, "nonsense"},
		{"credential.refresh.wx2", mark + `{"value_sha256":"abc"}`, invalid, "64 hexadecimal digits"},
		{"jssdk.sign.wx2", mark + `{"url":"ftp://a.example/"}`, invalid, "must begin with http://"},
		{"card.sign.wx2", mark + `{"action":"openCard"}`, invalid, "addCard or chooseCard"},
		{"status", mark + `{"appid":true}`, invalid, "appid must be a JSON string"},
		{"code.resolve.wx2", mark, invalid, "openid is missing"},
		{"code.resolve.wx2", "\xff\xfe{\x00}\x00", invalid, "the request is UTF-16: save it as UTF-8"},
		{"status", "{\x00}\x00", invalid, "the request is UTF-16: save it as UTF-8"},
		{"card.sign.wx2", "{\"card_id\":\"p\",\"outer_str\":\"\xba\xa3\xb1\xa8\"}", invalid, "GBK: save it as UTF-8"},
	} {
		name := fmt.Sprintf("%s %.60s", tc.subject, tc.body)
		m, err := w.nc.Request("wechat."+tc.subject, []byte(tc.body), patience)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var e messages.Error
		if err := json.Unmarshal(m.Data, &e); err != nil {
			t.Errorf("%s: the reply %s: %v", name, m.Data, err)
		}
		if e.Symbol != tc.want {
			t.Errorf("%s: the symbol is %s, want %s", name, e.Symbol, tc.want)
		}
		if !strings.Contains(e.Message, tc.message) {
			t.Errorf("%s: the message is %q, want %q in it", name, e.Message, tc.message)
		}
		if code, want := m.Header.Get(messages.HeaderErrorCode), strconv.Itoa(tc.want.Code()); code != want {
			t.Errorf("%s: the code in the header is %q, want %q", name, code, want)
		}
		if m.Header.Get(messages.HeaderError) == "" {
			t.Errorf("%s: there is no message in the header", name)
		}
		if strings.Contains(string(m.Data), long) {
			t.Errorf("%s: the error repeats the input", name)
		}
	}
	f.checkCalls("", calls)
}

func TestCredentialGetReturnsTheRecordAndItsRevision(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(everything)
	for _, k := range messages.Kinds {
		w.await(k, 0)
		w.awaitIdle()
		stored, err := w.stored(k)
		if err != nil {
			t.Fatal(err)
		}
		if stored.Revision == 0 {
			t.Errorf("the record of the %s has no revision", k)
		}
		got, err := w.client.GetCredential(f.context(), messages.GetCredentialRequest{AppID: appid, Kind: k})
		if err != nil {
			t.Fatal(err)
		}
		checkDiff(t, "credential.get of the "+string(k), got, stored)
	}
}

func TestIsANATSMicroService(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(nil)
	w.await(messages.AccessToken, 0)
	if _, err := w.resolve(); err != nil {
		t.Fatal(err)
	}
	unknown := messages.ResolveCodeRequest{OpenID: "o", CodeTicket: "unknown"}
	if _, err := w.client.ResolveCode(f.context(), unknown); err == nil {
		t.Fatal("an unknown ticket was resolved")
	}
	m, err := w.nc.Request("$SRV.INFO.wechat", nil, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("$SRV.INFO: %d bytes", len(m.Data))
	if len(m.Data) > 32<<10 {
		t.Errorf("the answer of $SRV.INFO has %d bytes, want at most 32 KiB", len(m.Data))
	}
	var info micro.Info
	if err := json.Unmarshal(m.Data, &info); err != nil {
		t.Fatal(err)
	}
	var subjects, want []string
	for _, e := range info.Endpoints {
		subjects = append(subjects, e.Subject)
		checkEndpoint(t, e)
	}
	for _, subject := range messages.Subjects {
		want = append(want, "wechat."+subject, "wechat."+subject+".*")
	}
	checkDiff(t, "the subjects of the endpoints", subjects, want)
	m, err = w.nc.Request("$SRV.STATS.wechat", nil, patience)
	if err != nil {
		t.Fatal(err)
	}
	for _, count := range []string{`"errors":1`, `"ok":1`} {
		if !strings.Contains(string(m.Data), count) {
			t.Errorf("the answer of $SRV.STATS has no %s: %s", count, m.Data)
		}
	}
}

// checkEndpoint checks the queue group and the metadata of an endpoint.
func checkEndpoint(t *testing.T, e micro.EndpointInfo) {
	t.Helper()
	if e.QueueGroup != "wechat" {
		t.Errorf("the queue group of %s is %q, want wechat", e.Subject, e.QueueGroup)
	}
	subject := strings.TrimSuffix(strings.TrimPrefix(e.Subject, "wechat."), ".*")
	for _, part := range []string{"request", "reply"} {
		if e.Metadata[part] == "" {
			t.Errorf("%s has no %s in its metadata", e.Subject, part)
		}
		text := e.Metadata[part+"_schema"]
		var schema struct {
			ID         string `json:"$id"`
			Properties map[string]any
		}
		if err := json.Unmarshal([]byte(text), &schema); err != nil {
			t.Errorf("the schema of the %s of %s: %v", part, e.Subject, err)
			continue
		}
		if len(schema.Properties) == 0 {
			t.Errorf("the schema of the %s of %s has no properties", part, e.Subject)
		}
		if strings.Contains(text, "description") {
			t.Errorf("the schema of the %s of %s has descriptions", part, e.Subject)
		}
		if want := "/" + subject + "." + part + ".json"; !strings.HasSuffix(schema.ID, want) {
			t.Errorf("the schema of the %s of %s is %s, want %s", part, e.Subject, schema.ID, want)
		}
	}
}

func TestStatusDescribesEveryCredential(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(func(c *Config) { everything(c); c.Accounts[0].Name = "shop" })
	for _, k := range messages.Kinds {
		w.await(k, 0)
		w.awaitIdle()
	}
	for _, req := range []messages.StatusRequest{{}, {AppID: appid}} {
		st, err := w.client.Status(f.context(), req)
		if err != nil {
			t.Fatal(err)
		}
		checkDiff(t, "the summary", st.Summary, map[messages.State]int{messages.StateFresh: 3})
		if st.Accounts != 1 {
			t.Errorf("the status has %d accounts, want 1", st.Accounts)
		}
		if len(st.Credentials) != 3 {
			t.Errorf("the status has %d credentials, want 3", len(st.Credentials))
		}
		for _, c := range st.Credentials {
			if !c.NextAttempt.After(st.Time) || !c.NextAttempt.Before(c.ExpiresAt) {
				t.Errorf("the next attempt of the %s is at %s, want it between now (%s) and its end (%s)",
					c.Kind, c.NextAttempt, st.Time, c.ExpiresAt)
			}
			held, err := w.memory.get(appid, c.Kind)
			if err != nil {
				t.Fatal(err)
			}
			now := f.clock.Now().UTC()
			checkDiff(t, "the status of the "+string(c.Kind), c, messages.CredentialStatus{
				AppID: appid, Name: "shop", Kind: c.Kind, State: messages.StateFresh, Reason: messages.ReasonFresh,
				Source: held.Source, Generation: 1, Revision: held.Revision, Worker: "w",
				ObtainedAt: held.ObtainedAt, ExpiresAt: held.ExpiresAt,
				NextAttempt: c.NextAttempt, LastAttempt: now, CallsToday: 1,
			})
		}
	}
}

func TestStopAnswersTheRequestsInProgressAndLeavesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{Latency: 300 * time.Millisecond, AnyCode: true})
	first, second := f.worker(nil), f.worker(nil)
	first.await(messages.AccessToken, 0)
	second.await(messages.AccessToken, 0)
	const requests = 60
	var wg sync.WaitGroup
	for i := range requests {
		wg.Go(func() {
			req := messages.ResolveCodeRequest{OpenID: "o", CodeTicket: fmt.Sprint("t", i)}
			if _, err := first.client.ResolveCode(f.context(), req); err != nil {
				t.Errorf("a request was lost: %v", err)
			}
		})
	}
	f.eventually("some requests are in progress", func() bool { return f.calls("tickettocode") > 10 })
	first.stop()
	wg.Wait()
	second.stop()
	second.client.FailFast = true
	_, err := second.client.ResolveCode(f.context(), messages.ResolveCodeRequest{OpenID: "o", CodeTicket: "t"})
	if !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("a request after the stop: %v, want ErrNoResponders", err)
	}
	lease := "lease." + messages.Key(appid, messages.AccessToken)
	if _, err := f.bucket("wechat").Get(f.context(), lease); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("a lease was left behind: %v", err)
	}
}

// SIGTERM during a classic fetch: the token that WeChat issues is published, and the lease released.
func TestStopEndsTheRefreshThatHasBegun(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.wechat.Inject(wechattest.Fault{Endpoint: "token", Delay: 500 * time.Millisecond})
	w := f.worker(classic)
	f.eventually("the call is in progress", func() bool { return f.calls("token") == 1 })
	w.stop()
	w = f.worker(classic)
	f.checkValid(w.await(messages.AccessToken, 0))
	f.checkCalls("token", 1)
}

// The flight of a report outlives the requests that joined it. A stop waits for it: the token that WeChat
// issues is published.
func TestStopWaitsForTheReportThatIsInFlight(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(classic)
	first := w.await(messages.AccessToken, 0)
	f.wechat.Revoke(first.Value)
	f.wechat.Inject(wechattest.Fault{Endpoint: "token", Delay: time.Second})
	ctx, cancel := context.WithCancel(f.context())
	ended := make(chan error, 1)
	go func() {
		report := policy.Report{Revision: first.Revision}
		_, err := w.refresher.report(ctx, w.accounts.get(appid), messages.AccessToken, report)
		ended <- err
	}()
	f.eventually("the token call is in progress", func() bool { return f.calls("token") == 2 })
	cancel()
	if err := <-ended; err == nil {
		t.Error("the report was answered, although its request was cancelled")
	}
	w.stop()
	w = f.worker(classic)
	f.checkValid(w.await(messages.AccessToken, first.Generation))
	f.checkCalls("token", 2)
}

func TestNATSAwayResolvesFromMemoryAndFetchesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	f.hurried = true
	w := f.worker(nil)
	c := w.await(messages.AccessToken, 0)
	w.awaitQuiet(messages.AccessToken)
	f.nats.Stop()
	account := w.accounts.get(appid)
	reply, err := w.service.resolver.resolve(context.Background(), account, openid, codeTicket)
	if err != nil || len(reply) == 0 {
		t.Errorf("resolving from memory: %q, %v", reply, err)
	}
	f.advanceTo(c.RefreshAt)
	err = w.refresher.doScheduled(f.context(), account, messages.AccessToken, nil)
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a turn while NATS is away: %v, want ErrUnavailable", err)
	}
	f.checkCalls("stable_token", 1)
	f.nats.Restart()
	w.awaitRetried(c.Generation)
}

func TestStartRefusesBadConfigurations(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	nc := f.connect()
	for name, accounts := range map[string][]Account{
		"no account":        nil,
		"no secret":         {{AppID: appid}},
		"a dot in an appid": {{AppID: "wx.1", Secret: "CANARY"}},
		"twice":             {{AppID: appid, Secret: "CANARY"}, {AppID: appid, Secret: "CANARY"}},
		"unknown token API": {{AppID: appid, Secret: "CANARY", TokenAPI: "x"}},
		"unknown ticket":    {{AppID: appid, Secret: "CANARY", Tickets: []messages.Kind{"sdk"}}},
	} {
		_, err := New(nc, Config{Accounts: accounts})
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
}

func TestMonitoringPages(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(nil)
	w.await(messages.AccessToken, 0)
	for path, want := range map[string]string{
		"/healthz": "ok", "/readyz": "ok", "/": appid,
		"/metrics": `wxkeeper_upstream_calls_total{class="ok",endpoint="stable_token"} 1`,
	} {
		code, body := w.page(path)
		if code != 200 {
			t.Errorf("%s: status %d, want 200", path, code)
		}
		if !strings.Contains(body, want) {
			t.Errorf("%s: no %q in %s", path, want, body)
		}
	}
	if code, _ := w.page("/nonsense"); code != 404 {
		t.Errorf("/nonsense: status %d, want 404", code)
	}
	f.nats.Stop()
	f.eventually("/readyz is 503", func() bool { code, _ := w.page("/readyz"); return code == 503 })
	if code, _ := w.page("/healthz"); code != 200 {
		t.Errorf("/healthz while NATS is away: status %d, want 200", code)
	}
}

func TestRequestsThatAStopGivesUpAreSentToAnotherWorker(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(nil)
	w.await(messages.AccessToken, 0)
	w.service.stopping.Store(true) // the moment between the begin of a stop and the last message
	_, err := w.report(messages.RefreshCredentialRequest{})
	checkSymbol(t, "a report over NATS", err, messages.ShuttingDown)

	f.wechat.Inject(wechattest.Fault{Endpoint: "get_api_domain_ip", Hang: true, Times: 1})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	account := w.accounts.get(appid)
	go func() {
		_, err := w.refresher.report(ctx, account, messages.AccessToken, policy.Report{})
		ended <- err
	}()
	f.eventually("WeChat is asked", func() bool { return f.calls("get_api_domain_ip") == 1 })
	cancel() // as the service does when the grace period of a stop is over
	checkSymbol(t, "a report", <-ended, messages.ShuttingDown)
	_, err = w.service.resolver.resolve(ctx, account, openid, codeTicket)
	checkSymbol(t, "a resolution", err, messages.ShuttingDown)
	f.wechat.Release()
}

// A worker answers as soon as its subjects are registered. By then it has planned the next turns.
func TestFirstStatusHasTheReasonOfEachCredential(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	nc := f.connect()
	first := make(chan messages.Status, 1)
	go func() {
		var st messages.Status
		for {
			m, err := nc.Request("wechat.status", nil, patience)
			if errors.Is(err, nats.ErrNoResponders) {
				continue
			}
			if err != nil || json.Unmarshal(m.Data, &st) != nil {
				t.Errorf("the first status: %v", err)
			}
			first <- st
			return
		}
	}()
	f.worker(everything)
	st := <-first
	if len(st.Credentials) != len(messages.Kinds) {
		t.Errorf("the first status has %d credentials, want %d", len(st.Credentials), len(messages.Kinds))
	}
	for _, c := range st.Credentials {
		if c.Reason == "" {
			t.Errorf("the first status has no reason for %s", c.Kind)
		}
	}
}
