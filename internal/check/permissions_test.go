package check

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// neededTrials are the trials of everything that a worker needs.
func neededTrials(t *testing.T) []trial {
	t.Helper()
	r := &run{nc: &natsconn.Conn{Conn: natstest.Start(t).Connect()}}
	r.setDefaults()
	return slices.DeleteFunc(r.makeTrials(), func(p trial) bool { return p.use == r.ping() })
}

// userWithout is a user with the permissions of all trials except one, and with the permissions that cannot be
// tried.
func userWithout(name string, list []trial, but use) *server.User {
	p := &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{"wechat.event.>", "_INBOX.>"}},
		Subscribe: &server.SubjectPermission{Allow: []string{"none"}},
	}
	for _, g := range list {
		switch {
		case g.use == but:
		case g.Subscribe:
			p.Subscribe.Allow = append(p.Subscribe.Allow, g.grant)
		default:
			p.Publish.Allow = append(p.Publish.Allow, g.grant)
		}
	}
	return &server.User{Username: name, Password: "p", Permissions: p}
}

// The trials are exactly what a worker needs: a worker with these permissions creates its buckets and serves,
// and the check names each of them that is missing.
func TestEachMissingPermissionIsNamed(t *testing.T) {
	t.Parallel()
	list := neededTrials(t)
	users := []*server.User{userWithout("whole", list, use{}), {Username: "admin", Password: "p"}}
	for i, p := range list {
		users = append(users, userWithout(userName(i), list, p.use))
	}
	s := natstest.Start(t, func(o *server.Options) { o.Users = users })
	sim := startWeChat(t)

	violations := make(chan string, 100)
	onError := func(_ *nats.Conn, _ *nats.Subscription, err error) { violations <- err.Error() }
	nc := s.Connect(nats.UserInfo("whole", "p"), nats.ErrorHandler(onError))
	w, err := worker.New(nc, worker.Config{
		Accounts: []worker.Account{
			{AppID: stable.AppID, Secret: secret, Tickets: []messages.Kind{messages.JSAPITicket}},
		},
		WeChat: wechat.Config{URLs: []string{sim.URL}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	defer stop()
	published := make(chan *nats.Msg, 10)
	admin := s.Connect(nats.UserInfo("admin", "p"))
	if _, err := admin.ChanSubscribe("wechat.published.wx-stable.*", published); err != nil {
		t.Fatal(err)
	}
	await(t, w.Ready(), violations)
	await(t, published, violations)
	await(t, published, violations)

	cfg := configOf(s.URL(), sim.URL, stable)
	cfg.NATS.User, cfg.NATS.Password = "whole", "p"
	found := runAll(t, cfg)
	wantNoTrouble(t, found)
	wantFinding(t, found, Workers, OK, "$SRV.PING.wechat", "a worker does not need to")
	cfg.NATS.User = "admin"
	wantFinding(t, runAll(t, cfg), Workers, OK, "1 worker on wechat.>: ")
	stop()
	if err := await(t, ended, violations); err != nil {
		t.Error(err)
	}
	if len(violations) > 0 {
		t.Errorf("no trial of something that a worker needs: %s", <-violations)
	}

	t.Run("each", func(t *testing.T) {
		for i, p := range list {
			t.Run(p.grant, func(t *testing.T) {
				t.Parallel()
				cfg := configOf(s.URL(), "")
				cfg.NATS.User, cfg.NATS.Password = userName(i), "p"
				found := runAll(t, cfg)
				verb, level, advice := "publish to ", Fail, "wxkeeper permissions worker"
				if p.Subscribe {
					verb = "subscribe to "
				}
				if p.optional {
					level = Warn
				}
				if p.grant == "_INBOX.>" {
					advice = "set NATS_INBOX_PREFIX=_INBOX_<user>"
				}
				wantFinding(t, found, Permissions, level, "may not "+verb+p.grant+",", advice)
				if n := findingsOf(found, Permissions); n != 1 {
					t.Errorf("%d findings for one permission: %s", n, describe(found))
				}
				wantNoTrouble(t, found, Permissions, Buckets) // without some permissions the buckets cannot be checked
			})
		}
	})
}

// findingsOf counts the findings of a check.
func findingsOf(found []Finding, check string) int {
	n := 0
	for _, f := range found {
		if f.Check == check {
			n++
		}
	}
	return n
}

// await waits for something that a worker does, and fails if the worker lacks a permission for it.
func await[T any](t *testing.T, happens <-chan T, violations <-chan string) (v T) {
	t.Helper()
	select {
	case v = <-happens:
	case violation := <-violations:
		t.Fatalf("no trial of something that a worker needs: %s", violation)
	case <-time.After(patience):
		t.Fatal("a worker with the permissions of all trials does not work")
	}
	return v
}

func userName(i int) string { return "without-" + string(rune('A'+i/26)) + string(rune('a'+i%26)) }

// The user of a consumer lacks almost every permission. The check finds each, and waits for no answer that
// cannot come.
func TestUserOfAConsumerLacksThePermissionsOfAWorker(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "app", Password: "p", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"wechat.code.resolve.wx1"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}}}
	})
	cfg := configOf(s.URL(), "")
	cfg.NATS.User, cfg.NATS.Password = "app", "p"
	found := runAll(t, cfg)
	want := len(neededTrials(t)) - 1 // the user may subscribe to its inboxes
	if n := findingsOf(found, Permissions); n != want {
		t.Errorf("%d findings, want %d: %s", n, want, describe(found))
	}
	wantFinding(t, found, Buckets, Warn, "not checked")
}
