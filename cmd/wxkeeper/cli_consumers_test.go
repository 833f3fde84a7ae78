//go:build cli

package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// proofs are the commands of docs/consumers.md, by their beginning, and the patterns that their output must have.
var proofs = []struct {
	command string
	shows   []string
}{
	{`nats rtt`, []string{`127\.0\.0\.1`}},
	{`nats --inbox-prefix _INBOX_shop req wechat.status.`, []string{`"state":"fresh"`}},
	{`nats req wechat.credential.get.` + appid + ` '{}'`, []string{`"kind":"access_token".*"revision":\d+\}`}},
	{`nats req wechat.credential.get.` + appid + ` '{"kind"`, []string{`"kind":"jsapi_ticket".*"revision":\d+\}`}},
	{`nats sub 'wechat.published.`, []string{`Received on "wechat\.published\.` + appid + `\.access_token"`,
		`^Nats-Sequence: \d+`, `"kind":"access_token",.*"generation":2,`}},
	{`nats req '$JS.API.DIRECT.GET.`, []string{`Nats-Sequence: \d+`, `Nats-Time-Stamp: \d{4}-`,
		`^\{"appid":"` + appid + `","kind":"access_token"`}},
	{`nats kv get `, []string{`^\{"appid":"` + appid +
		`","kind":"access_token","value":"97_.*"expires_at":".*"generation":1,`}},
	{`nats kv watch `, []string{appid + `\.access_token: \{.*"generation":1,`,
		appid + `\.access_token: \{.*"generation":2,`}},
	{`nats req wechat.credential.refresh.` + appid + ` '{"revision"`,
		[]string{`"refreshed":false,"reason":"(not_current|alive)"`}},
	{`nats req wechat.credential.refresh.` + appid + ` '{"value_sha256"`,
		[]string{`"refreshed":false,"reason":"not_current"`}},
	{`nats req wechat.code.resolve.` + appid + ` '{"openid":"oiV2`, []string{`"code":"8"`}},
	{`nats req wechat.jssdk.sign.`, []string{`"signature":"[0-9a-f]{40}"`}},
	{`nats req wechat.card.sign.`, []string{`"cardExt":"\{`}},
	{`nats req wechat.status.`, []string{`"state":"fresh"`}},
	{`nats req wechat.code.resolve.` + appid + ` '{"openid":"someone"`,
		[]string{`Nats-Service-Error-Code: 422`, `Nats-Service-Error: .`,
			`"error":"rejected",.*"errcode":40097,.*"rid":"`}},
	{`nats sub 'wechat.event.`, []string{`Received on "wechat\.event\.` + appid + `\.access_token\.refreshed"`}},
}

// A shell runs every command line of the page unchanged, with a worker, and the output is as the page describes.
func TestCommandsOfConsumersShowWhatThePageSays(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--account="+appid+":"+secret, "--force-gap=0s")
	k := run(t, sim.account(t))
	k.awaitFresh(t)
	path := vars{"PATH": filepath.Dir(natsCommand(t)) + ":/usr/bin:/bin"}
	consumer, worker := k.client(t).with(path), k.another(t).with(path)

	var commands []string
	for _, block := range regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```").FindAllStringSubmatch(consumers(t), -1) {
		for line := range strings.Lines(block[1]) {
			commands = append(commands, strings.TrimSpace(line))
		}
	}
	if len(commands) != len(proofs) {
		t.Fatalf("%d commands, but proofs for %d:\n%s", len(commands), len(proofs), strings.Join(commands, "\n"))
	}
	type listener struct {
		*process
		shows []string
	}
	var listeners []listener
	for i, command := range commands {
		if !strings.HasPrefix(command, proofs[i].command) {
			t.Fatalf("%q has no proof: the next proof is for %q", command, proofs[i].command)
		}
		env := consumer
		if strings.HasPrefix(command, "nats kv ") { // a consumer has no JetStream
			env = worker
		}
		// they run until a signal
		if strings.HasPrefix(command, "nats sub") || strings.HasPrefix(command, "nats kv watch") {
			p := start(t, env, "/bin/bash", "-c", "exec "+command)
			if strings.HasPrefix(command, "nats sub") {
				p.find(t, p.stderr, `Subscribing on `)
			} else {
				p.find(t, p.stdout, `"generation":1,`)
			}
			listeners = append(listeners, listener{p, proofs[i].shows})
			continue
		}
		r := call(t, env, "", "/bin/bash", "-c", command)
		for _, pattern := range proofs[i].shows {
			if r.code != 0 || !regexp.MustCompile("(?m)"+pattern).MatchString(r.err+r.out) {
				t.Errorf("%s: exit code %d, or not %s:\n%s%s", command, r.code, pattern, r.err, r.out)
			}
		}
	}
	// Another system invalidates the token: the report causes a refresh, which the listeners receive.
	for range 2 {
		sim.post(t, "/foreign-refresh", map[string]string{"appid": appid, "endpoint": "stable_token"})
	}
	if r := call(t, consumer, "", natsCommand(t), "req", "wechat.credential.refresh", "{}"); !strings.Contains(r.out,
		`"reason":"refreshed"`) {
		t.Errorf("the report of a dead token: %+v", r)
	}
	for _, l := range listeners {
		for _, pattern := range l.shows {
			l.find(t, l.stdout, "(?m)"+pattern)
		}
		l.stop(t, syscall.SIGINT)
	}
}
