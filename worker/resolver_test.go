package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func TestReplyIsWeChatsOwnAnswer(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	const answer = `{ "errcode":0,"errmsg":"ok","code":"000000012","application_id":18446744073709551615,` +
		`"code_start":1e2,"new_field":{"a":[1,null]} }`
	f.wechat.AddCode(appid, "o1", "t1", json.RawMessage(answer))
	w := f.worker(nil)
	w.await(messages.AccessToken, 0)
	for _, id := range []string{"", appid} {
		req := messages.ResolveCodeRequest{AppID: id, OpenID: "o1", CodeTicket: "t1"}
		got, err := w.client.ResolveCode(f.context(), req)
		if err != nil {
			t.Fatal(err)
		}
		checkDiff(t, "the reply", string(got), answer)
	}
}

func TestDeadTokenIsHealedWithinTheRequest(t *testing.T) {
	t.Parallel()
	for _, errcode := range []int{40001, 42001, 40014} {
		t.Run(fmt.Sprint(errcode), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, wechattest.Config{})
			w := f.worker(func(c *Config) { classic(c); c.ResolveTimeout = patience })
			f.wechat.Revoke(w.await(messages.AccessToken, 0).Value) // WeChat refuses it with 40001
			if errcode != 40001 {
				f.wechat.Inject(wechattest.Fault{Endpoint: "tickettocode", Errcode: errcode, Times: 1})
			}
			code, err := w.resolve()
			if err != nil {
				t.Fatal(err)
			}
			if code.Code != "8" {
				t.Errorf("the code is %q, want 8", code.Code)
			}
			f.checkCalls("tickettocode", 2) // the refused call, and one more
			f.checkCalls("token", 2)
		})
	}
}

// WeChat sometimes refuses a new token and accepts it a moment later: that is no reason for a refresh.
func TestYoungTokenThatIsRefusedOnceIsTriedAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(classic)
	w.await(messages.AccessToken, 0)
	f.wechat.Inject(wechattest.Fault{Endpoint: "tickettocode", Errcode: 40001, Times: 1})
	if _, err := w.resolve(); err != nil {
		t.Error(err)
	}
	f.checkCalls("token", 1)
}

func TestRejectedRequestIsNeverRetriedAndRefreshesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(nil)
	w.await(messages.AccessToken, 0)
	before := f.calls("")
	_, err := w.client.ResolveCode(f.context(), messages.ResolveCodeRequest{OpenID: openid,
		CodeTicket: "no-such-ticket"})
	e := refusal(t, "an unknown ticket", err, messages.Rejected)
	if e.Errcode != 40097 {
		t.Errorf("the error has errcode %d, want 40097", e.Errcode)
	}
	if e.RID == "" || e.Errmsg == "" {
		t.Errorf("the error has rid %q and errmsg %q, want WeChat's", e.RID, e.Errmsg)
	}
	f.checkCalls("", before+1)
}

func TestRetriesWhatHadNoEffectAndOnceWhatMayHaveHad(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fault wechattest.Fault
		calls int
		want  messages.Symbol // "": the request succeeds
	}{
		"busy three times":     {wechattest.Fault{Errcode: -1, Times: 3}, 4, ""},
		"dropped once":         {wechattest.Fault{Drop: true, Times: 1}, 2, ""},
		"dropped always":       {wechattest.Fault{Drop: true}, 2, messages.Upstream},
		"HTTP 502 once":        {wechattest.Fault{Status: http.StatusBadGateway, Times: 1}, 2, ""},
		"HTTP 502 always":      {wechattest.Fault{Status: http.StatusBadGateway}, 2, messages.Upstream},
		"hanging once":         {wechattest.Fault{Hang: true, Times: 1}, 2, ""},
		"hanging always":       {wechattest.Fault{Hang: true}, 2, messages.UpstreamTimeout},
		"broken":               {wechattest.Fault{Body: "truncated"}, 1, messages.Upstream},
		"html":                 {wechattest.Fault{Body: "html"}, 1, messages.Upstream},
		"code as a number":     {wechattest.Fault{Body: "wrong_type"}, 1, messages.Upstream},
		"unknown errcode":      {wechattest.Fault{Errcode: 123456}, 1, messages.Upstream},
		"quota of the day":     {wechattest.Fault{Errcode: 45009}, 1, messages.QuotaExhausted},
		"quota of the minute":  {wechattest.Fault{Errcode: 45011}, 1, messages.Throttled},
		"no permission":        {wechattest.Fault{Errcode: 48001}, 1, messages.Rejected},
		"not on the whitelist": {wechattest.Fault{Errcode: 40164}, 1, messages.Upstream},
		"invalid openid":       {wechattest.Fault{Errcode: 40003}, 1, messages.Rejected},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, wechattest.Config{})
			w := f.worker(func(c *Config) {
				c.ResolveTimeout = patience
				c.WeChat.Timeout = patience
				if tc.fault.Hang {
					c.WeChat.Timeout = 3 * time.Second
				}
			})
			w.await(messages.AccessToken, 0)
			tc.fault.Endpoint = "tickettocode"
			f.wechat.Inject(tc.fault)
			_, err := w.resolve()
			switch {
			case tc.want != "":
				e := refusal(t, "the resolution", err, tc.want)
				limited := tc.want == messages.QuotaExhausted || tc.want == messages.Throttled
				if limited && e.RetryAfterMS == 0 {
					t.Error("the error does not say when to try again")
				}
			case err != nil:
				t.Error(err)
			}
			f.checkCalls("tickettocode", tc.calls)
			f.checkCalls("stable_token", 1)
		})
	}
}

func TestRepliesWithinItsTimeWhateverWeChatDoes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fault wechattest.Fault
		want  messages.Symbol
	}{
		"hanging": {wechattest.Fault{Hang: true}, messages.UpstreamTimeout},
		"busy":    {wechattest.Fault{Errcode: -1}, messages.Upstream},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, wechattest.Config{})
			// A call of WeChat may take longer than the test.
			w := f.worker(func(c *Config) { c.ResolveTimeout, c.WeChat.Timeout = time.Second, 2*patience })
			w.await(messages.AccessToken, 0)
			tc.fault.Endpoint = "tickettocode"
			f.wechat.Inject(tc.fault)
			_, err := w.resolve()
			if symbol(err) != messages.UpstreamTimeout { // the last call may also be cut off in the middle
				checkSymbol(t, "the resolution", err, tc.want)
			}
		})
	}
}

func TestEqualRequestsInFlightShareOneCall(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	stuck := &stuckTransport{release: make(chan struct{}), called: make(chan struct{}, 1)}
	w := f.worker(func(c *Config) {
		c.ResolveConcurrency, c.ResolveTimeout = 4, patience
		c.WeChat.Timeout, c.WeChat.Transport = patience, stuck
	})
	w.await(messages.AccessToken, 0)
	r, a := w.service.resolver, w.accounts.get(appid)
	const callers = 40
	var answered atomic.Int64
	var wg sync.WaitGroup
	var cancels []context.CancelFunc
	resolve := func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancels = append(cancels, cancel)
		wg.Go(func() {
			defer cancel()
			if _, err := r.resolve(ctx, a, openid, codeTicket); err == nil {
				answered.Add(1)
			}
		})
	}
	resolve()
	<-stuck.called // the first caller leads the flight
	for range callers - 1 {
		resolve()
	}
	f.eventually("all have joined", func() bool { return r.joined.inProgress() == callers-1 })
	cancels[0]() // the leader's cancellation harms no caller, not even the leader
	cancels[1]() // a caller that has joined leaves the flight
	f.eventually("one caller has left", func() bool { return r.joined.inProgress() == callers-2 })
	close(stuck.release)
	wg.Wait()
	if n := answered.Load(); n != callers-1 {
		t.Errorf("%d callers got an answer, want %d", n, callers-1)
	}
	f.checkCalls("tickettocode", 1)
}

func TestFullWorkerRefusesAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{AnyCode: true})
	w := f.worker(func(c *Config) {
		c.ResolveConcurrency, c.ResolveTimeout, c.WeChat.Timeout = 3, patience, patience
	})
	w.await(messages.AccessToken, 0)
	f.wechat.Inject(wechattest.Fault{Endpoint: "tickettocode", Hang: true})
	ctx, cancel := context.WithCancel(f.context())
	var hanging sync.WaitGroup
	for i := range 3 {
		hanging.Go(func() {
			req := messages.ResolveCodeRequest{OpenID: "o", CodeTicket: fmt.Sprint("ticket", i)}
			_, _ = w.client.ResolveCode(ctx, req)
		})
	}
	f.eventually("three requests hang", func() bool { return f.calls("tickettocode") == 3 })
	_, err := w.client.ResolveCode(f.context(), messages.ResolveCodeRequest{OpenID: "o", CodeTicket: "one-more"})
	if e := refusal(t, "one more request", err, messages.Overloaded); e.RetryAfterMS == 0 {
		t.Error("the error does not say when to try again")
	}
	cancel()
	hanging.Wait()
	f.wechat.ClearFaults()
	f.wechat.Release()
}

// While WeChat hangs, the number of requests that wait for it is limited, whether they are equal or not. A
// request that is cancelled leaves nothing behind.
func TestSlowUpstreamBoundsWhatWaits(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(func(c *Config) {
		c.ResolveConcurrency, c.ResolveTimeout, c.WeChat.Timeout = 1, patience, patience
	})
	w.await(messages.AccessToken, 0)
	f.wechat.Inject(wechattest.Fault{Endpoint: "tickettocode", Hang: true, Times: 1})
	r, a := w.service.resolver, w.accounts.get(appid)
	var leader, joiners sync.WaitGroup
	leader.Go(func() { _, _ = r.resolve(context.Background(), a, openid, codeTicket) })
	f.eventually("WeChat is asked", func() bool { return f.calls("tickettocode") == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	for range joinersPerFlight {
		joiners.Go(func() {
			if _, err := r.resolve(ctx, a, openid, codeTicket); err == nil {
				t.Error("a request was answered while WeChat hangs")
			}
		})
	}
	f.eventually("as many have joined as may", func() bool { return r.joined.inProgress() == joinersPerFlight })
	for what, ticket := range map[string]string{"one more equal request": codeTicket, "another request": "another"} {
		_, err := r.resolve(context.Background(), a, openid, ticket)
		checkSymbol(t, what, err, messages.Overloaded)
	}
	cancel()
	joiners.Wait()
	if n := r.joined.inProgress(); n != 0 {
		t.Errorf("%d cancelled requests are still counted", n)
	}
	f.wechat.Release()
	leader.Wait()
	r.flights.mu.Lock()
	defer r.flights.mu.Unlock()
	if n := len(r.flights.m); n != 0 {
		t.Errorf("%d flights are left", n)
	}
}
