//go:build interop

package interop

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/internal/permissions"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// house is where a program is tried: a real NATS server and a simulated WeChat. Its test plays a second worker.
type house struct {
	*testing.T
	nats   *natstest.Server
	wechat *wechattest.Server
	nc     *nats.Conn
	js     jetstream.JetStream
	store  *store.Store
	values []string // all tokens that were in the bucket
}

func newHouse(t *testing.T) *house {
	t.Helper()
	return newHouseOf(t, messages.DefaultPrefix)
}

// newHouseOf is a house whose workers have another prefix.
func newHouseOf(t *testing.T, prefix string) *house {
	t.Helper()
	user, err := permissions.User(permissions.Request{
		Prefix: prefix, Bucket: messages.DefaultBucket, Roles: []permissions.Role{permissions.Direct, permissions.Resolver},
		AppIDs: []string{appid, barred, stranger}, User: service,
	})
	if err != nil {
		t.Fatal(err)
	}
	users := fmt.Sprintf("SHOP_PASSWORD: %s\n%sauthorization: { users: [$user_shop, { user: %s, password: %s }] }\n", passphrase, user, admin, passphrase)
	h := &house{T: t, wechat: wechattest.Start(t, wechattest.Config{Accounts: []wechattest.Account{{AppID: appid, Secret: secret}}, ForceGap: -1})}
	h.nats = natstest.Start(t, func(o *server.Options) {
		if err := o.ProcessConfigString(users); err != nil {
			t.Fatal(err)
		}
	})
	h.nc = h.nats.Connect(nats.UserInfo(admin, passphrase))
	if h.js, err = jetstream.New(h.nc); err != nil {
		t.Fatal(err)
	}
	if h.store, err = store.New(h.nc, store.Config{Worker: "second"}); err != nil {
		t.Fatal(err)
	}
	return h
}

// worker runs a worker to the end of the test.
func (h *house) worker() {
	h.Helper()
	w, err := worker.New(h.nc, worker.Config{
		Name: "first", Accounts: []worker.Account{{AppID: appid, Secret: secret}, {AppID: barred, Secret: secret}},
		WeChat: wechat.Config{URLs: []string{h.wechat.URL}, Timeout: 2 * time.Second}, ResolveTimeout: time.Second,
	})
	if err != nil {
		h.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	h.eventually(h.store.Ensure)
	h.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			h.Errorf("the worker ends with %v", err)
		}
	})
}

func (h *house) args(more ...string) []string {
	return append([]string{"--nats", h.nats.URL(), "--api", h.wechat.URL, "--patience", longest}, more...)
}

// eventually tries until it succeeds: where a server or a worker needs its time.
func (h *house) eventually(try func(context.Context) error) {
	h.Helper()
	ctx := testContext(h.T)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for err, last := try(ctx), error(nil); err != nil; err = try(ctx) {
		select {
		case <-tick.C:
			last = err
		case <-ctx.Done():
			h.Fatal(errors.Join(last, err))
		}
	}
}

// has waits until the bucket has a generation, and remembers its value as one that must not be shown.
func (h *house) has(generation uint64) {
	h.Helper()
	h.eventually(func(ctx context.Context) error {
		c, err := h.store.Get(ctx, appid, messages.AccessToken)
		if err != nil {
			return err
		}
		if c.Generation != generation {
			return fmt.Errorf("the bucket has generation %d instead of %d", c.Generation, generation)
		}
		h.values = append(h.values, c.Value)
		return nil
	})
}

// knows waits until the worker has heard of a generation that it did not publish itself.
func (h *house) knows(generation uint64) {
	h.Helper()
	h.eventually(func(ctx context.Context) error {
		c, err := messages.NewClient(h.nc, "").GetCredential(ctx, messages.GetCredentialRequest{AppID: appid})
		if err == nil && c.Generation != generation {
			err = fmt.Errorf("the worker has generation %d instead of %d", c.Generation, generation)
		}
		return err
	})
}

// publishes publishes a new token, as another worker does.
func (h *house) publishes(generation uint64) {
	h.Helper()
	token, err := h.wechat.ForeignRefresh(appid, "stable_token")
	if err != nil {
		h.Fatal(err)
	}
	h.eventually(func(ctx context.Context) error {
		lease, err := h.store.Acquire(ctx, appid, messages.AccessToken, 5*time.Second)
		if err != nil {
			return err
		}
		defer lease.Release(ctx)
		now := time.Now().UTC().Truncate(time.Millisecond)
		_, err = lease.Publish(ctx, messages.Credential{
			AppID: appid, Kind: messages.AccessToken, Value: token, ObtainedAt: now, ExpiresAt: now.Add(time.Hour), RefreshAt: now.Add(50 * time.Minute),
			Generation: generation, Source: messages.SourceStableToken, Worker: "second",
		})
		return err
	})
	h.has(generation)
}
