package messages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
)

// patience limits waits for events that must come. It is for hangs only, not a claim about speed.
const patience = 2 * time.Minute

// respond answers the messages on a subject. When it returns, the server knows the subscription.
func respond(t *testing.T, nc *nats.Conn, subject string, f nats.MsgHandler) {
	t.Helper()
	if _, err := nc.Subscribe(subject, f); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

// reply replies as a worker does.
func reply(m *nats.Msg, body []byte) {
	_ = m.RespondMsg(&nats.Msg{Header: nats.Header{HeaderReply: {ReplyVersion}}, Data: body})
}

// awaitNoResponders waits until the server has answered n requests of nc with "no responders".
func awaitNoResponders(t *testing.T, nc *nats.Conn, n uint64) {
	t.Helper()
	tick, end := time.NewTicker(time.Millisecond), time.After(patience)
	defer tick.Stop()
	for nc.Stats().InMsgs < n {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("only %d requests in %s", nc.Stats().InMsgs, patience)
		}
	}
}

// wantError checks that err matches each of targets.
func wantError(t *testing.T, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("the error is %v, want %v", err, target)
		}
	}
}

func TestClientWaitsForTheWorkerThatIsRestarted(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	nc := srv.Connect()
	c := NewClient(nc, "")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan struct{})
	var got Status
	var err error
	go func() {
		defer close(done)
		got, err = c.Status(ctx, StatusRequest{})
	}()
	awaitNoResponders(t, nc, 2)
	respond(t, srv.Connect(), "wechat.status", func(m *nats.Msg) { reply(m, []byte(`{"worker":"new"}`)) })
	<-done
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Status{Worker: "new"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestClientWaitsNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	nc := srv.Connect()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := NewClient(nc, "").Status(ctx, StatusRequest{})
		result <- err
	}()
	awaitNoResponders(t, nc, 3)
	cancel()
	err := <-result
	wantError(t, err, context.Canceled, nats.ErrNoResponders)
	if !strings.HasPrefix(err.Error(), "messages: request wechat.status: no worker listens: ") {
		t.Errorf("the error is %q", err)
	}
}

func TestClientWithFailFastDoesNotWaitForAWorker(t *testing.T) {
	t.Parallel()
	nc := natstest.Start(t).Connect()
	c := NewClient(nc, "")
	c.FailFast = true
	_, err := c.Status(t.Context(), StatusRequest{})
	wantError(t, err, nats.ErrNoResponders)
	if n := nc.Stats().OutMsgs; n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// methods are all methods of a client, with the subject of each.
var methods = map[string]func(ctx context.Context, c *Client, appid string) error{
	SubjectCodeResolve: func(ctx context.Context, c *Client, appid string) error {
		_, err := c.ResolveCode(ctx, ResolveCodeRequest{AppID: appid, OpenID: "o", CodeTicket: "t"})
		return err
	},
	SubjectCredentialGet: func(ctx context.Context, c *Client, appid string) error {
		_, err := c.GetCredential(ctx, GetCredentialRequest{AppID: appid})
		return err
	},
	SubjectCredentialRefresh: func(ctx context.Context, c *Client, appid string) error {
		_, err := c.RefreshCredential(ctx, RefreshCredentialRequest{AppID: appid})
		return err
	},
	SubjectJSSDKSign: func(ctx context.Context, c *Client, appid string) error {
		_, err := c.SignJSSDK(ctx, SignJSSDKRequest{AppID: appid, URL: "https://example.com/"})
		return err
	},
	SubjectCardSign: func(ctx context.Context, c *Client, appid string) error {
		_, err := c.SignCard(ctx, SignCardRequest{AppID: appid, CardID: "p"})
		return err
	},
	SubjectStatus: func(ctx context.Context, c *Client, appid string) error {
		_, err := c.Status(ctx, StatusRequest{AppID: appid})
		return err
	},
}

// A malformed AppID makes a subject on which no worker ever listens: the client would send the request until
// its context ends, and then say that no worker listens.
func TestClientRefusesAMalformedAppIDAndSendsNothing(t *testing.T) {
	t.Parallel()
	nc := natstest.Start(t).Connect()
	c := NewClient(nc, "")
	c.FailFast = true // if the client does send something, this test fails quickly
	for _, subject := range Subjects {
		for _, appid := range []string{"wx.1", "wx 1", "*", ">", "wx1\r\n", " ", "微信", strings.Repeat("x", 65)} {
			err := methods[subject](t.Context(), c, appid)
			wantError(t, err, ErrInvalidAppID)
			if errors.Is(err, nats.ErrNoResponders) {
				t.Errorf("%s with %q: the error is %v", subject, appid, err)
			}
		}
		err := methods[subject](t.Context(), c, "wx.1")
		want := "messages: request wechat." + subject + `: "wx.1" is not an AppID: 1 to 64 of A-Z a-z 0-9 _ - are allowed`
		if diff := cmp.Diff(want, fmt.Sprint(err)); diff != "" {
			t.Error(diff)
		}
	}
	if n := nc.Stats().OutMsgs; n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

// A repeated request could have an effect that the caller did not ask for, and only the caller knows what else
// to do.
func TestClientSendsARequestOnceIfAWorkerAnswers(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	var requests atomic.Int64
	respond(t, srv.Connect(), "wechat.>", func(m *nats.Msg) {
		requests.Add(1)
		e := Errorf(Symbol(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]), "no").After(time.Millisecond)
		body, _ := json.Marshal(e)
		_ = m.RespondMsg(&nats.Msg{Data: body, Header: e.Header()})
	})
	c := NewClient(srv.Connect(), "")
	for i, s := range []Symbol{Overloaded, ShuttingDown, NoCredential, Throttled, Upstream, Rejected} {
		_, err := c.SignCard(t.Context(), SignCardRequest{AppID: string(s), CardID: "p"})
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("%s: %v", s, err)
		}
		if diff := cmp.Diff(&Error{Symbol: s, Message: "no", RetryAfterMS: 1}, e); diff != "" {
			t.Error(diff)
		}
		if n := requests.Load(); n != int64(i+1) {
			t.Errorf("%d requests, want %d", n, i+1)
		}
	}
}

// echo is a reply that has the subject and the body of its request in a field of every reply type.
func echo(m *nats.Msg) []byte {
	return fmt.Appendf(nil, `{"appid":"wx1","kind":"access_token","appId":"wx1","value":"v","generation":1,`+
		`"obtained_at":"2026-11-22T04:28:42Z","expires_at":"2026-11-22T05:28:42Z","refresh_at":"2026-11-22T05:20:42Z",`+
		`"time":"2026-11-22T04:28:42Z",`+
		`"code":"007","reason":%q,"source":%[1]q,"worker":%[1]q,"signature":%[1]q}`, m.Subject+" "+string(m.Data))
}

func TestClientUsesTheSubjectOfTheAccount(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	respond(t, srv.Connect(), "other.>", func(m *nats.Msg) { reply(m, echo(m)) })
	c := NewClient(srv.Connect(), "other")
	for _, appid := range []string{"", "wx1"} {
		check := func(subject, sent, field string, err error) {
			t.Helper()
			if err != nil {
				t.Errorf("%s: %v", subject, err)
			}
			want := "other." + subject + " {"
			if appid != "" {
				want = "other." + subject + "." + appid + ` {"appid":"wx1"`
			}
			if !strings.HasPrefix(sent, want) {
				t.Errorf("%s: the request was %s, want %s…", subject, sent, want)
			}
			if !strings.Contains(sent, field) {
				t.Errorf("%s: the request was %s, want %s in it", subject, sent, field)
			}
		}
		raw, err := c.ResolveCode(t.Context(), ResolveCodeRequest{AppID: appid, OpenID: "o", CodeTicket: "t"})
		var code struct{ Code, Reason string }
		if err := json.Unmarshal(raw, &code); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		if code.Code != "007" {
			t.Errorf("the code is %q, want 007", code.Code)
		}
		check(SubjectCodeResolve, code.Reason, `"openid":"o","code_ticket":"t"`, err)
		get, err := c.GetCredential(t.Context(), GetCredentialRequest{AppID: appid, Kind: AccessToken})
		check(SubjectCredentialGet, get.Source, `"kind":"access_token"`, err)
		refreshed, err := c.RefreshCredential(t.Context(), RefreshCredentialRequest{AppID: appid, Revision: 7})
		check(SubjectCredentialRefresh, string(refreshed.Reason), `"revision":7`, err)
		page, err := c.SignJSSDK(t.Context(), SignJSSDKRequest{AppID: appid, URL: "u"})
		check(SubjectJSSDKSign, page.Signature, `"url":"u"`, err)
		card, err := c.SignCard(t.Context(), SignCardRequest{AppID: appid, CardID: "p"})
		check(SubjectCardSign, card.Signature, `"card_id":"p"`, err)
		status, err := c.Status(t.Context(), StatusRequest{AppID: appid})
		check(SubjectStatus, status.Worker, "", err)
	}
}

func TestClientReturnsTheErrorOfTheWorker(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	respond(t, srv.Connect(), "wechat.*.*.wx2", func(m *nats.Msg) {
		e := Errorf(UnknownAccount, "no")
		body, _ := json.Marshal(e)
		_ = m.RespondMsg(&nats.Msg{Data: body, Header: e.Header()})
	})
	_, err := NewClient(srv.Connect(), "").GetCredential(t.Context(), GetCredentialRequest{AppID: "wx2"})
	wantError(t, err, ErrUnknownAccount)
}

// Everybody who may answer in the account of the callers could put another account's token in front of a service.
func TestClientAcceptsNoReplyAboutAnotherKey(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	respond(t, srv.Connect(), "wechat.>", func(m *nats.Msg) {
		reply(m, []byte(`{"appid":"wx2","appId":"wx2","kind":"access_token","value":"97_of_wx2","generation":1,`+
			`"obtained_at":"2026-11-22T04:28:42Z","expires_at":"2026-11-22T05:28:42Z","refresh_at":"2026-11-22T05:20:42Z",`+
			`"time":"2026-11-22T04:28:42Z","credentials":[{"appid":"wx2"}]}`))
	})
	c := NewClient(srv.Connect(), "")
	for _, kind := range []Kind{AccessToken, JSAPITicket} {
		for _, appid := range []string{"wx1", "wx2", ""} {
			wanted := kind == AccessToken && appid != "wx1"
			got, err := c.GetCredential(t.Context(), GetCredentialRequest{AppID: appid, Kind: kind})
			if errors.Is(err, ErrOtherRecord) == wanted || (got.Value != "") != wanted {
				t.Errorf("get %s of %q: %v, %v", kind, appid, got, err)
			}
			after, err := c.RefreshCredential(t.Context(), RefreshCredentialRequest{AppID: appid, Kind: kind})
			if errors.Is(err, ErrOtherRecord) == wanted || (after.AppID != "") != wanted {
				t.Errorf("refresh %s of %q: %v, %v", kind, appid, after, err)
			}
		}
	}
	for _, appid := range []string{"wx1", "wx2", ""} {
		_, err1 := c.SignJSSDK(t.Context(), SignJSSDKRequest{AppID: appid})
		_, err2 := c.Status(t.Context(), StatusRequest{AppID: appid})
		for _, err := range []error{err1, err2} {
			if errors.Is(err, ErrOtherRecord) != (appid == "wx1") {
				t.Errorf("%q: %v", appid, err)
			}
		}
	}
}

// A value with a line break would be two lines for $(wxkeeper get), and a time that is missing the year 1.
func TestClientAcceptsNoReplyThatNoWorkerSends(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	respond(t, srv.Connect(), "wechat.>", func(m *nats.Msg) {
		times := `"obtained_at":"2026-11-22T04:28:42Z","expires_at":"2026-11-22T05:28:42Z"`
		value := "v"
		switch {
		case strings.HasSuffix(m.Subject, ".wx1"):
			value, times = `S3CRET\nrm -rf`, times+`,"refresh_at":"2026-11-22T05:28:42Z"`
		case strings.HasSuffix(m.Subject, ".wx3"):
			times = `"obtained_at":"2026-11-22T04:28:42Z"`
		}
		appid := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
		reply(m, fmt.Appendf(nil, `{"appid":%q,"kind":"access_token","generation":1,"value":"%s",%s}`, appid, value, times))
	})
	c := NewClient(srv.Connect(), "")
	for _, appid := range []string{"wx1", "wx2", "wx3"} {
		got, err := c.GetCredential(t.Context(), GetCredentialRequest{AppID: appid})
		if !errors.Is(err, ErrReply) || strings.Contains(fmt.Sprint(got, err), "S3CRET") {
			t.Errorf("get of %s: %v, %v", appid, got, err)
		}
	}
	if _, err := c.RefreshCredential(t.Context(), RefreshCredentialRequest{AppID: "wx3"}); !errors.Is(err, ErrReply) {
		t.Errorf("a report without expires_at in its reply: %v", err)
	}
}
