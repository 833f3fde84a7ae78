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

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
)

const patience = 30 * time.Second // for events that must come; it is not a claim about speed

// respond answers what comes on a subject, from when respond returns on.
func respond(t *testing.T, nc *nats.Conn, subject string, f nats.MsgHandler) {
	t.Helper()
	if _, err := nc.Subscribe(subject, f); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

// refusedTimes waits until n requests of nc were answered with "no responders".
func refusedTimes(t *testing.T, nc *nats.Conn, n uint64) {
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

func TestClientWaitsForTheWorkerThatIsRestarted(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	nc := srv.Connect()
	c := NewClient(nc, "")
	status := make(chan error, 1)
	go func() {
		got, err := c.Status(t.Context(), StatusRequest{})
		if err == nil && got.Worker != "new" {
			err = fmt.Errorf("%+v", got)
		}
		status <- err
	}()
	refusedTimes(t, nc, 2)
	respond(t, srv.Connect(), "wechat.status", func(m *nats.Msg) { _ = m.Respond([]byte(`{"worker":"new"}`)) })
	if err := <-status; err != nil {
		t.Error(err)
	}
}

func TestClientWaitsNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	nc := srv.Connect()
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		_, err := NewClient(nc, "").Status(ctx, StatusRequest{})
		asked <- err
	}()
	refusedTimes(t, nc, 3)
	cancel()
	if err := <-asked; !errors.Is(err, context.Canceled) || !errors.Is(err, nats.ErrNoResponders) || !strings.Contains(err.Error(), "no worker listens on wechat.status") {
		t.Errorf("%v", err)
	}

	fast := NewClient(srv.Connect(), "")
	fast.FailFast = true
	if _, err := fast.Status(t.Context(), StatusRequest{}); !errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("fail fast: %v", err)
	}
}

// A second request could do what the caller did not ask for; and only the caller knows what else to do.
func TestClientAsksOnceWhereAWorkerAnswers(t *testing.T) {
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
		if !errors.As(err, &e) || e.Symbol != s || e.RetryAfterMS != 1 {
			t.Errorf("%s: %v", s, err)
		}
		if n := requests.Load(); n != int64(i+1) {
			t.Errorf("%d requests, want %d", n, i+1)
		}
	}
}

func TestClientAsksTheSubjectOfTheAccount(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	respond(t, srv.Connect(), "other.>", func(m *nats.Msg) {
		if m.Subject == "other.credential.get.wx2" {
			e := Errorf(UnknownAccount, "no")
			body, _ := json.Marshal(e)
			_ = m.RespondMsg(&nats.Msg{Data: body, Header: e.Header()})
			return
		}
		// The subject, and the request, in fields of every reply.
		said := m.Subject + " " + string(m.Data)
		_ = m.Respond(fmt.Appendf(nil, `{"code":"007","reason":%q,"value":%[1]q,"worker":%[1]q,"signature":%[1]q}`, said))
	})
	c := NewClient(srv.Connect(), "other")
	for _, appid := range []string{"", "wx1"} {
		code, err := c.ResolveCode(t.Context(), ResolveCodeRequest{AppID: appid, OpenID: "o", CodeTicket: "t"})
		check := func(subject, said, of string, err error) {
			t.Helper()
			want := "other." + subject + " {"
			if appid != "" {
				want = "other." + subject + "." + appid + ` {"appid":"wx1"`
			}
			if err != nil || !strings.HasPrefix(said, want) || !strings.Contains(said, of) {
				t.Errorf("%s: %q, %v", subject, said, err)
			}
		}
		var raw struct{ Code, Reason string }
		if e := json.Unmarshal(code, &raw); e != nil || raw.Code != "007" {
			t.Errorf("%s, %v", code, e)
		}
		check("code.resolve", raw.Reason, `"openid":"o","code_ticket":"t"`, err)
		get, err := c.GetCredential(t.Context(), GetCredentialRequest{AppID: appid, Kind: "k"})
		check("credential.get", get.Value, `"kind":"k"`, err)
		refreshed, err := c.RefreshCredential(t.Context(), RefreshCredentialRequest{AppID: appid, Revision: 7})
		check("credential.refresh", refreshed.Reason, `"revision":7`, err)
		page, err := c.SignJSSDK(t.Context(), SignJSSDKRequest{AppID: appid, URL: "u"})
		check("jssdk.sign", page.Signature, `"url":"u"`, err)
		card, err := c.SignCard(t.Context(), SignCardRequest{AppID: appid, CardID: "p"})
		check("card.sign", card.Signature, `"card_id":"p"`, err)
		status, err := c.Status(t.Context(), StatusRequest{AppID: appid})
		check("status", status.Worker, "", err)
	}
	if _, err := c.GetCredential(t.Context(), GetCredentialRequest{AppID: "wx2"}); !errors.Is(err, ErrUnknownAccount) {
		t.Errorf("%v, want unknown_account", err)
	}
}
