package main

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/check"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

// hostile has what manipulates a terminal and its reader: escape sequences, a forged line, an overwritten line, other
// directions of writing, invisible characters.
const hostile = "a\x1b]0;title\x07\x1b[2J\nFORGED\tline\rover\u202e\u2066\u009b2J\u200b\x7f\u3164\U000e0041z"

// checkSafe fails the test if a text can manipulate a terminal, or has a line that text from elsewhere has begun.
func checkSafe(t *testing.T, what, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%s: not UTF-8: %q", what, text)
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		bad := func(r rune) bool {
			return unicode.In(r, unicode.C, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point)
		}
		if strings.ContainsFunc(line, bad) || strings.HasPrefix(strings.TrimSpace(line), "FORGED") {
			t.Errorf("%s: this line is not safe: %q", what, line)
		}
	}
}

// Every user of the NATS account can answer requests, and a proxy or WeChat can say anything.
func TestNoAnswerManipulatesTheTerminal(t *testing.T) {
	srv := natstest.Start(t)
	nc, err := nats.Connect(srv.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	t.Setenv("NATS_URL", srv.URL())
	encoded := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	refusal := messages.Error{Symbol: hostile, Message: hostile, Errcode: 1, Errmsg: hostile, RID: hostile + "2"}
	status := messages.Status{Worker: hostile, Version: hostile, Accounts: 1, Credentials: []messages.CredentialStatus{{
		AppID: hostile, Name: hostile, Kind: hostile, State: hostile, Reason: hostile, Error: hostile, RID: hostile + "2",
		Advice: hostile, Attempts: 1, Conflicts: 1,
	}}}
	record := messages.Credential{AppID: hostile, Kind: hostile, Value: hostile, Source: hostile, Worker: hostile}
	refreshed := messages.Refreshed{AppID: hostile, Kind: hostile, Reason: hostile}
	const raw = `{"code":"` + "\u202e\u009b2J\x7f\u200b\xff" + `"}`
	code := nats.Header{messages.HeaderErrorCode: {"\x1b[2J\u202e"}, messages.HeaderError: {"text \x1b[2J\u202e"}}
	for _, tt := range []struct {
		args   string
		header nats.Header
		body   string
	}{
		{"status", nil, encoded(status)},
		{"status --json", nil, encoded(status)},
		{"get", nil, encoded(record)},
		{"get --reveal", nil, encoded(record)},
		{"get --json", nil, encoded(record)},
		{"refresh", nil, encoded(refreshed)},
		{"refresh --json", nil, encoded(refreshed)},
		{"resolve o t", nil, raw},
		{"resolve o t", nil, "not JSON " + hostile},
		{"resolve o t", nil, ""},
		{"status", nil, "not JSON " + hostile},
		{"get", code, encoded(refusal)},
		{"get", code, "not JSON"},
		{"status", code, ""},
		{"resolve o t", nats.Header{messages.HeaderErrorCode: {"400"}}, encoded(refusal)},
	} {
		sub, err := nc.Subscribe("wechat.>", func(m *nats.Msg) {
			header := nats.Header{messages.HeaderReply: {messages.ReplyVersion}}
			maps.Copy(header, tt.header)
			_ = m.RespondMsg(&nats.Msg{Subject: m.Reply, Header: header, Data: []byte(tt.body)})
		})
		if err := errors.Join(err, nc.Flush()); err != nil {
			t.Fatal(err)
		}
		for _, tty := range []bool{true, false} {
			term, out, errs := screen(tty)
			execute(t.Context(), term, append(strings.Fields(tt.args), "--timeout", patience.String()))
			if out.Len()+errs.Len() == 0 {
				t.Errorf("%s prints nothing", tt.args)
			}
			checkSafe(t, tt.args+": standard error", errs.String())
			exact := !tty && (strings.HasPrefix(tt.args, "get") || strings.HasPrefix(tt.args, "resolve") ||
				strings.HasSuffix(tt.args, "--json"))
			if !exact {
				checkSafe(t, tt.args, out.String())
			}
			if tt.body == raw && !tty && out.String() != raw+"\n" {
				t.Errorf("%s: a pipe gets %q, want the answer unchanged", tt.args, out)
			}
		}
		if err := sub.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNoFindingAndNoChangeManipulatesTheTerminal(t *testing.T) {
	t.Parallel()
	found := []check.Finding{
		{Check: hostile, Level: check.Fail, AppID: hostile, What: hostile, Advice: hostile},
		{Check: check.NATS, Level: hostile, What: hostile},
	}
	term, out, _ := screen(true)
	printFindings(term, found, summarize(found))
	if err := term.json(found); err != nil {
		t.Fatal(err)
	}
	checkSafe(t, "check", out.String())

	record := &messages.Credential{AppID: hostile, Kind: hostile, Source: hostile, Worker: hostile}
	for _, v := range []watchVerb{{}, {JSON: true}} {
		term, out, errs := screen(true)
		v.print(term, kv.Change{AppID: hostile, Kind: hostile, Record: record})
		v.AppID = []string{hostile}
		nothing(term, v.AppID, map[string]bool{})
		watching := &watchErrors{t: term, violations: map[string]bool{}}
		watching.print(errors.New(hostile))
		watching.printViolation(&violationError{advice: hostile})
		if got := strings.Count(out.String(), "\n"); got != 1 {
			t.Errorf("a change has %d lines: %q", got, out)
		}
		checkSafe(t, "watch", out.String()+errs.String())
	}
}

func TestNoPageManipulatesTheTerminal(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte(hostile))
	}))
	defer srv.Close()
	for _, path := range []string{"/good", "/bad"} {
		printed, _ := health(healthVerb{URL: srv.URL + path})
		checkSafe(t, "health "+path, printed)
	}
}

// An argument may come from a script that read it elsewhere.
func TestNoArgumentManipulatesTheTerminal(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{hostile}, {"get", hostile}, {"get", "--appid", hostile}, {"get", "--" + hostile}, {"health", hostile},
		{"simulate", "--account", hostile}, {"simulate", "--listen", hostile}, {"simulate", "--allow-ip", hostile},
		{"permissions", hostile}, {"permissions", "operator", "--user", hostile}, {"check", "--appid", hostile},
		{"demo", "--for", hostile}, {"demo", "--listen", hostile},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		term, out, errs := screen(true)
		if code := execute(ctx, term, args); code == exitOK {
			t.Errorf("%q: exit code 0", args)
		}
		cancel()
		checkSafe(t, "an argument", out.String()+errs.String())
	}
	term, _, errs := screen(false)
	term.complain("%v after %s", errors.New(hostile), time.Second)
	checkSafe(t, "complain", errs.String())
}
