package worker

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// Whatever WeChat answers: the worker lives, the old value is served, the calls are spaced, and it recovers by itself.
func TestOldValueServedWhateverWeChatAnswers(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]wechattest.Fault{
		"busy":              {Errcode: -1},
		"unknown errcode":   {Errcode: 99999},
		"HTTP 502":          {Status: http.StatusBadGateway},
		"empty":             {Body: "empty"},
		"truncated":         {Body: "truncated"},
		"cut":               {Body: "cut"},
		"html":              {Body: "html"},
		"binary":            {Body: "binary"},
		"huge":              {Body: "huge"},
		"wrong type":        {Body: "wrong_type"},
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
			s := newStage(t, wechattest.Config{})
			events := s.events()
			first := s.seed("token")
			s.wechat.Inject(f)
			w := s.worker(func(c *Config) { classic(c); c.WeChat.Timeout = 500 * time.Millisecond })
			failed := events.next(messages.EventFailed)
			if failed.Message == "" || failed.Class == "" || failed.Attempts != 1 {
				t.Errorf("the event says %+v", failed)
			}
			if c, err := w.reader.Get(appid, messages.AccessToken); err != nil || c.Value != first.Value {
				t.Errorf("the old value is not served: %v", err)
			}
			if c, err := w.store.Get(s.context(), appid, messages.AccessToken); err != nil || c.Value != first.Value {
				t.Errorf("the bucket holds %v, %v", c, err)
			}
			if st := w.Worker.status(appid).Credentials[0]; st.State != messages.StateFailing || st.Error == "" {
				t.Errorf("the status says %+v", st)
			}
			s.wechat.ClearFaults()
			if made := s.wechat.Calls("", ""); made > 2 { // the failed one, and at most one since
				t.Errorf("%d calls for one failure", made)
			}
			if name == "unknown errcode" {
				return // asked again after a minute
			}
			events.next(messages.EventRecovered)
			w.await(messages.AccessToken, first.Generation)
		})
	}
}

func TestExpiresAreNeverHandedOutAndAreTold(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{TokenLife: 3 * time.Second})
	events := s.events()
	w := s.worker(nil)
	first := w.await(messages.AccessToken, 0)
	s.wechat.Inject(wechattest.Fault{Errcode: -1})
	if e := events.next(messages.EventExpired); e.Generation != first.Generation {
		t.Errorf("expired: %+v", e)
	}
	if _, err := w.reader.Get(appid, messages.AccessToken); err == nil {
		t.Error("an expired credential is handed out")
	}
	if _, err := w.resolve(); symbol(err) != messages.NoCredential {
		t.Errorf("resolving without a credential: %v", err)
	}
	if _, err := w.client.GetCredential(s.context(), messages.GetCredentialRequest{}); symbol(err) != messages.NoCredential {
		t.Errorf("credential.get: %v", err)
	}
	s.wechat.ClearFaults()
	if c := w.await(messages.AccessToken, first.Generation); c.Generation != first.Generation+1 {
		t.Errorf("generation %d after %d", c.Generation, first.Generation)
	}
}

// An error that only an operator can remove is told loudly, with what to do, and retried rarely; other accounts go on.
func TestRefusedAccountDoesNotDelayOthers(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{Accounts: []wechattest.Account{{AppID: appid, Secret: secret}, {AppID: "wxbad", Secret: "right"}}})
	events := s.events()
	w := s.worker(func(c *Config) {
		c.Accounts = append(c.Accounts, Account{AppID: "wxbad", Secret: "CANARY-WRONG"})
		c.RefreshConcurrency = 1
	})
	e := events.next(messages.EventFailed)
	if e.AppID != "wxbad" || e.Class != "account" || e.Errcode == 0 || e.Advice == "" || e.RID == "" {
		t.Errorf("the event says %+v", e)
	}
	w.await(messages.AccessToken, 0)
	var st messages.CredentialStatus
	s.eventually("the turn has ended", func() bool {
		st = w.Worker.status("wxbad").Credentials[0]
		return st.Reason != "refreshing"
	})
	if st.State != messages.StateMissing || st.Advice == "" || time.Until(st.NextAttempt) < permanentMin/2 {
		t.Errorf("the status says %+v", st)
	}
	if n := s.wechat.Calls("wxbad", ""); n != 1 {
		t.Errorf("%d calls with a wrong secret, want 1", n)
	}
	w.stop()

	// A restart does not repeat what was told not to be done …
	w = s.worker(func(c *Config) { c.Accounts = append(c.Accounts, Account{AppID: "wxbad", Secret: "CANARY-WRONG"}) })
	w.await(messages.AccessToken, 0)
	if n := s.wechat.Calls("wxbad", ""); n != 1 {
		t.Errorf("%d calls after the restart, want 1", n)
	}
	w.stop()
	// … but the right secret is tried at once.
	w = s.worker(func(c *Config) { c.Accounts = append(c.Accounts, Account{AppID: "wxbad", Secret: "right"}) })
	if _, err := w.reader.Wait(s.context(), "wxbad", messages.AccessToken); err != nil {
		t.Error(err)
	}
}

func TestWhiteListAdviceNamesTheIP(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{AllowIPs: []string{"203.0.113.7"}})
	events := s.events()
	s.worker(nil)
	if e := events.next(messages.EventFailed); e.Errcode != 40164 || !strings.Contains(e.Advice, "127.0.0.1") {
		t.Errorf("%+v", e)
	}
}

func TestWarmRestartMakesNoCall(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(everything)
	for _, k := range messages.Kinds {
		w.await(k, 0)
	}
	w.stop()
	before := s.wechat.Calls("", "")
	s.nats.Stop()
	s.nats.Restart()
	w = s.worker(everything)
	for _, k := range messages.Kinds {
		if c := w.await(k, 0); c.Generation != 1 {
			t.Errorf("%v", c)
		}
	}
	if n := s.wechat.Calls("", "") - before; n != 0 {
		t.Errorf("%d upstream calls after a warm restart", n)
	}
}

func TestManyWorkersMakeTheCallsOfOne(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	var workers []*actor
	for range 5 {
		workers = append(workers, s.worker(everything))
	}
	for _, w := range workers {
		for _, k := range messages.Kinds {
			w.await(k, 0)
		}
	}
	if n := s.wechat.Calls("", ""); n != 3 {
		t.Errorf("%d upstream calls of 5 workers, want 3", n)
	}
}

// A ticket that WeChat refuses to give because of the token: the token's own compare-and-refresh, then the ticket.
func TestTicketWithADeadTokenHealsTheToken(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{TicketLife: 6 * time.Second})
	w := s.worker(func(c *Config) { everything(c); classic(c) })
	token := w.await(messages.AccessToken, 0)
	ticket := w.await(messages.JSAPITicket, 0)
	s.wechat.Revoke(token.Value)
	w.await(messages.AccessToken, token.Generation)
	w.await(messages.JSAPITicket, ticket.Generation)
	if n := s.wechat.Minted(appid, "token"); n != 2 {
		t.Errorf("%d tokens were minted, want 2", n)
	}
}

// interloper runs once, between WeChat's answer to a token call and its publication.
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

// The lease is gone and taken when the answer is there: another worker has minted a token too, and nobody knows which
// is the newer. The worker fetches once more, so that the published token is the newest.
func TestRefusedWriteIsFollowedByOneMoreRefresh(t *testing.T) {
	t.Parallel()
	t.Run("", func(t *testing.T) { t.Parallel(); refuseWrite(t, false) })
	t.Run("and NATS loses an answer", func(t *testing.T) { t.Parallel(); refuseWrite(t, true) })
}

// refuseWrite has a rival publish in mid-refresh. lose: the first look of the refresh that must follow gets no answer.
func refuseWrite(t *testing.T, lose bool) {
	t.Helper()
	s := newStage(t, wechattest.Config{})
	s.gate = natstest.NewGate()
	rival, err := kv.NewStore(s.nats.Connect(), kv.StoreConfig{Worker: "rival"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := s.context()
	steal := func() {
		if err := rival.Ensure(ctx); err != nil {
			t.Error(err)
		}
		s.dropLease(appid, messages.AccessToken)
		lease, err := rival.Acquire(ctx, appid, messages.AccessToken, 5*time.Second)
		if err != nil {
			t.Error(err)
			return
		}
		defer lease.Release(ctx)
		if lose {
			s.gate.Lose("$JS.API.STREAM.MSG.GET.KV_wechat", 1)
		}
		token, err := s.wechat.ForeignRefresh(appid, "token")
		if err != nil {
			t.Error(err)
		}
		now := time.Now().UTC().Truncate(time.Millisecond)
		if _, err := lease.Publish(ctx, messages.Credential{
			AppID: appid, Kind: messages.AccessToken, Value: token, ObtainedAt: now, ExpiresAt: now.Add(time.Hour), RefreshAt: now.Add(time.Hour / 2),
			Generation: 2, Source: messages.SourceToken, Worker: "rival",
		}); err != nil {
			t.Error(err)
		}
	}
	w := s.worker(func(c *Config) {
		classic(c)
		c.WeChat.Transport = &interloper{http.DefaultTransport.(*http.Transport).Clone(), steal}
	})
	c := w.await(messages.AccessToken, 2)
	if v := s.wechat.Judge(appid, "access_token", c.Value); v != wechattest.Valid {
		t.Errorf("WeChat says of the published token: %v", v)
	}
	if n := s.wechat.Calls(appid, "token"); n != 2 {
		t.Errorf("%d calls, want the refused one and one more", n)
	}
	stored, err := rival.Get(ctx, appid, messages.AccessToken)
	if err != nil || stored.Value != c.Value {
		t.Errorf("the bucket holds %v, %v", stored, err)
	}
}

// dropLease ends a lease as its TTL would.
func (s *stage) dropLease(appid string, kind messages.Kind) {
	s.Helper()
	js, err := jetstreamOf(s.nats.Connect())
	if err != nil {
		s.Fatal(err)
	}
	b, err := js.KeyValue(s.context(), "wechat")
	if err == nil {
		err = b.Purge(s.context(), "lease."+messages.Key(appid, kind))
	}
	if err != nil {
		s.Fatal(err)
	}
}

func TestShortLifeMakesNoStorm(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	s.wechat.Inject(wechattest.Fault{Body: "raw:" + `{"access_token":"AAAA","expires_in":1}`})
	events := s.events()
	w := s.worker(nil)
	began := time.Now()
	for range 3 {
		events.next(messages.EventFailed) // it lives for less than a second when it is there
	}
	if most := int(time.Since(began)/minGap) + 1; s.wechat.Calls("", "") > most {
		t.Errorf("%d calls, at most %d are allowed", s.wechat.Calls("", ""), most)
	}
	w.stop()
}

// Two workers with two wrong secrets, in the middle of a change: each is tried once, not again and again.
func TestTwoWrongSecretsMakeNoStorm(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	events := s.events()
	var workers []*actor
	for _, wrong := range []string{"CANARY-wrong-1", "CANARY-wrong-2", "CANARY-wrong-3"} {
		workers = append(workers, s.worker(func(c *Config) { c.Accounts[0].Secret = Secret(wrong) }))
		events.next(messages.EventFailed)
	}
	for _, w := range workers {
		s.eventually("each waits for minutes", func() bool {
			st := w.Worker.status(appid).Credentials[0]
			return st.Reason == string(reasonBackoff) && time.Until(st.NextAttempt) > permanentMin/2
		})
	}
	if n := s.wechat.Calls("", ""); n != 3 {
		t.Errorf("%d calls with three wrong secrets, want 3", n)
	}
}

// The alarm must not wait for the next attempt, which may be an hour away.
func TestExpiryIsToldWhenItHappens(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{TokenLife: 4 * time.Second, TicketLife: 6 * time.Second})
	events := s.events()
	w := s.worker(everything)
	w.await(messages.JSAPITicket, 0)
	s.wechat.Inject(wechattest.Fault{Errcode: 40164})
	expired := map[messages.Kind]bool{}
	for len(expired) < 3 { // the tickets too, though without a token they cannot even be asked for
		expired[events.next(messages.EventExpired).Kind] = true
	}
	for _, c := range w.Worker.status(appid).Credentials {
		if c.State != messages.StateExpired {
			t.Errorf("%+v", c)
		}
	}
}

// The lease is lost in the refresh of a report too, and the rival is not done with its own yet.
func TestRefusedWriteOfAReportIsFollowedByOneMoreRefresh(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	rival, err := kv.NewStore(s.nats.Connect(), kv.StoreConfig{Worker: "rival"})
	if err == nil {
		err = rival.Ensure(s.context())
	}
	if err != nil {
		t.Fatal(err)
	}
	between := &interloper{RoundTripper: http.DefaultTransport.(*http.Transport).Clone()}
	w := s.worker(func(c *Config) { classic(c); c.WeChat.Transport = between })
	first := w.await(messages.AccessToken, 0)
	s.wechat.Revoke(first.Value)
	between.strike = func() {
		s.dropLease(appid, messages.AccessToken)
		if _, err := rival.Acquire(s.context(), appid, messages.AccessToken, time.Second); err != nil { // it dies with it
			t.Error(err)
		}
	}
	got, err := w.report(messages.RefreshCredentialRequest{Revision: first.Revision})
	if err != nil || !got.Refreshed {
		t.Errorf("%+v, %v", got, err)
	}
	c := w.await(messages.AccessToken, first.Generation)
	if v := s.wechat.Judge(appid, "access_token", c.Value); v != wechattest.Valid {
		t.Errorf("WeChat says of the published token: %v", v)
	}
	if n := s.wechat.Calls(appid, "token"); n != 3 {
		t.Errorf("%d token calls, want the first, the refused one, and one more", n)
	}
}
