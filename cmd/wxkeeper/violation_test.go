package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/natsconn"
)

// environment is the environment of a user, without NATS_INBOX_PREFIX.
func (g *guarded) environment(user string) map[string]string {
	return map[string]string{
		"NATS_URL": g.srv.URL(), "NATS_USER": user, "NATS_PASSWORD": passphrase,
		"WXKEEPER_SUBJECT_PREFIX": names.SubjectPrefix, "WXKEEPER_BUCKET": names.Bucket,
	}
}

// A request without permission gets no answer. Only the asynchronous error of the server can end the verb before its
// timeout, which is longer than the test here.
func TestVerbWithoutPermissionEndsAtOnceWithAdvice(t *testing.T) {
	g := guard(t, permissionsOf(t, "resolver", "appid="+mine, "user=shop"))
	g.startWorker(g.as(admin))
	t.Setenv("NATS_INBOX_PREFIX", "")
	for name, value := range g.environment("shop") {
		t.Setenv(name, value)
	}
	for _, tt := range []struct{ args, inbox, want string }{
		{"get", "_INBOX_shop", "publish to corp.credential.get: give --appid: this user may only have permission " +
			"for one account"},
		{"status", "_INBOX_shop", "publish to corp.status: wxkeeper permissions operator prints what the verb needs"},
		{"refresh", "_INBOX_shop", "publish to corp.credential.refresh: give --appid: this user may only have " +
			"permission for one account"},
		{"resolve o t", "_INBOX_shop", "publish to corp.code.resolve: give --appid: this user may only have " +
			"permission for one account"},
		{"get --appid wx1", "_INBOX_shop",
			"publish to corp.credential.get.wx1: wxkeeper permissions requester prints what the verb needs"},
		{"resolve o t --appid wx1", "", "subscribe to _INBOX.>: " + natsconn.InboxAdvice},
		{"resolve o t --appid wx1", "_INBOX_other", "subscribe to _INBOX_other.>: " + natsconn.InboxAdvice},
	} {
		t.Setenv("NATS_INBOX_PREFIX", tt.inbox)
		term, out, errs := screen(false)
		if code := execute(g.context(), term, append(strings.Fields(tt.args), "--timeout", "1h")); code != exitFailure {
			t.Errorf("wxkeeper %s: exit code %d", tt.args, code)
		}
		if d := cmp.Diff("wxkeeper: this NATS user may not "+tt.want+"\n", errs.String()); d != "" {
			t.Errorf("wxkeeper %s: standard error: -want +got\n%s", tt.args, d)
		}
		if out.Len() > 0 {
			t.Errorf("wxkeeper %s: standard output: %s", tt.args, out)
		}
	}
	t.Setenv("NATS_INBOX_PREFIX", "_INBOX_shop")
	term, out, errs := screen(false)
	if code := execute(g.context(), term, strings.Fields("resolve o t --appid wx1")); code != exitOK || errs.Len() > 0 {
		t.Errorf("a permitted request: exit code %d: %s%s", code, out, errs)
	}
}

func TestWatchPrintsWhichPermissionIsMissing(t *testing.T) {
	g := guard(t, permissionsOf(t, "resolver", "appid="+mine, "user=shop"))
	t.Setenv("NATS_INBOX_PREFIX", "")
	for name, value := range g.environment("shop") {
		t.Setenv(name, value)
	}
	for inbox, want := range map[string]string{
		"_INBOX_shop": "publish to corp.credential.get.wx1: wxkeeper permissions ",
		"":            "subscribe to _INBOX.>: " + natsconn.InboxAdvice,
	} {
		t.Setenv("NATS_INBOX_PREFIX", inbox)
		ctx, stop := context.WithCancel(g.context())
		term, _, _ := screen(false)
		var mu sync.Mutex // a violation may be printed while the verb ends
		printed := ""
		term.err = writer(func(line string) {
			mu.Lock()
			defer mu.Unlock()
			printed += line
			if strings.Contains(line, want) {
				stop()
			}
		})
		code := execute(ctx, term, []string{"watch", "--appid", mine})
		stop()
		mu.Lock()
		if code != exitOK {
			t.Errorf("exit code %d", code)
		}
		if !strings.HasPrefix(printed, "wxkeeper: this NATS user may not ") || !strings.Contains(printed, want) {
			t.Errorf("%q is not printed: %q", want, printed)
		}
		if strings.Contains(printed, "trying again") {
			t.Errorf("the error after the violation is printed too: %q", printed)
		}
		mu.Unlock()
	}
}

func TestWatchPrintsAViolationOnceAndNotTheTimeoutAfterIt(t *testing.T) {
	t.Parallel()
	term, _, errs := screen(false)
	w := &watchErrors{t: term, violations: map[string]bool{}}
	violate := func(subject string) {
		w.printViolation(&violationError{natsconn.Use{Subject: subject}, "ask"})
		w.print(context.DeadlineExceeded)
	}
	printed := func(want string) {
		t.Helper()
		if d := cmp.Diff(want, errs.String()); d != "" {
			t.Errorf("-want +got\n%s", d)
		}
		errs.Reset()
	}
	violate("corp.credential.get.wx1")
	violate("corp.credential.get.wx1")
	printed("wxkeeper: this NATS user may not publish to corp.credential.get.wx1: ask\n")
	violate("corp.credential.get.wx2")
	printed("wxkeeper: this NATS user may not publish to corp.credential.get.wx2: ask\n")
	w.reset()
	w.print(context.DeadlineExceeded)
	w.print(errors.New("else"))
	printed("wxkeeper: context deadline exceeded (trying again)\nwxkeeper: else (trying again)\n")
}
