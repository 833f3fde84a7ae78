package messages

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
)

// audit makes a stream that stores every subject of the service, as an operator may who wants to see its traffic.
func audit(t *testing.T, nc *nats.Conn) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "AUDIT", Subjects: []string{"wechat.>"}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// JetStream acknowledges a request that a stream stores before a worker has replied.
func TestAcknowledgementOfAStreamIsNotTakenForTheReply(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	nc := srv.Connect()
	audit(t, nc)
	acknowledged := make(chan struct{}, 100)
	if _, err := nc.Subscribe("_INBOX.>", func(*nats.Msg) { acknowledged <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	respond(t, srv.Connect(), "wechat.>", func(m *nats.Msg) {
		if m.Reply == "" || strings.HasPrefix(m.Subject, "wechat.published") {
			return
		}
		<-acknowledged // JetStream was faster
		reply(m, []byte(`{"errcode":0,"code":"007","appid":"wx1","kind":"access_token","worker":"w","appId":"wx1",`+
			`"cardId":"p","value":"v","generation":1,"obtained_at":"2026-11-22T04:28:42Z",`+
			`"expires_at":"2026-11-22T05:28:42Z","refresh_at":"2026-11-22T05:20:42Z","time":"2026-11-22T04:28:42Z"}`))
	})
	c := NewClient(srv.Connect(), "")
	for subject, call := range methods {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := call(ctx, c, "wx1"); err != nil {
			t.Errorf("%s: %v", subject, err)
		}
		cancel()
	}
}

func TestOnlyMessagesOfOthersAreAnErrorThatNamesThem(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	nc := srv.Connect()
	audit(t, nc)
	respond(t, srv.Connect(), "other.>", func(m *nats.Msg) { _ = m.Respond([]byte(`{"code":"a marketing code"}`)) })
	for prefix, want := range map[string]string{
		"wechat": `stored the request in the stream "AUDIT"`, "other": "with 27 bytes and without the header Wxkeeper-Reply",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := NewClient(nc, prefix).ResolveCode(ctx, ResolveCodeRequest{AppID: "wx1", OpenID: "o", CodeTicket: "t"})
		cancel()
		wantError(t, err, context.DeadlineExceeded, ErrReply)
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "marketing") {
			t.Errorf("the error is %v, want %q in it", err, want)
		}
	}
}

func TestEmptyReplyIsAnError(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	body := make(chan string, 1)
	respond(t, srv.Connect(), "wechat.>", func(m *nats.Msg) { reply(m, []byte(<-body)) })
	c := NewClient(srv.Connect(), "")
	for subject, call := range methods {
		for _, empty := range []string{"", "{}", "null", "[]", `{"stream":"AUDIT","seq":2}`} {
			if subject == SubjectCodeResolve && strings.Contains(empty, "AUDIT") {
				continue // the members of WeChat's answer are WeChat's
			}
			body <- empty
			if err := call(t.Context(), c, "wx1"); !errors.Is(err, ErrReply) {
				t.Errorf("%s: %q is answered with %v, want ErrReply", subject, empty, err)
			}
		}
	}
}

// The requests of a client do not receive each other's replies, and a late reply does no harm.
func TestRepliesReachTheirRequests(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t)
	late := make(chan *nats.Msg, 1)
	respond(t, srv.Connect(), "wechat.status.*", func(m *nats.Msg) {
		account := strings.TrimPrefix(m.Subject, "wechat.status.")
		if account == "late" {
			late <- m
			return
		}
		go reply(m, []byte(`{"worker":"`+account+`"}`))
	})
	c := NewClient(srv.Connect(), "")
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := c.Status(ctx, StatusRequest{AppID: "late"})
		gone <- err
	}()
	m := <-late
	cancel()
	wantError(t, <-gone, context.Canceled)
	reply(m, []byte(`{"worker":"late"}`))
	done := make(chan struct{})
	for _, account := range []string{"a", "b", "c", "d"} {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 100 {
				if st, err := c.Status(t.Context(), StatusRequest{AppID: account}); err != nil || st.Worker != account {
					t.Errorf("%s: the reply is of %q, %v", account, st.Worker, err)
				}
			}
		}()
	}
	for range 4 {
		<-done
	}
}
