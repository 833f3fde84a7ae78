package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

func TestWatchNeverPrintsAValue(t *testing.T) {
	t.Parallel()
	record := &messages.Credential{
		AppID: "wx1", Kind: messages.AccessToken, Value: canary, ObtainedAt: noon, ExpiresAt: noon.Add(2 * time.Hour),
		RefreshAt:  noon.Add(time.Hour),
		Generation: 3, Source: "token", Worker: "host-1", Revision: 42,
	}
	for _, tt := range []struct {
		json   bool
		record *messages.Credential
		want   string
	}{
		{false, record, "12:00:00  wx1                 access_token    generation 3  revision 42  expires in 2h00m  " +
			"token by host-1\n"},
		{false, nil, "12:00:00  wx1                 access_token    gone: deleted or expired\n"},
		{true, record, `{"time":"2026-01-02T12:00:00Z","appid":"wx1","kind":"access_token","generation":3,"revision":42,` +
			`"obtained_at":"2026-01-02T12:00:00Z","expires_at":"2026-01-02T14:00:00Z","refresh_at":"2026-01-02T13:00:00Z","source":"token","worker":"host-1"}` + "\n"},
		{true, nil, `{"time":"2026-01-02T12:00:00Z","appid":"wx1","kind":"access_token","gone":true}` + "\n"},
	} {
		term, out, _ := screen(true)
		(&watchVerb{JSON: tt.json}).print(term, kv.Change{AppID: "wx1", Kind: messages.AccessToken, Record: tt.record})
		if d := cmp.Diff(tt.want, out.String()); d != "" {
			t.Errorf("-want +got\n%s", d)
		}
	}
}

func TestWatchPrintsForWhichAccountsThereIsNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		appids []string
		found  map[string]bool
		want   string
	}{
		{[]string{"wx1"}, map[string]bool{"": true, "wx1": true}, ""},
		{[]string{"wx1", "wx2"}, map[string]bool{"": true, "wx1": true}, "wxkeeper: no credential of wx2 yet\n"},
	} {
		term, out, errs := screen(true)
		nothing(term, tt.appids, tt.found)
		if errs.String() != tt.want {
			t.Errorf("--appid %v, found %v: %q, want %q", tt.appids, tt.found, errs, tt.want)
		}
		if out.Len() > 0 {
			t.Errorf("--appid %v: standard output: %q", tt.appids, out)
		}
	}
}

// watcherConf is a user with the permissions that the verb needs, and no others.
const watcherConf = `user_eye: {
  user: "eye"
  password: $EYE_PASSWORD
  permissions: {
    publish: { allow: ["corp.status", "corp.credential.get.*"] }
    subscribe: { allow: ["corp.published.*.*", "_INBOX_eye.>"] }
  }
}
`

func TestWatchNeedsNoRightToAskJetStream(t *testing.T) {
	g := guard(t, watcherConf)
	g.startWorker(g.as(admin))
	follow, _ := g.read(g.as(admin), kv.ReaderConfig{})
	for _, id := range []string{mine, other} {
		g.await(follow, id, messages.AccessToken, 0)
	}
	t.Setenv("NATS_INBOX_PREFIX", "_INBOX_eye")
	for name, value := range g.environment("eye") {
		t.Setenv(name, value)
	}
	for args, want := range map[string]string{
		"watch": other, "watch --appid wx1": mine, "watch --appid wx1 --appid wx2": other,
	} {
		ctx, stop := context.WithCancel(g.context())
		term, _, errs := screen(false)
		var printed strings.Builder
		term.out = writer(func(text string) {
			printed.WriteString(text)
			if strings.Contains(printed.String(), want) && strings.HasSuffix(printed.String(), "\n") {
				stop()
			}
		})
		if code := execute(ctx, term, strings.Fields(args)); code != exitOK {
			t.Errorf("wxkeeper %s: exit code %d: %s", args, code, errs)
		}
		stop()
		if !strings.Contains(printed.String(), want) {
			t.Errorf("wxkeeper %s does not print %s: %s%s", args, want, &printed, errs)
		}
	}
	g.noViolations()
}

// JetStream acknowledges a request that a stream stores before the worker replies.
func TestVerbsTakeNoAcknowledgementForTheReply(t *testing.T) {
	g := guard(t, watcherConf)
	nc := g.as(admin)
	g.startWorker(nc)
	follow, _ := g.read(nc, kv.ReaderConfig{})
	for _, k := range messages.Kinds {
		g.await(follow, mine, k, 0)
	}
	g.await(follow, other, messages.AccessToken, 0)
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = js.CreateStream(g.context(), jetstream.StreamConfig{Name: "AUDIT", Subjects: []string{"corp.>"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NATS_INBOX_PREFIX", "")
	for name, value := range g.environment(admin) {
		t.Setenv(name, value)
	}
	for args, want := range map[string]string{
		"status": "fresh", "get --appid wx1 --json": `"appid":"wx1"`, "refresh --appid wx1 --revision 1": "not_current",
	} {
		for range 5 {
			term, out, errs := screen(false)
			code := execute(g.context(), term, strings.Fields(args))
			if code != exitOK || !strings.Contains(out.String(), want) {
				t.Errorf("wxkeeper %s: exit code %d: %s; %s is not printed", args, code, errs, want)
			}
		}
	}
}

// A reply has room for some thousand credentials. To print only a part of the accounts, silently, would mislead.
func TestWatchAsksForNamesIfThereAreTooManyAccounts(t *testing.T) {
	g := guard(t, watcherConf)
	worker := g.as(admin)
	_, err := worker.Subscribe("corp.status", func(m *nats.Msg) {
		body, _ := json.Marshal(messages.Status{Accounts: 5000, Truncated: true})
		_ = m.RespondMsg(&nats.Msg{Header: nats.Header{messages.HeaderReply: {messages.ReplyVersion}}, Data: body})
	})
	if err == nil {
		err = worker.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NATS_INBOX_PREFIX", "_INBOX_eye")
	for name, value := range g.environment("eye") {
		t.Setenv(name, value)
	}
	term, _, errs := screen(false)
	if code := execute(g.context(), term, []string{"watch"}); code != exitFailure ||
		!strings.Contains(errs.String(), "5000 accounts") || !strings.Contains(errs.String(), "--appid") {
		t.Errorf("exit code %d: %s", code, errs)
	}
}
