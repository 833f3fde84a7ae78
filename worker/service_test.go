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
	"github.com/nats-io/nats.go/micro"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

const sample = `{"openid":"` + openid + `","code_ticket":"` + codeTicket + `"}`

// Each row of the design's table of errors that a request alone can cause, on the wire: headers, symbol, and no call of
// WeChat. The rows that WeChat causes stand in resolver_test.go.
func TestBadRequestsAreRefusedClearlyAndCostNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{Accounts: []wechattest.Account{{AppID: appid, Secret: secret}, {AppID: "wx2", Secret: "x"}}})
	w := s.worker(func(c *Config) {
		c.Accounts = append(c.Accounts, Account{AppID: "wx2", Secret: "x", Tickets: []messages.Kind{messages.JSAPITicket}})
	})
	for _, id := range []string{appid, "wx2"} {
		if _, err := w.reader.Wait(s.context(), id, messages.AccessToken); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.reader.Wait(s.context(), "wx2", messages.JSAPITicket); err != nil {
		t.Fatal(err)
	}
	before := s.wechat.Calls("", "")
	long := strings.Repeat("x", 300)
	for _, tc := range []struct {
		subject, body string
		want          messages.Symbol
		says          string
	}{
		{"code.resolve", `{`, messages.InvalidRequest, "not a JSON object"},
		{"code.resolve", `[]`, messages.InvalidRequest, "not a JSON object"},
		{"code.resolve", `"text"`, messages.InvalidRequest, "not a JSON object"},
		{"code.resolve", sample + sample, messages.InvalidRequest, "not a JSON object"},
		{"code.resolve", sample, messages.InvalidRequest, "appid is missing"},
		{"code.resolve.wx2", ``, messages.InvalidRequest, "openid is missing"},
		{"code.resolve.wx2", `{"openid":"o"}`, messages.InvalidRequest, "code_ticket is missing"},
		{"code.resolve.wx2", `{"openid":7,"code_ticket":"t"}`, messages.InvalidRequest, "openid must be a JSON string"},
		{"code.resolve.wx2", `{"openid":"o","code_ticket":{"a":1}}`, messages.InvalidRequest, "code_ticket must be a JSON string"},
		{"code.resolve.wx2", `{"openid":"` + long + `","code_ticket":"t"}`, messages.InvalidRequest, "openid has 300 bytes"},
		{"code.resolve.wx2", `{"openid":"o","code_ticket":"` + long + `"}`, messages.InvalidRequest, "code_ticket has 300 bytes"},
		{"code.resolve.wx2", `{"openid":"a b","code_ticket":"t"}`, messages.InvalidRequest, "not printable ASCII"},
		{"code.resolve.wx2", `{"openid":"o","code_ticket":"t","pad":"` + strings.Repeat("x", messages.MaxRequest) + `"}`, messages.InvalidRequest, "at most"},
		{"code.resolve.wx2", `{"appid":"` + appid + `","openid":"o","code_ticket":"t"}`, messages.InvalidRequest, "not that of the subject"},
		{"code.resolve", `{"appid":"wx.2","openid":"o","code_ticket":"t"}`, messages.InvalidRequest, "appid"},
		{"code.resolve", `{"appid":"wx3","openid":"o","code_ticket":"t"}`, messages.UnknownAccount, "wx3"},
		{"code.resolve.wx3", sample, messages.UnknownAccount, "wx3"},
		{"credential.get.wx2", `{"kind":"nonsense"}`, messages.UnknownKind, "nonsense"},
		{"credential.get.wx2", `{"kind":"wx_card_ticket"}`, messages.NotConfigured, "WECHAT_TICKETS"},
		{"credential.get.wx3", `{}`, messages.UnknownAccount, "wx3"},
		{"credential.get", `{}`, messages.InvalidRequest, "appid is missing"},
		{"credential.refresh.wx2", `{"revision":-1}`, messages.InvalidRequest, "revision must be a JSON number"},
		{"credential.refresh.wx2", `{"value_sha256":"abc"}`, messages.InvalidRequest, "64 hexadecimal digits"},
		{"credential.refresh.wx2", `{"kind":"x"}`, messages.UnknownKind, "x"},
		{"jssdk.sign.wx2", `{}`, messages.InvalidRequest, "url is missing"},
		{"jssdk.sign.wx2", `{"url":"#top"}`, messages.InvalidRequest, "url is missing"},
		{"jssdk.sign.wx2", `{"url":7}`, messages.InvalidRequest, "url must be a JSON string"},
		{"jssdk.sign.wx2", `{"url":"shop.example.com/` + long + `"}`, messages.InvalidRequest, "must begin with http://"},
		{"jssdk.sign.wx2", `{"url":"ftp://shop.example.com/"}`, messages.InvalidRequest, "must begin with http://"},
		{"jssdk.sign.wx2", `{"url":"https%3A%2F%2Fshop.example.com%2F"}`, messages.InvalidRequest, "not URL-encoded"},
		{"jssdk.sign.wx2", `{"url":"https:///path"}`, messages.InvalidRequest, "a host"},
		{"jssdk.sign.wx2", `{"url":"https://"}`, messages.InvalidRequest, "a host"},
		{"jssdk.sign.wx2", `{"url":"https://a.example/b c"}`, messages.InvalidRequest, "byte 19"},
		{"jssdk.sign.wx2", `{"url":"https://a.example/\n"}`, messages.InvalidRequest, "unprintable"},
		{"jssdk.sign.wx2", "{\"url\":\"https://a.example/\xff\"}", messages.InvalidRequest, "unprintable"},
		{"jssdk.sign.wx2", `{"url":"https://a.example/` + strings.Repeat("x", messages.MaxURL) + `"}`, messages.InvalidRequest, "at most 8192"},
		{"jssdk.sign.wx2", `{"appid":"` + appid + `","url":"https://a.example/"}`, messages.InvalidRequest, "not that of the subject"},
		{"jssdk.sign", `{"appid":"` + appid + `","url":"https://a.example/"}`, messages.NotConfigured, "WECHAT_TICKETS"},
		{"jssdk.sign.wx3", `{"url":"https://a.example/"}`, messages.UnknownAccount, "wx3"},
		{"card.sign.wx2", `{}`, messages.InvalidRequest, "card_id is missing"},
		{"card.sign.wx2", `{"action":"openCard"}`, messages.InvalidRequest, "addCard or chooseCard"},
		{"card.sign.wx2", `{"card_id":"` + long + `"}`, messages.InvalidRequest, "card_id has 300 bytes"},
		{"card.sign.wx2", `{"card_id":"p","openid":"` + long + `"}`, messages.InvalidRequest, "openid has 300 bytes"},
		{"card.sign.wx2", `{"card_id":"p","code":"1 2"}`, messages.InvalidRequest, "code has a space"},
		{"card.sign.wx2", `{"card_id":"p","code":12}`, messages.InvalidRequest, "code must be a JSON string"},
		{"card.sign.wx2", `{"card_id":"p","shop_id":"1"}`, messages.InvalidRequest, "action chooseCard alone"},
		{"card.sign.wx2", `{"card_id":"p","card_type":"CASH"}`, messages.InvalidRequest, "action chooseCard alone"},
		{"card.sign.wx2", `{"action":"chooseCard","code":"1"}`, messages.InvalidRequest, "action addCard alone"},
		{"card.sign.wx2", `{"action":"chooseCard","openid":"o"}`, messages.InvalidRequest, "action addCard alone"},
		{"card.sign.wx2", `{"action":"chooseCard","fixed_begintimestamp":1}`, messages.InvalidRequest, "action addCard alone"},
		{"card.sign.wx2", `{"card_id":"p","fixed_begintimestamp":-1}`, messages.InvalidRequest, "negative"},
		{"card.sign.wx2", `{"card_id":"p","fixed_begintimestamp":"1"}`, messages.InvalidRequest, "must be a JSON number"},
		{"card.sign.wx2", `{"card_id":"p"}`, messages.NotConfigured, "WECHAT_TICKETS"},
		{"card.sign.wx3", `{"card_id":"p"}`, messages.UnknownAccount, "wx3"},
		{"status.wx3", `{}`, messages.UnknownAccount, "wx3"},
		{"status", `{"appid":true}`, messages.InvalidRequest, "appid must be a JSON string"},
	} {
		name := fmt.Sprintf("%s %.60s", tc.subject, tc.body)
		m, err := w.nc.Request("wechat."+tc.subject, []byte(tc.body), patience)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var e messages.Error
		if err := json.Unmarshal(m.Data, &e); err != nil || e.Symbol != tc.want || !strings.Contains(e.Message, tc.says) {
			t.Errorf("%s: %s; want %s, %q", name, m.Data, tc.want, tc.says)
		}
		if code := m.Header.Get(messages.HeaderErrorCode); code != strconv.Itoa(tc.want.Code()) || m.Header.Get(messages.HeaderError) == "" {
			t.Errorf("%s: headers %v", name, m.Header)
		}
		if strings.Contains(string(m.Data), long) {
			t.Errorf("%s: the error repeats the input", name)
		}
	}
	if n := s.wechat.Calls("", "") - before; n != 0 {
		t.Errorf("%d upstream calls for bad requests", n)
	}
}

func TestCredentialGetReturnsTheRecordAndItsRevision(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(everything)
	for _, k := range messages.Kinds {
		c := w.await(k, 0)
		got, err := w.client.GetCredential(s.context(), messages.GetCredentialRequest{AppID: appid, Kind: k})
		if err != nil || got.Value != c.Value || got.Revision == 0 || got.Revision != c.Revision || !got.ExpiresAt.Equal(c.ExpiresAt) || got.Generation != 1 {
			t.Errorf("%+v, %v; want %v", got, err, c)
		}
	}
}

func TestIsANATSMicroService(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(nil)
	w.await(messages.AccessToken, 0)
	if _, err := w.resolve(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.ResolveCode(s.context(), messages.ResolveCodeRequest{OpenID: "o", CodeTicket: "bad"}); err == nil {
		t.Fatal("a bad ticket was resolved")
	}
	m, err := w.nc.Request("$SRV.INFO.wechat", nil, patience)
	if err != nil {
		t.Fatal(err)
	}
	var info micro.Info
	if err := json.Unmarshal(m.Data, &info); err != nil {
		t.Fatal(err)
	}
	if len(m.Data) > 32<<10 {
		t.Errorf("the answer of $SRV.INFO has %d bytes", len(m.Data))
	}
	have := map[string]bool{}
	for _, e := range info.Endpoints {
		have[e.Subject] = true
		if e.QueueGroup != "wechat" || e.Metadata["request"] == "" || e.Metadata["reply"] == "" {
			t.Errorf("%+v", e)
		}
		for _, key := range []string{"request_schema", "reply_schema"} {
			var schema struct {
				ID         string `json:"$id"`
				Properties map[string]any
			}
			if err := json.Unmarshal([]byte(e.Metadata[key]), &schema); err != nil || len(schema.Properties) == 0 || strings.Contains(e.Metadata[key], "description") {
				t.Errorf("%s of %s: %q, %v", key, e.Subject, e.Metadata[key], err)
			}
			want := strings.TrimSuffix(strings.TrimPrefix(e.Subject, "wechat."), ".*") + "." + strings.TrimSuffix(key, "_schema") + ".json"
			if !strings.HasSuffix(schema.ID, "/"+want) {
				t.Errorf("%s of %s is %s, want %s", key, e.Subject, schema.ID, want)
			}
		}
	}
	t.Logf("$SRV.INFO: %d bytes", len(m.Data))
	for _, subject := range []string{"code.resolve", "credential.get", "credential.refresh", "jssdk.sign", "card.sign", "status"} {
		if !have["wechat."+subject] || !have["wechat."+subject+".*"] {
			t.Errorf("%s is not there in both forms: %v", subject, have)
		}
	}
	m, err = w.nc.Request("$SRV.STATS.wechat", nil, patience)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(m.Data), `"errors":1`) || !strings.Contains(string(m.Data), `"ok":1`) {
		t.Errorf("the stats count no outcomes: %s", m.Data)
	}
}

func TestStatusTellsEveryCredential(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(func(c *Config) { everything(c); c.Accounts[0].Name = "shop" })
	for _, k := range messages.Kinds {
		w.await(k, 0)
	}
	for _, req := range []messages.StatusRequest{{}, {AppID: appid}} {
		var st messages.Status
		s.eventually("all turns have ended", func() bool {
			var err error
			st, err = w.client.Status(s.context(), req)
			return err == nil && st.Summary[messages.StateFresh] == 3 && !strings.Contains(fmt.Sprint(st), "refreshing")
		})
		if len(st.Credentials) != 3 || st.Accounts != 1 {
			t.Fatalf("%+v", st)
		}
		for _, c := range st.Credentials {
			if c.Name != "shop" || c.CallsToday != 1 || c.Reason != "fresh" || !c.NextAttempt.After(st.Time) || !c.ExpiresAt.After(c.NextAttempt) {
				t.Errorf("%+v", c)
			}
		}
	}
}

func TestStopAnswersWhatItHoldsAndLeavesNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{Latency: 300 * time.Millisecond, AnyCode: true})
	first, second := s.worker(nil), s.worker(nil)
	first.await(messages.AccessToken, 0)
	second.await(messages.AccessToken, 0)
	var wg sync.WaitGroup
	begun := make(chan struct{}, 100)
	for i := range 60 {
		wg.Go(func() {
			begun <- struct{}{}
			_, err := first.client.ResolveCode(s.context(), messages.ResolveCodeRequest{OpenID: "o", CodeTicket: fmt.Sprint("t", i)})
			if err != nil {
				t.Errorf("a request was lost: %v", err)
			}
		})
	}
	for range 60 {
		<-begun
	}
	s.eventually("some are in hand", func() bool { return s.wechat.Calls("", "tickettocode") > 10 })
	first.stop()
	wg.Wait()
	second.stop()
	second.client.FailFast = true
	if _, err := second.client.ResolveCode(s.context(), messages.ResolveCodeRequest{OpenID: "o", CodeTicket: "t"}); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("after the stop: %v, want no responders", err)
	}
	store, err := store.New(s.nats.Connect(), store.Config{})
	if err == nil {
		err = store.Ensure(s.context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Acquire(s.context(), appid, messages.AccessToken, time.Second); err != nil {
		t.Errorf("a lease was left behind: %v", err)
	}
}

// SIGTERM in the middle of a classic fetch: the token that is minted is published, and the lease given back.
func TestStopEndsTheRefreshThatHasBegun(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	s.wechat.Inject(wechattest.Fault{Endpoint: "token", Delay: 500 * time.Millisecond})
	w := s.worker(classic)
	s.eventually("the call is under way", func() bool { return s.wechat.Calls("", "token") == 1 })
	w.stop()
	w = s.worker(classic)
	if c := w.await(messages.AccessToken, 0); s.wechat.Judge(appid, "access_token", c.Value) != wechattest.Valid {
		t.Errorf("%v", c)
	}
	if n := s.wechat.Calls("", "token"); n != 1 {
		t.Errorf("%d token calls, want the one that was under way", n)
	}
}

func TestNATSAwayResolvesFromMemoryAndFetchesNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{TokenLife: 12 * time.Second})
	w := s.worker(nil)
	c := w.await(messages.AccessToken, 0)
	s.nats.Stop()
	if reply, err := w.service.resolver.resolve(context.Background(), w.accounts.get(appid), openid, codeTicket); err != nil || len(reply) == 0 {
		t.Errorf("resolving from memory: %v", err)
	}
	if err := w.refresher.scheduled(s.context(), w.accounts.get(appid), messages.AccessToken); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a refresh while NATS is away: %v, want ErrUnavailable", err)
	}
	if n := s.wechat.Calls("", "stable_token"); n != 1 {
		t.Errorf("%d token calls", n)
	}
	s.nats.Restart()
	w.await(messages.AccessToken, c.Generation) // and it goes on
}

func TestStartRefusesBadConfigurations(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	nc := s.nats.Connect()
	for name, accounts := range map[string][]Account{
		"no account":        nil,
		"no secret":         {{AppID: appid}},
		"a dot in an appid": {{AppID: "wx.1", Secret: "CANARY"}},
		"twice":             {{AppID: appid, Secret: "CANARY"}, {AppID: appid, Secret: "CANARY"}},
		"unknown token API": {{AppID: appid, Secret: "CANARY", TokenAPI: "x"}},
		"unknown ticket":    {{AppID: appid, Secret: "CANARY", Tickets: []messages.Kind{"sdk"}}},
	} {
		if _, err := New(nc, Config{Accounts: accounts}); err == nil || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMonitoringPages(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(nil)
	w.await(messages.AccessToken, 0)
	pages := w.pages()
	for path, want := range map[string]string{
		"/healthz": "ok", "/readyz": "ok", "/": appid,
		"/metrics": `wxkeeper_upstream_calls_total{class="ok",endpoint="stable_token"} 1`,
	} {
		if code, body := pages(path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, _ := pages("/nonsense"); code != 404 {
		t.Errorf("/nonsense: %d", code)
	}
	s.nats.Stop()
	s.eventually("not ready", func() bool { code, _ := pages("/readyz"); return code == 503 })
	if code, _ := pages("/healthz"); code != 200 {
		t.Errorf("alive, but /healthz says %d", code)
	}
}

func TestRequestsThatAStopGivesUpAreSentToAnotherWorker(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(nil)
	w.await(messages.AccessToken, 0)
	w.service.stopping.Store(true) // the moment between the begin of a stop and the last message
	if _, err := w.report(messages.RefreshCredentialRequest{}); symbol(err) != messages.ShuttingDown {
		t.Errorf("over NATS: %v, want shutting_down", err)
	}
	s.wechat.Inject(wechattest.Fault{Endpoint: "get_api_domain_ip", Hang: true, Times: 1})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := w.refresher.report(ctx, w.accounts.get(appid), messages.AccessToken, dead{})
		ended <- err
	}()
	s.eventually("WeChat is asked", func() bool { return s.wechat.Calls("", "get_api_domain_ip") == 1 })
	cancel() // as the service does when the grace of a stop is over
	if err := <-ended; symbol(err) != messages.ShuttingDown {
		t.Errorf("a report: %v, want shutting_down", err)
	}
	if _, err := w.service.resolver.resolve(ctx, w.accounts.get(appid), openid, codeTicket); symbol(err) != messages.ShuttingDown {
		t.Errorf("a resolution: %v, want shutting_down", err)
	}
}

// The settlement of a report outlives its callers; a stop waits for it: the token that is minted is published.
func TestStopEndsTheSettlementThatHasBegun(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(func(c *Config) { classic(c); c.ResolveTimeout = 200 * time.Millisecond })
	first := w.await(messages.AccessToken, 0)
	s.wechat.Revoke(first.Value)
	s.wechat.Inject(wechattest.Fault{Endpoint: "token", Delay: time.Second})
	if _, err := w.resolve(); err == nil {
		t.Error("resolved with a dead token")
	}
	s.eventually("the token call is under way", func() bool { return s.wechat.Calls("", "token") == 2 })
	w.stop()
	w = s.worker(classic)
	if c := w.await(messages.AccessToken, first.Generation); s.wechat.Judge(appid, "access_token", c.Value) != wechattest.Valid {
		t.Errorf("%v", c)
	}
	if n := s.wechat.Calls("", "token"); n != 2 {
		t.Errorf("%d token calls, want 2", n)
	}
}
