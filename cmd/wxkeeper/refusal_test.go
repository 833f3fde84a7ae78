package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natsconn"
)

// of is the environment of a user of g, but for NATS_INBOX_PREFIX.
func (g *guarded) of(user string) map[string]string {
	return map[string]string{
		"NATS_URL": g.srv.URL(), "NATS_USER": user, "NATS_PASSWORD": passphrase,
		"WXKEEPER_SUBJECT_PREFIX": house.SubjectPrefix, "WXKEEPER_BUCKET": house.Bucket,
	}
}

// Nobody answers a request that is refused: only what the server says aside can end the verb before the end of its time,
// which here is long after that of the test.
func TestVerbThatIsRefusedItsSubjectEndsAtOnceAndSaysWhatToDo(t *testing.T) {
	g := guard(t, printed(t, "resolver", "appid="+mine, "user=shop"))
	g.hire(g.as(admin))
	t.Setenv("NATS_INBOX_PREFIX", "")
	for name, value := range g.of("shop") {
		t.Setenv(name, value)
	}
	for _, tt := range []struct{ args, inbox, want string }{
		{"get", "_INBOX_shop", "publish to corp.credential.get: give --appid: it may be allowed to ask for one account alone"},
		{"status", "_INBOX_shop", "publish to corp.status: give --appid: it may be allowed to ask for one account alone"},
		{"refresh", "_INBOX_shop", "publish to corp.credential.refresh: give --appid: it may be allowed to ask for one account alone"},
		{"resolve o t", "_INBOX_shop", "publish to corp.code.resolve: give --appid: it may be allowed to ask for one account alone"},
		{"get --appid wx1", "_INBOX_shop", "publish to corp.credential.get.wx1: wxkeeper permissions operator prints what the verbs need"},
		{"resolve o t --appid wx1", "", "subscribe to _INBOX.>: " + natsconn.InboxAdvice},
		{"resolve o t --appid wx1", "_INBOX_other", "subscribe to _INBOX_other.>: " + natsconn.InboxAdvice},
	} {
		t.Setenv("NATS_INBOX_PREFIX", tt.inbox)
		term, out, errs := screen(false)
		code := execute(g.context(), term, append(strings.Fields(tt.args), "--timeout", "1h"))
		if want := "wxkeeper: this NATS user may not " + tt.want + "\n"; code != exitFailure || errs.String() != want || out.Len() > 0 {
			t.Errorf("wxkeeper %s: %d %s%q, want %q", tt.args, code, out, errs, want)
		}
	}
	t.Setenv("NATS_INBOX_PREFIX", "_INBOX_shop")
	term, out, errs := screen(false)
	if code := execute(g.context(), term, strings.Fields("resolve o t --appid wx1")); code != exitOK || errs.Len() > 0 {
		t.Errorf("what it may ask: %d %s%s", code, out, errs)
	}
}

func TestWatchSaysWhatItIsRefused(t *testing.T) {
	g := guard(t, printed(t, "resolver", "appid="+mine, "user=shop"))
	t.Setenv("NATS_INBOX_PREFIX", "")
	for name, value := range g.of("shop") {
		t.Setenv(name, value)
	}
	for inbox, want := range map[string]string{
		"_INBOX_shop": "publish to $JS.API.STREAM.INFO.KV_creds: wxkeeper permissions operator prints",
		"":            "subscribe to _INBOX.>: " + natsconn.InboxAdvice,
	} {
		t.Setenv("NATS_INBOX_PREFIX", inbox)
		ctx, stop := context.WithCancel(g.context())
		term, _, _ := screen(false)
		var mu sync.Mutex // a refusal may be told while the verb ends
		said := ""
		term.err = writer(func(line string) {
			mu.Lock()
			defer mu.Unlock()
			said += line
			if strings.Contains(line, want) {
				stop()
			}
		})
		code := execute(ctx, term, []string{"watch"})
		mu.Lock()
		if code != exitOK || !strings.HasPrefix(said, "wxkeeper: this NATS user may not ") || strings.Contains(said, "looking again") {
			t.Errorf("%d %q", code, said)
		}
		if g.context().Err() != nil {
			t.Fatalf("%q was not said: %q", want, said)
		}
		mu.Unlock()
		stop()
	}
}

func TestWatchSaysARefusalOnceAndNotTheSilenceAfterIt(t *testing.T) {
	t.Parallel()
	term, _, errs := screen(false)
	l := &troubles{t: term, bucket: "creds"}
	refused := func(subject string) {
		l.refusal(&refusalError{natsconn.Refusal{Subject: subject}, "ask"})
		l.trouble(context.DeadlineExceeded)
	}
	said := func(want string) {
		t.Helper()
		if errs.String() != want {
			t.Errorf("said %q, want %q", errs, want)
		}
		errs.Reset()
	}
	refused("$JS.API.CONSUMER.CREATE.KV_creds.first.$KV.creds.*.*")
	refused("$JS.API.CONSUMER.CREATE.KV_creds.second.$KV.creds.*.*")
	said("wxkeeper: this NATS user may not publish to $JS.API.CONSUMER.CREATE.KV_creds.first.$KV.creds.*.*: ask\n")
	refused("$JS.API.CONSUMER.MSG.NEXT.KV_creds.third")
	said("wxkeeper: this NATS user may not publish to $JS.API.CONSUMER.MSG.NEXT.KV_creds.third: ask\n")
	l.trouble(jetstream.ErrStreamNotFound)
	l.trouble(jetstream.ErrStreamNotFound)
	said("wxkeeper: there is no bucket creds: no worker has run here yet, or see WXKEEPER_BUCKET (looking again until it is there)\n")
	l.over()
	l.trouble(context.DeadlineExceeded)
	l.trouble(errors.New("else"))
	said("wxkeeper: context deadline exceeded (looking again until it is there)\nwxkeeper: else (looking again until it is there)\n")
}
