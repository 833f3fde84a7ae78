package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// fair is a worker with two accounts.
type fair struct{ *testWorker }

const (
	busy  = appid // its requests hang
	other = "wx2"
	// fairLimit is the limit of each kind of request in these tests: the race detector does not allow as many
	// goroutines as a worker.
	fairLimit = 256
)

func newFair(t *testing.T, cfg wechattest.Config, prepare ...func(*Worker)) *fair {
	t.Helper()
	cfg.AnyCode = true
	cfg.Accounts = []wechattest.Account{{AppID: busy, Secret: secret}, {AppID: other, Secret: secret}}
	f := newFixture(t, cfg)
	all := []messages.Kind{messages.JSAPITicket, messages.WXCardTicket}
	prepare = append(prepare, func(w *Worker) {
		for _, g := range []*gate{w.service.resolves, w.service.reports, w.service.gets, w.service.signs} {
			g.limit = fairLimit
		}
	})
	w := f.workerOn(f.connect(), func(c *Config) {
		c.Accounts = []Account{{AppID: busy, Secret: secret, Tickets: all}, {AppID: other, Secret: secret, Tickets: all}}
	}, prepare...)
	for _, k := range messages.Kinds {
		w.awaitOf(other, k, 0)
	}
	return &fair{w}
}

// flood sends requests for the busy account until no more of them are admitted. inProgress is how many are.
func (f *fair) flood(subject string, body func(i int) string, inProgress func() int) {
	f.Helper()
	replies, err := f.nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		f.Fatal(err)
	}
	for sent, before := 0, -1; before < fairLimit*3/4 || before < inProgress(); {
		before = inProgress()
		for range fairLimit / 2 {
			if err := f.nc.PublishRequest(subject, replies.Subject, []byte(body(sent))); err != nil {
				f.Fatal(err)
			}
			sent++
		}
		f.eventually("each request of the busy account hangs or was refused", func() bool {
			refused, _, _ := replies.Pending()
			return refused+inProgress() == sent
		})
	}
	m, err := replies.NextMsgWithContext(f.context())
	if err != nil {
		f.Fatal(err)
	}
	var e messages.Error
	if err := json.Unmarshal(m.Data, &e); err != nil {
		f.Fatal(err)
	}
	if !strings.HasPrefix(e.Message, "this account has ") || e.RetryAfterMS == 0 {
		f.Errorf("%s: the refusal of the busy account is %s", subject, m.Data)
	}
	checkSymbol(f, "a refused request of the busy account", &e, messages.Overloaded)
}

// checkOthers sends 30 requests at once, which must all be answered.
func (f *fair) checkOthers(what string, request func(ctx context.Context, i int) error) {
	f.Helper()
	errs := make(chan error, 30)
	for i := range cap(errs) {
		go func() { errs <- request(f.context(), i) }()
	}
	var failed []error
	for range cap(errs) {
		if err := <-errs; err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		f.Errorf("%s of another account: %d of %d requests failed: %v", what, len(failed), cap(errs), failed[0])
	}
}

// The accounts of a worker share its places, so an account whose calls of WeChat hang could take them all.
func TestAccountWhoseCallsHangLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	for _, ofSubject := range []bool{true, false} {
		t.Run(fmt.Sprintf("subject names the account: %t", ofSubject), func(t *testing.T) {
			t.Parallel()
			f := newFair(t, wechattest.Config{})
			f.awaitOf(busy, messages.AccessToken, 0)
			f.awaitIdle()
			f.wechat.Inject(wechattest.Fault{AppID: busy, Endpoint: "tickettocode", Hang: true})
			f.wechat.Inject(wechattest.Fault{AppID: busy, Endpoint: "get_api_domain_ip", Hang: true})
			defer f.wechat.Release()
			defer f.wechat.ClearFaults()
			end := ""
			if ofSubject {
				end = "." + busy
			}
			ticket := func(i int) string {
				return fmt.Sprintf(`{"appid":%q,"openid":"o","code_ticket":"%d"}`, busy, i)
			}
			f.flood("wechat.code.resolve"+end, ticket, f.service.resolver.flying.inProgress)
			f.checkOthers("code.resolve", func(ctx context.Context, i int) error {
				req := messages.ResolveCodeRequest{AppID: other, OpenID: openid, CodeTicket: fmt.Sprint("ticket", i)}
				_, err := f.client.ResolveCode(ctx, req)
				return err
			})
			report := func(int) string { return fmt.Sprintf(`{"appid":%q}`, busy) }
			f.flood("wechat.credential.refresh"+end, report, f.service.reports.inProgress)
			f.checkOthers("credential.refresh", func(ctx context.Context, _ int) error {
				req := messages.RefreshCredentialRequest{AppID: other, ValueSHA256: messages.ValueSHA256("an old value")}
				_, err := f.client.RefreshCredential(ctx, req)
				return err
			})
		})
	}
}

// deafLeader does not answer reads of one account until the test ends.
type deafLeader struct {
	turnStore
	appid string
	end   chan struct{}
}

func (s *deafLeader) Get(ctx context.Context, appid string, kind messages.Kind) (messages.Credential, error) {
	if appid == s.appid {
		<-s.end
	}
	return s.turnStore.Get(ctx, appid, kind)
}

// Requests for a credential that memory does not have wait for the leader of the bucket.
func TestAccountWithoutCredentialsLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	leader := &deafLeader{appid: busy, end: make(chan struct{})}
	f := newFair(t, wechattest.Config{}, func(w *Worker) {
		leader.turnStore = w.store
		w.service.lookup.store = leader
		w.service.lookup.memory = newMemory(w.cfg.Now, w.cfg.Log) // nothing feeds it
	})
	defer close(leader.end)
	for _, k := range messages.Kinds { // the other account's credentials are in memory
		f.service.lookup.memory.hold(f.awaitOf(other, k, 0))
	}
	f.flood("wechat.credential.get."+busy, func(int) string { return "" }, f.service.gets.inProgress)
	f.checkOthers("credential.get", func(ctx context.Context, _ int) error {
		_, err := f.client.GetCredential(ctx, messages.GetCredentialRequest{AppID: other})
		return err
	})
	const page = "https://shop.example.com/"
	f.flood("wechat.jssdk.sign."+busy, func(int) string { return `{"url":"` + page + `"}` }, f.service.signs.inProgress)
	f.checkOthers("jssdk.sign", func(ctx context.Context, _ int) error {
		_, err := f.client.SignJSSDK(ctx, messages.SignJSSDKRequest{AppID: other, URL: page})
		return err
	})
	f.checkOthers("card.sign", func(ctx context.Context, _ int) error {
		_, err := f.client.SignCard(ctx, messages.SignCardRequest{AppID: other, CardID: "p"})
		return err
	})
}

func TestFloodForOneAccountIsRefusedBeforeItIsDecoded(t *testing.T) {
	t.Parallel()
	f := newFair(t, wechattest.Config{}, func(w *Worker) {
		w.service.gets.every, w.service.gets.burst = time.Hour, 3
	})
	f.awaitOf(busy, messages.AccessToken, 0)
	get := func(subject, body string) error {
		m, err := f.nc.RequestWithContext(f.context(), "wechat.credential.get"+subject, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		if m.Header.Get(messages.HeaderErrorCode) == "" {
			return nil
		}
		e := new(messages.Error)
		if err := json.Unmarshal(m.Data, e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	for range 3 {
		if err := get("."+busy, ""); err != nil {
			t.Error(err)
		}
	}
	e := refusal(t, "the fourth request", get("."+busy, ""), messages.Throttled)
	if e.RetryAfterMS == 0 {
		t.Error("the error does not say when to try again")
	}
	checkSymbol(t, "a request that is not JSON", get("."+busy, "{"), messages.Throttled)
	checkSymbol(t, "a request whose body names the account", get("", `{"appid":"`+busy+`"}`), messages.Throttled)
	// Decoding is what a flood of these costs, so they are counted before it, as if they were of one account more.
	for range 2 {
		_ = get("", "{")
	}
	checkSymbol(t, "one too many whose body would name the account", get("", "{"), messages.Throttled)
	if err := get("."+other, ""); err != nil {
		t.Errorf("a request of another account: %v", err)
	}
	if _, err := f.resolve(); err != nil {
		t.Errorf("a request of another kind: %v", err)
	}
	f.eventually("every place is given back", func() bool { return f.service.gets.inProgress() == 0 })
}
