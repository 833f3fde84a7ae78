package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func TestReplyIsWeChatsOwnAnswer(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	const answer = `{ "errcode":0,"errmsg":"ok","code":"000000012","application_id":18446744073709551615,"code_start":1e2,"new_field":{"a":[1,null]} }`
	s.wechat.AddCode(appid, "o1", "t1", json.RawMessage(answer))
	w := s.worker(nil)
	w.await(messages.AccessToken, 0)
	for _, req := range []messages.ResolveCodeRequest{{OpenID: "o1", CodeTicket: "t1"}, {AppID: appid, OpenID: "o1", CodeTicket: "t1"}} {
		got, err := w.client.ResolveCode(s.context(), req)
		if err != nil || string(got) != answer {
			t.Errorf("got %s, %v; want %s", got, err, answer)
		}
	}
}

func TestDeadTokenIsHealedWithinTheRequest(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(*stage, messages.Credential){
		"40001": func(s *stage, c messages.Credential) { s.wechat.Revoke(c.Value) },
		"42001": func(s *stage, c messages.Credential) {
			s.wechat.Revoke(c.Value)
			s.wechat.Inject(wechattest.Fault{Endpoint: "tickettocode", Errcode: 42001, Times: 1})
		},
		"40014": func(s *stage, c messages.Credential) {
			s.wechat.Revoke(c.Value)
			s.wechat.Inject(wechattest.Fault{Endpoint: "tickettocode", Errcode: 40014, Times: 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, wechattest.Config{})
			w := s.worker(classic)
			kill(s, w.await(messages.AccessToken, 0))
			code, err := w.resolve()
			if err != nil || code.Code != "8" {
				t.Errorf("%+v, %v", code, err)
			}
			if n := s.wechat.Calls("", "tickettocode"); n != 2 {
				t.Errorf("%d resolutions upstream, want the refused one and one more", n)
			}
			if n := s.wechat.Calls("", "token"); n != 2 {
				t.Errorf("%d token calls, want 2", n)
			}
		})
	}
}

// WeChat refuses a young token now and then and takes it a moment later: no refresh for that.
func TestYoungTokenThatIsRefusedOnceIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(classic)
	w.await(messages.AccessToken, 0)
	s.wechat.Inject(wechattest.Fault{Endpoint: "tickettocode", Errcode: 40001, Times: 1})
	if _, err := w.resolve(); err != nil {
		t.Error(err)
	}
	if n := s.wechat.Calls("", "token"); n != 1 {
		t.Errorf("%d token calls, want 1", n)
	}
}

func TestRefusedForGoodIsNeverRetriedAndNeverRefreshes(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(nil)
	w.await(messages.AccessToken, 0)
	before := s.wechat.Calls("", "")
	_, err := w.client.ResolveCode(s.context(), messages.ResolveCodeRequest{OpenID: openid, CodeTicket: "no-such-ticket"})
	var e *messages.Error
	if !errors.As(err, &e) || e.Symbol != messages.Rejected || e.Errcode != 40097 || e.RID == "" || e.Errmsg == "" {
		t.Errorf("%#v", err)
	}
	if n := s.wechat.Calls("", "") - before; n != 1 {
		t.Errorf("%d upstream calls, want 1", n)
	}
}

func TestRetriesWhatHadNoEffectAndOnceWhatMayHaveHad(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fault wechattest.Fault
		calls int
		want  messages.Symbol
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
			s := newStage(t, wechattest.Config{})
			w := s.worker(func(c *Config) { c.WeChat.Timeout = 500 * time.Millisecond })
			w.await(messages.AccessToken, 0)
			tc.fault.Endpoint = "tickettocode"
			s.wechat.Inject(tc.fault)
			_, err := w.resolve()
			if symbol(err) != tc.want || (err == nil) != (tc.want == "") {
				t.Errorf("%v, want %q", err, tc.want)
			}
			var e *messages.Error
			if errors.As(err, &e) && (e.Symbol == messages.QuotaExhausted || e.Symbol == messages.Throttled) && e.RetryAfterMS == 0 {
				t.Errorf("%v says not when to ask again", err)
			}
			if n := s.wechat.Calls("", "tickettocode"); n != tc.calls {
				t.Errorf("%d calls, want %d", n, tc.calls)
			}
			if n := s.wechat.Calls("", "stable_token"); n != 1 {
				t.Errorf("%d token calls, want 1", n)
			}
		})
	}
}

func TestRepliesWithinItsTimeWhateverWeChatDoes(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]wechattest.Fault{"hanging": {Hang: true}, "busy": {Errcode: -1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, wechattest.Config{})
			w := s.worker(func(c *Config) { c.ResolveTimeout = 700 * time.Millisecond })
			w.await(messages.AccessToken, 0)
			f.Endpoint = "tickettocode"
			s.wechat.Inject(f)
			if _, err := w.resolve(); symbol(err) != messages.UpstreamTimeout && symbol(err) != messages.Upstream {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestSameTicketInFlightIsAskedOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(func(c *Config) { c.ResolveConcurrency = 4; c.ResolveTimeout = patience })
	w.await(messages.AccessToken, 0)
	s.wechat.Inject(wechattest.Fault{Endpoint: "tickettocode", Hang: true, Times: 1})
	gone, leave := context.WithCancel(context.Background())
	a := w.accounts.get(appid)
	const callers = 40
	var wg sync.WaitGroup
	for i := range callers {
		ctx := context.Background()
		if i == 0 {
			ctx = gone
		}
		wg.Go(func() {
			_, err := w.service.resolver.resolve(ctx, a, openid, codeTicket)
			if err != nil && ctx != gone {
				t.Error(err)
			}
		})
	}
	s.eventually("all have joined", func() bool {
		return w.service.resolver.joined.Load() == callers-1
	})
	leave() // whoever leads: its caller's cancellation harms nobody
	// The call hangs for the client's timeout, and is then made once more.
	wg.Wait()
	if n := s.wechat.Calls("", "tickettocode"); n != 2 {
		t.Errorf("%d calls for %d callers, want the hanging one and one more", n, callers)
	}
}

func TestFullWorkerSaysSoAtOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{AnyCode: true})
	w := s.worker(func(c *Config) { c.ResolveConcurrency = 3; c.ResolveTimeout = 3 * time.Second })
	w.await(messages.AccessToken, 0)
	s.wechat.Inject(wechattest.Fault{Endpoint: "tickettocode", Hang: true})
	ctx, cancel := context.WithCancel(s.context())
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			_, _ = w.client.ResolveCode(ctx, messages.ResolveCodeRequest{OpenID: "o", CodeTicket: fmt.Sprint("ticket", i)})
		})
	}
	s.eventually("three hang", func() bool { return s.wechat.Calls("", "tickettocode") == 3 })
	_, err := w.client.ResolveCode(s.context(), messages.ResolveCodeRequest{OpenID: "o", CodeTicket: "one-more"})
	var e *messages.Error
	if !errors.As(err, &e) || e.Symbol != messages.Overloaded || e.RetryAfterMS == 0 {
		t.Errorf("%v, want overloaded", err)
	}
	cancel()
	s.wechat.Close()
	wg.Wait()
}

// While WeChat hangs, what waits for it is bounded, whether it asks for the same or not; and who goes leaves nothing behind.
func TestSlowUpstreamBoundsWhatWaits(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(func(c *Config) { c.ResolveConcurrency = 1; c.ResolveTimeout = patience; c.WeChat.Timeout = patience })
	w.await(messages.AccessToken, 0)
	s.wechat.Inject(wechattest.Fault{Endpoint: "tickettocode", Hang: true, Times: 1})
	r, a := w.service.resolver, w.accounts.get(appid)
	var leader, joiners sync.WaitGroup
	leader.Go(func() { _, _ = r.resolve(context.Background(), a, openid, codeTicket) })
	s.eventually("WeChat is asked", func() bool { return s.wechat.Calls("", "tickettocode") == 1 })
	gone, leave := context.WithCancel(context.Background())
	for range joinersPerFlight {
		joiners.Go(func() {
			if _, err := r.resolve(gone, a, openid, codeTicket); err == nil {
				t.Error("answered while WeChat hangs")
			}
		})
	}
	s.eventually("as many have joined as may", func() bool { return r.joined.Load() == joinersPerFlight })
	for _, ticket := range []string{codeTicket, "another"} {
		if _, err := r.resolve(context.Background(), a, openid, ticket); symbol(err) != messages.Overloaded {
			t.Errorf("one more, for %.7s: %v, want overloaded", ticket, err)
		}
	}
	leave()
	joiners.Wait()
	if n := r.joined.Load(); n != 0 {
		t.Errorf("%d of those who went are still counted", n)
	}
	s.wechat.Release()
	leader.Wait()
	r.flights.mu.Lock()
	defer r.flights.mu.Unlock()
	if n := len(r.flights.m); n != 0 {
		t.Errorf("%d flights are left", n)
	}
}
