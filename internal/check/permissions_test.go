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

// needed are the permissions that the probes stand for.
func needed(t *testing.T) []probe {
	t.Helper()
	r := &run{nc: &natsconn.Conn{Conn: natstest.Start(t).Connect()}}
	r.setDefaults()
	return slices.DeleteFunc(r.probes(), func(p probe) bool { return p.use == r.ping() })
}

// granted is a user with the permissions of list but one, and with what cannot be tried.
func granted(name string, list []probe, but use) *server.User {
	p := &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{"wechat.event.>", "_INBOX.>"}},
		Subscribe: &server.SubjectPermission{Allow: []string{"none"}},
	}
	for _, g := range list {
		switch {
		case g.use == but:
		case g.subscribe:
			p.Subscribe.Allow = append(p.Subscribe.Allow, g.grant)
		default:
			p.Publish.Allow = append(p.Publish.Allow, g.grant)
		}
	}
	return &server.User{Username: name, Password: "p", Permissions: p}
}

// The list of probes is what a worker needs: no more, no less than the whole life of one under it shows, from the first
// bucket on; and of each permission that is missing the check says exactly which.
func TestEachMissingPermissionIsNamed(t *testing.T) {
	t.Parallel()
	list := needed(t)
	users := []*server.User{granted("whole", list, use{}), {Username: "admin", Password: "p"}}
	for i, p := range list {
		users = append(users, granted(userOf(i), list, p.use))
	}
	s := natstest.Start(t, func(o *server.Options) { o.Users = users })
	sim := upstream(t)

	violations := make(chan string, 100)
	nc := s.Connect(nats.UserInfo("whole", "p"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { violations <- err.Error() }))
	w, err := worker.New(nc, worker.Config{
		Accounts: []worker.Account{{AppID: stable.AppID, Secret: secret, Tickets: []messages.Kind{messages.JSAPITicket}}}, WeChat: wechat.Config{URLs: []string{sim.URL}},
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

	cfg := of(s.URL(), sim.URL, stable)
	cfg.NATS.User, cfg.NATS.Password = "whole", "p"
	found := ran(t, cfg)
	wantsNothing(t, found)
	wants(t, found, Workers, OK, "$SRV.PING.wechat", "need not")
	cfg.NATS.User = "admin"
	wants(t, ran(t, cfg), Workers, OK, "1 worker on wechat.>: ")
	stop()
	if err := await(t, ended, violations); err != nil {
		t.Error(err)
	}
	if len(violations) > 0 {
		t.Errorf("the list of probes lacks what a worker needs: %s", <-violations)
	}

	t.Run("each", func(t *testing.T) {
		for i, p := range list {
			t.Run(p.grant, func(t *testing.T) {
				t.Parallel()
				cfg := of(s.URL(), "")
				cfg.NATS.User, cfg.NATS.Password = userOf(i), "p"
				found := ran(t, cfg)
				verb, level, advice := "publish to ", Fail, "wxkeeper permissions worker"
				if p.subscribe {
					verb = "subscribe to "
				}
				if p.optional {
					level = Warn
				}
				if p.grant == "_INBOX.>" {
					advice = "set NATS_INBOX_PREFIX=_INBOX_<user>"
				}
				wants(t, found, Permissions, level, "may not "+verb+p.grant+",", advice)
				if n := len(slices.DeleteFunc(slices.Clone(found), func(f Finding) bool { return f.Check != Permissions })); n != 1 {
					t.Errorf("%d findings for one permission: %s", n, lines(found))
				}
				wantsNothing(t, found, Permissions, Buckets) // which says that it could not be looked at
			})
		}
	})
}

// await waits for what a worker does, unless its permissions do not let it.
func await[T any](t *testing.T, happens <-chan T, violations <-chan string) (v T) {
	t.Helper()
	select {
	case v = <-happens:
	case said := <-violations:
		t.Fatalf("the list of probes lacks what a worker needs: %s", said)
	case <-time.After(time.Minute):
		t.Fatal("a worker with the permissions of the probes does not work")
	}
	return v
}

func userOf(i int) string { return "without-" + string(rune('A'+i/26)) + string(rune('a'+i%26)) }

// A consumer's user has next to nothing: all that it lacks is told, and nothing is waited for in vain.
func TestUserOfAConsumerIsNoUserOfAWorker(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "app", Password: "p", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"wechat.code.resolve.wx1"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}}}
	})
	cfg := of(s.URL(), "")
	cfg.NATS.User, cfg.NATS.Password = "app", "p"
	found := ran(t, cfg)
	n := 0
	for _, f := range found {
		if f.Check == Permissions {
			n++
		}
	}
	if want := len(needed(t)) - 1; n != want { // all but the inboxes
		t.Errorf("%d findings, want %d: %s", n, want, lines(found))
	}
	wants(t, found, Buckets, Warn, "not checked")
}
