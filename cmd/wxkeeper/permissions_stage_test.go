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

// These tests stand here, because here is what prints the lists, and what may import all that lives by them.

// soon bounds waits for events that must come; it is not a claim about speed.
const soon = 30 * time.Second

// Other names than the defaults: no list takes them for granted.
var house = config.Config{SubjectPrefix: "corp", Bucket: "creds"}

const (
	mine, other = "wx1", "wx2" // accounts
	passphrase  = "swordfish"
	admin       = "admin" // a user who may do everything
)

// printed is what the verb prints.
func printed(t *testing.T, kinds string, more ...string) string {
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
	text, err := v.text(house)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// guarded is a NATS server that runs with what the verb prints, and remembers what its users do and what it refuses them.
type guarded struct {
	*testing.T
	srv *natstest.Server
	log *guardLog
}

// guard starts a server with some users of one NATS account, and the admin.
func guard(t *testing.T, users ...string) *guarded {
	t.Helper()
	var refs []string
	for _, text := range users {
		refs = append(refs, regexp.MustCompile(`(?m)^(user_\S+): \{$`).ReplaceAllString(regexp.MustCompile(`(?m)^user_\S+: \{$`).FindString(text), "$$$1"))
	}
	return guardConf(t, strings.Join(users, "")+fmt.Sprintf("authorization: { users: [%s, { user: %s, password: %s }] }\n", strings.Join(refs, ", "), admin, passphrase))
}

// guardConf starts a server with a configuration. The passwords that it refers to stand before it.
func guardConf(t *testing.T, conf string) *guarded {
	t.Helper()
	passwords := ""
	for _, m := range regexp.MustCompile(`\$(\w+_PASSWORD)`).FindAllStringSubmatch(conf, -1) {
		passwords += m[1] + ": " + passphrase + "\n"
	}
	g := &guarded{T: t, log: &guardLog{changed: make(chan struct{})}}
	g.srv = natstest.Start(t, func(o *server.Options) {
		if err := o.ProcessConfigString(passwords + conf); err != nil {
			t.Fatalf("nats-server does not take it: %v\n%s", err, conf)
		}
	})
	g.srv.Log(g.log)
	return g
}

// context ends when nothing more is to be waited for.
func (g *guarded) context() context.Context {
	ctx, cancel := context.WithTimeout(g.T.Context(), soon)
	g.Cleanup(cancel)
	return ctx
}

// as connects as a user, with the environment that the list tells its client to have.
func (g *guarded) as(user string) *nats.Conn {
	g.Helper()
	env := config.Config{NATSURL: g.srv.URL(), NATSUser: user, NATSPassword: passphrase}
	if user != admin {
		env.NATSInbox = "_INBOX_" + user
	}
	nc, err := natsconn.Connect(g.context(), natsConfig(env, user), nats.ReconnectWait(20*time.Millisecond), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			g.log.refused("told to " + user + ": " + err.Error())
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
	late := time.After(soon)
	for _, c := range back {
		select {
		case <-c:
		case <-late:
			g.Fatal("a connection does not come back")
		}
	}
}

// unhindered fails where anybody was refused anything.
func (g *guarded) unhindered() {
	g.Helper()
	if lines := g.log.refusals(0); len(lines) > 0 {
		g.Fatalf("refused:\n%s", strings.Join(lines, "\n"))
	}
}

// refuses has a user try something, and waits until the server says that it may not use the subject.
func (g *guarded) refuses(nc *nats.Conn, subject string, try func() error) {
	g.Helper()
	before := len(g.log.refusals(0))
	if err := try(); err != nil {
		g.Fatalf("%s: %v", subject, err)
	}
	g.log.await(g, func() bool {
		return slices.ContainsFunc(g.log.refusals(before), func(line string) bool {
			return strings.Contains(line, `"`+subject+`"`) && strings.Contains(line, "user:"+nc.Opts.User) && !strings.HasPrefix(line, "told")
		})
	}, fmt.Sprintf("%s was not refused %s", nc.Opts.User, subject))
}

// refusesTo publish.
func (g *guarded) refusesTo(nc *nats.Conn, subjects ...string) {
	g.Helper()
	for _, s := range subjects {
		g.refuses(nc, s, func() error { return nc.PublishRequest(s, nc.NewRespInbox(), []byte("{}")) })
	}
}

// refusesToHear subscriptions.
func (g *guarded) refusesToHear(nc *nats.Conn, subjects ...string) {
	g.Helper()
	for _, s := range subjects {
		g.refuses(nc, s, func() error { _, err := nc.SubscribeSync(s); return err })
	}
}

// needed checks that a user has used every line of its list.
func (g *guarded) needed(user, text string) {
	g.Helper()
	publish, subscribe, _ := strings.Cut(text, "    subscribe: {")
	for verb, list := range map[string]string{"PUB": publish, "SUB": subscribe} {
		lines := regexp.MustCompile(`(?m)^      "(.*)"$`).FindAllStringSubmatch(list, -1)
		if len(lines) == 0 {
			g.Errorf("no list of %s in\n%s", verb, text)
		}
		for _, m := range lines {
			if !slices.ContainsFunc(g.log.used(user, verb), func(s string) bool { return within(s, m[1]) }) {
				g.Errorf("%s does not need %s %s", user, verb, m[1])
			}
		}
	}
}

// within says whether a subject, or a pattern, lies in a pattern of a permission.
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

// guardLog is the log of the server.
type guardLog struct {
	mu      sync.Mutex
	no      []string            // what was refused
	ops     map[string][]string // "user VERB" → subjects
	changed chan struct{}       // closed and replaced at each refusal
}

func (l *guardLog) refused(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.no = append(l.no, line)
	close(l.changed)
	l.changed = make(chan struct{})
}

// refusals are those from the n-th on.
func (l *guardLog) refusals(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.no[n:])
}

// used are the subjects that a user has published (PUB) or subscribed to (SUB).
func (l *guardLog) used(user, verb string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.ops[user+" "+verb])
}

func (l *guardLog) await(g *guarded, done func() bool, otherwise string) {
	g.Helper()
	late := time.After(soon)
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
		l.refused(line)
	}
}

// operation is what a client sends: its user, the verb and the subject.
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
	l.refused("Violation of everything: " + fmt.Sprintf(format, v...))
}

// staff is a running worker of two accounts, beside a simulated WeChat.
type staff struct {
	sim  *wechattest.Server
	stop func() // may be called twice
}

// hire starts a worker on a connection.
func (g *guarded) hire(nc *nats.Conn) *staff {
	g.Helper()
	s := &staff{sim: wechattest.Start(g, wechattest.Config{
		Accounts: []wechattest.Account{{AppID: mine, Secret: canary}, {AppID: other, Secret: canary}}, AnyCode: true,
	})}
	w, err := worker.New(nc, worker.Config{
		Name: "w", Log: slog.New(slog.NewTextHandler(g.Output(), nil)), Bucket: house.Bucket, SubjectPrefix: house.SubjectPrefix, WeChat: wechat.Config{URLs: []string{s.sim.URL}},
		Accounts: []worker.Account{{AppID: mine, Secret: canary, Tickets: []messages.Kind{messages.JSAPITicket, messages.WXCardTicket}}, {AppID: other, Secret: canary}},
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

// read runs a Reader as a user, until the test ends or stop is called.
func (g *guarded) read(nc *nats.Conn, cfg kv.ReaderConfig) (r *kv.Reader, stop func()) {
	g.Helper()
	cfg.Bucket, cfg.SubjectPrefix = house.Bucket, house.SubjectPrefix
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

// has waits until a Reader has a credential newer than a generation.
func (g *guarded) has(r *kv.Reader, appid string, kind messages.Kind, above uint64) messages.Credential {
	g.Helper()
	c, err := r.WaitNewer(g.context(), appid, kind, above)
	if err != nil {
		g.Fatalf("%v; refused: %q", err, g.log.refusals(0))
	}
	return c
}

// renewed has WeChat kill the token that a Reader has, reports it, and returns the next one.
func (g *guarded) renewed(s *staff, nc *nats.Conn, r *kv.Reader, appid string) messages.Credential {
	g.Helper()
	old := g.has(r, appid, messages.AccessToken, 0)
	s.sim.Revoke(old.Value)
	_, err := messages.NewClient(nc, house.SubjectPrefix).RefreshCredential(g.context(), messages.RefreshCredentialRequest{AppID: appid, Revision: old.Revision})
	if err != nil && !errors.Is(err, messages.ErrUpstreamTimeout) { // on a machine that is busy; it goes on
		g.Fatalf("%v; refused: %q", err, g.log.refusals(0))
	}
	return g.has(r, appid, messages.AccessToken, old.Generation)
}
