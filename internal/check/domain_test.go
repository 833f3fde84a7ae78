package check

import (
	"context"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/internal/permissions"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// domains are two servers with a JetStream domain each. Both have the user worker, with the list of a worker for the
// domain hub, and the user admin.
func domains(t *testing.T) (hub, leaf *natstest.Server) {
	t.Helper()
	list, err := permissions.User(permissions.Request{Prefix: "wechat", Bucket: "wechat", Domain: "hub",
		Roles: []permissions.Role{permissions.Worker}})
	if err != nil {
		t.Fatal(err)
	}
	return natstest.StartDomains(t, func(o *server.Options) {
		conf := list + "\nauthorization: { users: [$user_worker, { user: admin, password: p }] }\n"
		if err := o.ProcessConfigString(conf); err != nil {
			t.Fatal(err)
		}
	})
}

// The list of a worker for a domain is right at a server of the domain and at one outside of it.
func TestWorkerAndCheckWorkInAJetStreamDomainWithTheListOfPermissions(t *testing.T) {
	t.Setenv("WORKER_PASSWORD", "p") // of the list
	hub, leaf := domains(t)
	sim := startWeChat(t)
	for name, s := range map[string]*natstest.Server{"hub": hub, "leaf": leaf} {
		cfg := configOf(s.URL(), sim.URL, stable)
		cfg.NATS.User, cfg.NATS.Password, cfg.NATS.InboxPrefix, cfg.JSDomain = "worker", "p", "_INBOX_worker", "hub"
		violations := make(chan string, 100)
		nc, err := natsconn.Connect(t.Context(), cfg.NATS, nats.ErrorHandler(
			func(_ *nats.Conn, _ *nats.Subscription, err error) { violations <- err.Error() }))
		if err != nil {
			t.Fatal(err)
		}
		w, err := worker.New(nc.Conn, worker.Config{
			Accounts: []worker.Account{stable}, JSDomain: "hub", WeChat: wechat.Config{URLs: []string{sim.URL}},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		await(t, w.Ready(), violations)
		found := runAll(t, cfg)
		wantNoTrouble(t, found)
		wantFinding(t, found, Buckets, OK, "bucket wechat has the settings that workers need")
		stop()
		if err := await(t, ended, violations); err != nil {
			t.Error(err)
		}
		nc.Close()
		if len(violations) > 0 {
			t.Errorf("%s: %s", name, <-violations)
		}

		cfg.JSDomain = "nowhere"
		cfg.NATS.User, cfg.NATS.InboxPrefix = "admin", ""
		wantFinding(t, runAll(t, cfg), NATS, Fail, "no JetStream answers in the domain nowhere", "Correct WXKEEPER_JS_DOMAIN")
	}
	cfg := configOf(leaf.URL(), "")
	cfg.NATS.User, cfg.NATS.Password, cfg.NATS.InboxPrefix, cfg.JSDomain = "worker", "p", "_INBOX_worker", "other"
	wantFinding(t, runAll(t, cfg), Permissions, Fail, "may not publish to $JS.other.API.STREAM.INFO.KV_wechat")
}
