package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// The tests of permissions are in this package, because it prints the lists, and may import everything that
// needs them.

// names are not the defaults, so that a list with a fixed name fails the tests.
var names = config.Config{SubjectPrefix: "corp", Bucket: "creds"}

const (
	mine, other = "wx1", "wx2" // accounts
	passphrase  = "swordfish"
	admin       = "admin" // a user with all permissions
)

// permissionsOf returns what the verb prints.
func permissionsOf(t *testing.T, kinds string, more ...string) string {
	t.Helper()
	v := permissionsVerb{Kind: strings.Fields(kinds)}
	for _, m := range more {
		name, value, _ := strings.Cut(m, "=")
		if name == "appid" {
			v.AppID = append(v.AppID, value)
		} else {
			v.User = append(v.User, value)
		}
	}
	text, err := v.text(names)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// guarded is a NATS server with the permissions that the verb prints. It records what its users do, and which
// permissions they lack.
type guarded struct {
	*testing.T
	srv *natstest.Server
	log *guardLog
}

// guard starts a server with users of one NATS account, and the admin.
func guard(t *testing.T, users ...string) *guarded {
	t.Helper()
	return guardConf(t, oneAccount(users...))
}

// oneAccount is the configuration of one NATS account with users, and the admin.
func oneAccount(users ...string) string {
	var refs []string
	for _, text := range users {
		refs = append(refs, "$"+regexp.MustCompile(`(?m)^(user_\S+): \{$`).FindStringSubmatch(text)[1])
	}
	return strings.Join(users, "") + fmt.Sprintf("authorization: { users: [%s, { user: %s, password: %s }] }\n",
		strings.Join(refs, ", "), admin, passphrase)
}

// guardConf starts a server with a configuration, and records what its users do.
func guardConf(t *testing.T, conf string) *guarded {
	t.Helper()
	g := startGuarded(t, conf)
	g.srv.Log(g.log)
	return g
}

// startGuarded starts a server with a configuration, and with the passwords to which the configuration refers.
func startGuarded(t *testing.T, conf string) *guarded {
	t.Helper()
	passwords := ""
	for _, m := range regexp.MustCompile(`\$(\w+_PASSWORD)`).FindAllStringSubmatch(conf, -1) {
		passwords += m[1] + ": " + passphrase + "\n"
	}
	g := &guarded{T: t, log: &guardLog{changed: make(chan struct{})}}
	g.srv = natstest.Start(t, func(o *server.Options) {
		if err := o.ProcessConfigString(passwords + conf); err != nil {
			t.Fatalf("nats-server refuses the configuration: %v\n%s", err, conf)
		}
	})
	return g
}

// context ends after patience.
func (g *guarded) context() context.Context {
	ctx, cancel := context.WithTimeout(g.T.Context(), patience)
	g.Cleanup(cancel)
	return ctx
}

// as connects as a user, with the environment that the list prescribes for its client.
func (g *guarded) as(user string) *nats.Conn {
	g.Helper()
	env := config.Config{NATSURL: g.srv.URL(), NATSUser: user, NATSPassword: passphrase}
	if user != admin {
		env.NATSInbox = "_INBOX_" + user
	}
	nc, err := natsconn.Connect(g.context(), env.NATS(user), nats.ReconnectWait(20*time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				g.log.violation(reported + user + ": " + err.Error())
			}
		}))
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(nc.Close)
	return nc.Conn
}

// js is the admin's JetStream.
func (g *guarded) js() jetstream.JetStream {
	g.Helper()
	js, err := jetstream.New(g.as(admin))
	if err != nil {
		g.Fatal(err)
	}
	return js
}

// restart restarts the server, and waits until the connections are back.
func (g *guarded) restart(conns ...*nats.Conn) {
	g.Helper()
	var back []chan nats.Status
	for _, nc := range conns {
		back = append(back, nc.StatusChanged(nats.CONNECTED))
	}
	g.srv.Stop()
	g.srv.Restart()
	late := time.After(patience)
	for _, c := range back {
		select {
		case <-c:
		case <-late:
			g.Fatal("a connection does not reconnect")
		}
	}
}

// noViolations fails if a user has lacked a permission.
func (g *guarded) noViolations() {
	g.Helper()
	if lines := g.log.violations(0); len(lines) > 0 {
		g.Fatalf("violations:\n%s", strings.Join(lines, "\n"))
	}
}

// denies calls try, and waits until the server logs that the user has no permission for the subject.
func (g *guarded) denies(nc *nats.Conn, subject string, try func() error) {
	g.Helper()
	before := len(g.log.violations(0))
	if err := try(); err != nil {
		g.Fatalf("%s: %v", subject, err)
	}
	g.log.await(g, func() bool {
		return slices.ContainsFunc(g.log.violations(before), func(line string) bool {
			return strings.Contains(line, `"`+subject+`"`) && strings.Contains(line, "user:"+nc.Opts.User) &&
				!strings.HasPrefix(line, reported)
		})
	}, fmt.Sprintf("%s has permission for %s", nc.Opts.User, subject))
}

// deniesPublish checks that a user may not publish to the subjects.
func (g *guarded) deniesPublish(nc *nats.Conn, subjects ...string) {
	g.Helper()
	for _, s := range subjects {
		g.denies(nc, s, func() error { return nc.PublishRequest(s, nc.NewRespInbox(), []byte("{}")) })
	}
}

// deniesSubscribe checks that a user may not subscribe to the subjects.
func (g *guarded) deniesSubscribe(nc *nats.Conn, subjects ...string) {
	g.Helper()
	for _, s := range subjects {
		g.denies(nc, s, func() error { _, err := nc.SubscribeSync(s); return err })
	}
}

// usesAll checks that a user has used every line of its list.
func (g *guarded) usesAll(user, text string) {
	g.Helper()
	publish, subscribe, _ := strings.Cut(text, "    subscribe: {")
	for verb, list := range map[string]string{"PUB": publish, "SUB": subscribe} {
		lines := regexp.MustCompile(`(?m)^      "(.*)"$`).FindAllStringSubmatch(list, -1)
		if len(lines) == 0 {
			g.Errorf("there is no list of %s in\n%s", verb, text)
		}
		for _, m := range lines {
			if !slices.ContainsFunc(g.log.used(user, verb), func(s string) bool { return within(s, m[1]) }) {
				g.Errorf("%s has not used %s %s", user, verb, m[1])
			}
		}
	}
}

// within reports whether a subject, or a pattern, is within a pattern of a permission.
func within(subject, pattern string) bool {
	s, p := strings.Split(subject, "."), strings.Split(pattern, ".")
	for i := range p {
		switch {
		case p[i] == ">":
			return len(s) > i
		case i >= len(s), p[i] != "*" && p[i] != s[i]:
			return false
		}
	}
	return len(s) == len(p)
}

// reported is the beginning of a violation that the server has reported to a client.
const reported = "reported to "

// guardLog is the log of the server.
type guardLog struct {
	mu      sync.Mutex
	lines   []string            // the violations
	ops     map[string][]string // "user VERB" → subjects
	changed chan struct{}       // closed and replaced at each violation
}

func (l *guardLog) violation(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	close(l.changed)
	l.changed = make(chan struct{})
}

// violations returns the violations from the n-th on.
func (l *guardLog) violations(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines[n:])
}

// used returns the subjects to which a user has published (PUB) or subscribed (SUB).
func (l *guardLog) used(user, verb string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.ops[user+" "+verb])
}

func (l *guardLog) await(g *guarded, done func() bool, otherwise string) {
	g.Helper()
	late := time.After(patience)
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		if done() {
			return
		}
		select {
		case <-changed:
		case <-late:
			g.Fatal(otherwise)
		}
	}
}

func (l *guardLog) Errorf(format string, v ...any) {
	if line := fmt.Sprintf(format, v...); strings.Contains(line, "Violation") {
		l.violation(line)
	}
}

// operation matches a command of a client: its user, the verb and the subject.
var operation = regexp.MustCompile(`user:([\w-]+)\b.* <<- \[(H?PUB|SUB) (\S+)`)

func (l *guardLog) Tracef(format string, v ...any) {
	m := operation.FindStringSubmatch(fmt.Sprintf(format, v...))
	if m == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ops == nil {
		l.ops = map[string][]string{}
	}
	key := m[1] + " " + strings.TrimPrefix(m[2], "H")
	if !slices.Contains(l.ops[key], m[3]) {
		l.ops[key] = append(l.ops[key], m[3])
	}
}

func (l *guardLog) Noticef(string, ...any) {}
func (l *guardLog) Warnf(string, ...any)   {}
func (l *guardLog) Debugf(string, ...any)  {}
func (l *guardLog) Fatalf(format string, v ...any) {
	l.violation("fatal: " + fmt.Sprintf(format, v...))
}

// workerFixture is a running worker of two accounts, with a simulated WeChat.
type workerFixture struct {
	sim  *wechattest.Server
	stop func() // may be called more than once
}

// startWorker starts a worker with a connection.
func (g *guarded) startWorker(nc *nats.Conn) *workerFixture {
	g.Helper()
	s := &workerFixture{sim: wechattest.Start(g, wechattest.Config{
		Accounts: []wechattest.Account{{AppID: mine, Secret: canary}, {AppID: other, Secret: canary}}, AnyCode: true,
	})}
	w, err := worker.New(nc, worker.Config{
		Name: "w", Log: slog.New(slog.NewTextHandler(g.Output(), nil)), Bucket: names.Bucket,
		SubjectPrefix: names.SubjectPrefix, WeChat: wechat.Config{URLs: []string{s.sim.URL}},
		Accounts: []worker.Account{{AppID: mine, Secret: canary,
			Tickets: []messages.Kind{messages.JSAPITicket, messages.WXCardTicket}}, {AppID: other, Secret: canary}},
	})
	if err != nil {
		g.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			g.Errorf("the worker: %v", err)
		}
	})
	g.Cleanup(s.stop)
	select {
	case <-w.Ready():
	case <-g.context().Done():
		g.Fatal("the worker is not ready")
	}
	return s
}

// read runs a Reader with a connection until the test ends or stop is called.
func (g *guarded) read(nc *nats.Conn, cfg kv.ReaderConfig) (r *kv.Reader, stop func()) {
	g.Helper()
	cfg.Bucket, cfg.SubjectPrefix = names.Bucket, names.SubjectPrefix
	r, err := kv.NewReader(nc, cfg)
	if err != nil {
		g.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = r.Run(ctx); close(ended) }()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	g.Cleanup(stop)
	return r, stop
}

// await waits until a Reader has a credential with a generation above the given one.
func (g *guarded) await(r *kv.Reader, appid string, kind messages.Kind, above uint64) messages.Credential {
	g.Helper()
	c, err := r.WaitNewer(g.context(), appid, kind, above)
	if err != nil {
		g.Fatalf("%v; violations: %q", err, g.log.violations(0))
	}
	return c
}

// awaitRefreshed lets WeChat revoke the token that a Reader has, reports it, and returns the next token.
func (g *guarded) awaitRefreshed(s *workerFixture, nc *nats.Conn, r *kv.Reader, appid string) messages.Credential {
	g.Helper()
	old := g.await(r, appid, messages.AccessToken, 0)
	s.sim.Revoke(old.Value)
	_, err := messages.NewClient(nc, names.SubjectPrefix).RefreshCredential(g.context(),
		messages.RefreshCredentialRequest{AppID: appid, Revision: old.Revision})
	if err != nil && !errors.Is(err, messages.ErrUpstreamTimeout) { // on a loaded machine; the worker goes on
		g.Fatalf("%v; violations: %q", err, g.log.violations(0))
	}
	return g.await(r, appid, messages.AccessToken, old.Generation)
}
