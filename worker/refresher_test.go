package worker

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// Whatever WeChat answers: the worker survives it, the old value is handed out, the calls are spaced, and the
// worker recovers by itself.
func TestOldValueServedWhateverWeChatAnswers(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]wechattest.Fault{
		"busy":              {Errcode: -1},
		"unknown errcode":   {Errcode: 99999},
		"HTTP 502":          {Status: http.StatusBadGateway},
		"empty":             {Body: "empty"},
		"truncated":         {Body: "truncated"},
		"cut":               {Body: "cut"},
		"html":              {Body: "html"},
		"binary":            {Body: "binary"},
		"huge":              {Body: "huge"},
		"wrong type":        {Body: `raw:{"access_token":["A"],"expires_in":7200}`},
		"zero life":         {Body: "zero_life"},
		"no value":          {Body: "no_value"},
		"empty value":       {Body: "empty_value"},
		"long value":        {Body: "long_value"},
		"unprintable value": {Body: "unprintable_value"},
		"not an object":     {Body: "raw:[1,2]"},
		"null":              {Body: "raw:null"},
		"dropped":           {Drop: true},
		"hanging":           {Hang: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, wechattest.Config{})
			f.clock.stop()
			events := f.events()
			first := f.seed(messages.SourceToken)
			f.wechat.Inject(fault)
			w := f.worker(func(c *Config) {
				classic(c)
				if fault.Hang {
					c.WeChat.Timeout = 5 * time.Second
				}
			})
			failed := events.next(messages.EventFailed)
			if failed.Message == "" {
				t.Error("the event has no message")
			}
			if failed.Class == "" {
				t.Error("the event has no class")
			}
			if failed.Attempts != 1 {
				t.Errorf("the event is of attempt %d, want 1", failed.Attempts)
			}
			if c, err := w.memory.get(appid, messages.AccessToken); err != nil || c.Value != first.Value {
				t.Errorf("the old value is not handed out: %v", err)
			}
			if c, err := w.stored(messages.AccessToken); err != nil || c.Value != first.Value {
				t.Errorf("the bucket does not have the old value: %v, %v", c, err)
			}
			w.awaitIdle()
			st := w.statusOf(appid)[0]
			if st.State != messages.StateFailing {
				t.Errorf("the status is %s, want failing", st.State)
			}
			if st.Error == "" {
				t.Error("the status has no error")
			}
			f.checkCalls("", 1)
			f.wechat.ClearFaults()
			f.advanceTo(st.NextAttempt)
			events.next(messages.EventRecovered)
			w.await(messages.AccessToken, first.Generation)
			f.checkCalls("", 2)
		})
	}
}

func TestExpiredCredentialIsNeverHandedOutAndAnEventIsPublished(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	events := f.events()
	w := f.worker(nil)
	first := w.await(messages.AccessToken, 0)
	f.wechat.Inject(wechattest.Fault{Errcode: -1})
	f.advanceTo(first.ExpiresAt)
	if e := events.next(messages.EventExpired); e.Generation != first.Generation {
		t.Errorf("the event is of generation %d, want %d", e.Generation, first.Generation)
	}
	if c, err := w.memory.get(appid, messages.AccessToken); err == nil {
		t.Errorf("an expired credential is handed out: %v", c)
	}
	_, err := w.resolve()
	checkSymbol(t, "code.resolve without a token", err, messages.NoCredential)
	_, err = w.client.GetCredential(f.context(), messages.GetCredentialRequest{})
	checkSymbol(t, "credential.get without a token", err, messages.NoCredential)
	f.wechat.ClearFaults()
	w.awaitIdle()
	f.advanceTo(w.planned(messages.AccessToken))
	if c := w.await(messages.AccessToken, first.Generation); c.Generation != first.Generation+1 {
		t.Errorf("generation %d after %d", c.Generation, first.Generation)
	}
}

// The alarm must not wait for the next attempt, which may be an hour away.
func TestExpiryIsPublishedWhenItHappens(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{TokenLife: 2 * time.Hour, TicketLife: 3 * time.Hour})
	f.clock.stop()
	events := f.events()
	w := f.worker(everything)
	token := w.await(messages.AccessToken, 0)
	tickets := []messages.Credential{w.await(messages.JSAPITicket, 0), w.await(messages.WXCardTicket, 0)}
	w.awaitIdle()
	// an operator must act, so the next attempt is at least 10 minutes later
	f.wechat.Inject(wechattest.Fault{Errcode: 40164})
	f.advanceTo(token.RefreshAt)
	for failed := events.next(messages.EventFailed); failed.Kind != messages.AccessToken; {
		failed = events.next(messages.EventFailed)
	}
	w.awaitIdle()
	calls := f.wechat.Calls(appid, "stable_token")
	f.advanceTo(token.ExpiresAt)
	if e := events.next(messages.EventExpired); e.Kind != messages.AccessToken {
		t.Errorf("the first credential to expire is the %s, want the token", e.Kind)
	}
	f.checkCalls("stable_token", calls)
	// The tickets too, although without a token WeChat cannot even be asked for them.
	for _, ticket := range tickets {
		w.awaitIdle()
		f.advanceTo(ticket.ExpiresAt)
	}
	expired := map[messages.Kind]bool{}
	for len(expired) < len(tickets) {
		if e := events.next(messages.EventExpired); e.Kind != messages.AccessToken {
			expired[e.Kind] = true
		}
	}
	for _, c := range w.statusOf(appid) {
		if c.State != messages.StateExpired {
			t.Errorf("the state of the %s is %s, want expired", c.Kind, c.State)
		}
	}
}

// A failure that only an operator can fix is logged and published with what to do, and retried rarely; other
// accounts are refreshed meanwhile.
func TestRefusedAccountDoesNotDelayOthers(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{Accounts: []wechattest.Account{
		{AppID: appid, Secret: secret}, {AppID: "wxbad", Secret: secret},
	}})
	events := f.events()
	wrongSecret := func(c *Config) {
		c.Accounts = append(c.Accounts, Account{AppID: "wxbad", Secret: "CANARY-WRONG"})
		c.RefreshConcurrency = 1
	}
	w := f.worker(wrongSecret)
	failed := events.next(messages.EventFailed)
	type facts struct{ AppID, Class string }
	checkDiff(t, "the event", facts{failed.AppID, failed.Class}, facts{"wxbad", "account"})
	if failed.Errcode == 0 || failed.RID == "" {
		t.Errorf("the event has errcode %d and rid %q, want WeChat's", failed.Errcode, failed.RID)
	}
	if failed.Advice == "" {
		t.Error("the event has no advice")
	}
	w.await(messages.AccessToken, 0)
	var st messages.CredentialStatus
	f.eventually("the turn has ended", func() bool {
		st = w.statusOf("wxbad")[0]
		return st.Reason != messages.ReasonRefreshing
	})
	if st.State != messages.StateMissing {
		t.Errorf("the state is %s, want missing", st.State)
	}
	if st.Advice == "" {
		t.Error("the status has no advice")
	}
	if wait := st.NextAttempt.Sub(st.LastAttempt); wait < policy.PermanentMin {
		t.Errorf("the next attempt comes after %s, want at least %s", wait, policy.PermanentMin)
	}
	checkCallsOfBad := func(want int) {
		t.Helper()
		if n := f.wechat.Calls("wxbad", ""); n != want {
			t.Errorf("%d calls with a wrong secret, want %d", n, want)
		}
	}
	checkCallsOfBad(1)
	w.stop()

	// A worker that starts waits as the ledger entry demands,
	w = f.worker(wrongSecret)
	w.await(messages.AccessToken, 0)
	checkCallsOfBad(1)
	w.stop()
	// but a changed secret is tried at once.
	w = f.worker(func(c *Config) { c.Accounts = append(c.Accounts, Account{AppID: "wxbad", Secret: secret}) })
	w.awaitOf("wxbad", messages.AccessToken, 0)
}

func TestWhiteListAdviceNamesTheIP(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{AllowIPs: []string{"203.0.113.7"}})
	events := f.events()
	f.worker(nil)
	e := events.next(messages.EventFailed)
	if e.Errcode != 40164 {
		t.Errorf("the event has errcode %d, want 40164", e.Errcode)
	}
	if !strings.Contains(e.Advice, "127.0.0.1") {
		t.Errorf("the advice does not name the IP: %s", e.Advice)
	}
}

func TestWarmRestartMakesNoCall(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(everything)
	held := map[messages.Kind]messages.Credential{}
	for _, k := range messages.Kinds {
		held[k] = w.await(k, 0)
	}
	w.stop()
	before := f.calls("")
	f.nats.Stop()
	f.nats.Restart()
	w = f.worker(everything)
	for _, k := range messages.Kinds {
		checkDiff(t, "the "+string(k)+" after the restart", w.await(k, 0), held[k])
	}
	f.checkCalls("", before)
}

func TestManyWorkersMakeTheCallsOfOne(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	var workers []*testWorker
	for range 5 {
		workers = append(workers, f.worker(everything))
	}
	for _, w := range workers {
		for _, k := range messages.Kinds {
			w.await(k, 0)
		}
	}
	f.checkCalls("", len(messages.Kinds))
}

// WeChat refuses to issue a ticket because of the token: the worker reports the token, which is refreshed, and
// asks for the ticket again.
func TestTicketWithADeadTokenHealsTheToken(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(everythingClassic)
	token := w.await(messages.AccessToken, 0)
	var tickets []messages.Credential
	for _, k := range []messages.Kind{messages.JSAPITicket, messages.WXCardTicket} {
		tickets = append(tickets, w.await(k, 0))
		w.awaitIdle()
	}
	f.wechat.Revoke(token.Value)
	f.advanceTo(tickets[0].RefreshAt)
	w.await(messages.AccessToken, token.Generation)
	for _, ticket := range tickets {
		w.awaitIdle()
		f.advanceTo(w.planned(ticket.Kind))
		f.eventually("WeChat issues the ticket again", func() bool {
			l := w.memory.ledger(messages.Key(appid, ticket.Kind))
			return l.Failure == nil && l.LastSuccess.After(ticket.ObtainedAt)
		})
	}
	if n := f.wechat.Minted(appid, "token"); n != 2 {
		t.Errorf("WeChat issued %d tokens, want 2", n)
	}
}

// interloper calls strike once, between WeChat's answer to a token call and its publication.
type interloper struct {
	http.RoundTripper
	strike func()
}

func (i *interloper) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := i.RoundTripper.RoundTrip(req)
	if strike := i.strike; strike != nil && err == nil && req.URL.Path == "/cgi-bin/token" {
		i.strike = nil
		strike()
	}
	return resp, err
}

// When the answer arrives, another worker has the lease: it has fetched a token too, and the fleet does not know
// which one is newer. The worker refreshes once more, so that the published token is the newest
// (docs/architecture.md#refresh-2).
func TestRefusedWriteIsFollowedByOneMoreRefresh(t *testing.T) {
	t.Parallel()
	t.Run("", func(t *testing.T) { t.Parallel(); refuseWrite(t, false) })
	t.Run("and NATS loses an answer", func(t *testing.T) { t.Parallel(); refuseWrite(t, true) })
}

// refuseWrite makes a rival publish during a refresh. If loseRead is set, the first read of the refresh that
// must follow gets no answer.
func refuseWrite(t *testing.T, loseRead bool) {
	t.Helper()
	f := newFixture(t, wechattest.Config{})
	f.hurried = true
	f.gate = natstest.NewGate()
	rival := f.storeOf("rival")
	ctx := f.context()
	strike := func() {
		f.endLease(messages.Key(appid, messages.AccessToken))
		lease, err := rival.Acquire(ctx, appid, messages.AccessToken, 5*time.Second)
		if err != nil {
			t.Error(err)
			return
		}
		defer lease.Release(ctx)
		if loseRead {
			f.gate.Lose("$JS.API.STREAM.MSG.GET.KV_wechat", 1)
		}
		now := f.clock.Now().UTC().Truncate(time.Millisecond)
		if _, err := lease.Publish(ctx, messages.Credential{
			AppID: appid, Kind: messages.AccessToken, Value: f.foreignRefresh(messages.SourceToken),
			ObtainedAt: now, ExpiresAt: now.Add(time.Hour), RefreshAt: now.Add(time.Hour / 2),
			Generation: 2, Source: messages.SourceToken, Worker: "rival",
		}); err != nil {
			t.Error(err)
		}
	}
	w := f.worker(func(c *Config) {
		classic(c)
		c.WeChat.Transport = &interloper{http.DefaultTransport.(*http.Transport).Clone(), strike}
	})
	c := w.await(messages.AccessToken, 2)
	f.checkValid(c)
	f.checkCalls("token", 2)
	stored, err := rival.Get(ctx, appid, messages.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if stored.Value != c.Value {
		t.Errorf("the bucket has %v, the worker holds %v", stored, c)
	}
}

// The lease is lost in the refresh of a report too, and the rival has not released it yet.
func TestRefusedWriteOfAReportIsFollowedByOneMoreRefresh(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	rival := f.storeOf("rival")
	between := &interloper{RoundTripper: http.DefaultTransport.(*http.Transport).Clone()}
	w := f.worker(func(c *Config) { classic(c); c.WeChat.Transport = between })
	first := w.await(messages.AccessToken, 0)
	f.wechat.Revoke(first.Value)
	between.strike = func() {
		f.endLease(messages.Key(appid, messages.AccessToken))
		// and the rival dies
		if _, err := rival.Acquire(f.context(), appid, messages.AccessToken, time.Second); err != nil {
			t.Error(err)
		}
	}
	w.mustReport(messages.RefreshCredentialRequest{Revision: first.Revision}, messages.ReasonRefreshed)
	f.checkValid(w.await(messages.AccessToken, first.Generation))
	f.checkCalls("token", 3) // the first one, the one whose publication was refused, and one more
}

// slowTransport takes a millisecond for each call, by a clock.
type slowTransport struct{ clock *testClock }

func (s slowTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	s.clock.advance(time.Millisecond)
	return http.DefaultTransport.RoundTrip(req)
}

func TestShortLifeMakesNoStorm(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	f.wechat.Inject(wechattest.Fault{Body: `raw:{"access_token":"AAAA","expires_in":1}`})
	events := f.events()
	w := f.worker(func(c *Config) { c.WeChat.Transport = slowTransport{f.clock} })
	for attempt := 1; attempt <= 5; attempt++ {
		events.next(messages.EventFailed) // less than a second of its life is left when it arrives
		w.awaitIdle()
		f.checkCalls("", attempt)
		next := w.planned(messages.AccessToken)
		if wait := next.Sub(f.clock.Now()); wait < policy.MinGap {
			t.Errorf("attempt %d is followed by the next one after %s, want at least %s", attempt, wait, policy.MinGap)
		}
		f.advanceTo(next)
	}
}

// Three workers have three wrong secrets, during a change of the secret: each secret is tried once, and not
// again and again.
func TestTwoWrongSecretsMakeNoStorm(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	events := f.events()
	var workers []*testWorker
	for _, wrong := range []Account{
		{AppID: appid, Secret: "CANARY-wrong-1"},
		{AppID: appid, Secret: "CANARY-wrong-2"},
		{AppID: appid, Secret: "CANARY-wrong-3"},
	} {
		workers = append(workers, f.worker(func(c *Config) { c.Accounts = []Account{wrong} }))
		f.advance(policy.MinGap)
		events.next(messages.EventFailed)
	}
	for _, w := range workers {
		f.eventually("each worker waits for minutes", func() bool {
			st := w.statusOf(appid)[0]
			return st.Reason == messages.ReasonBackoff && st.NextAttempt.Sub(st.LastAttempt) >= policy.PermanentMin
		})
	}
	f.checkCalls("", 3)
}
