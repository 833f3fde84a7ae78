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
	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// fixture is a real NATS server and a simulated WeChat. The test itself acts as a second worker.
type fixture struct {
	*testing.T
	nats   *natstest.Server
	wechat *wechattest.Server
	nc     *nats.Conn
	js     jetstream.JetStream
	store  *store.Store
	values []string // every token that was in the bucket
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return newFixtureWithPrefix(t, messages.DefaultPrefix)
}

// newFixtureWithPrefix returns a fixture whose workers have another subject prefix.
func newFixtureWithPrefix(t *testing.T, prefix string) *fixture {
	t.Helper()
	user, err := permissions.User(permissions.Request{
		Prefix: prefix, Bucket: messages.DefaultBucket,
		Roles:  []permissions.Role{permissions.Direct, permissions.Resolver},
		AppIDs: []string{appid, refusedAppID, unknownAppID}, User: service,
	})
	if err != nil {
		t.Fatal(err)
	}
	users := fmt.Sprintf("SHOP_PASSWORD: %s\n%sauthorization: { users: [$user_shop, { user: %s, password: %s }] }\n",
		passphrase, user, admin, passphrase)
	f := &fixture{T: t, wechat: wechattest.Start(t, wechattest.Config{
		Accounts: []wechattest.Account{{AppID: appid, Secret: secret}}, ForceGap: -1,
	})}
	f.nats = natstest.Start(t, func(o *server.Options) {
		if err := o.ProcessConfigString(users); err != nil {
			t.Fatal(err)
		}
	})
	f.nc = f.nats.Connect(nats.UserInfo(admin, passphrase))
	if f.js, err = jetstream.New(f.nc); err != nil {
		t.Fatal(err)
	}
	if f.store, err = store.New(f.nc, store.Config{Worker: "second", Keys: func(appid string) []seal.Key {
		return []seal.Key{seal.New(appid, secret)}
	}}); err != nil {
		t.Fatal(err)
	}
	return f
}

// startWorker starts a worker, which stops at the end of the test.
func (f *fixture) startWorker() {
	f.Helper()
	w, err := worker.New(f.nc, worker.Config{
		Name:           "first",
		Accounts:       []worker.Account{{AppID: appid, Secret: secret}, {AppID: refusedAppID, Secret: secret}},
		WeChat:         wechat.Config{URLs: []string{f.wechat.URL}, Timeout: 2 * time.Second},
		ResolveTimeout: time.Second,
	})
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	f.eventually(f.store.Ensure)
	f.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			f.Errorf("Run of the worker returns %v", err)
		}
	})
}

func (f *fixture) args(more ...string) []string {
	return append([]string{"--nats", f.nats.URL(), "--api", f.wechat.URL, "--patience", patience}, more...)
}

// eventually calls try until it returns no error: a server or a worker may need time.
func (f *fixture) eventually(try func(context.Context) error) {
	f.Helper()
	ctx := testContext(f.T)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for err, last := try(ctx), error(nil); err != nil; err = try(ctx) {
		select {
		case <-tick.C:
			last = err
		case <-ctx.Done():
			f.Fatal(errors.Join(last, err))
		}
	}
}

// awaitBucket waits until the bucket has a generation, and adds its value to f.values, which no output may show.
func (f *fixture) awaitBucket(generation uint64) {
	f.Helper()
	f.eventually(func(ctx context.Context) error {
		c, err := f.store.Get(ctx, appid, messages.AccessToken)
		if err != nil {
			return err
		}
		if c.Generation != generation {
			return fmt.Errorf("the bucket has generation %d instead of %d", c.Generation, generation)
		}
		f.values = append(f.values, c.Value)
		return nil
	})
}

// awaitWorker waits until the worker has received a generation that the test has published.
func (f *fixture) awaitWorker(generation uint64) {
	f.Helper()
	f.eventually(func(ctx context.Context) error {
		request := messages.GetCredentialRequest{AppID: appid}
		c, err := messages.NewClient(f.nc, "").GetCredential(ctx, request)
		if err == nil && c.Generation != generation {
			err = fmt.Errorf("the worker has generation %d instead of %d", c.Generation, generation)
		}
		return err
	})
}

// publish publishes a new token behind a lease, as another worker does.
func (f *fixture) publish(generation uint64) {
	f.Helper()
	token, err := f.wechat.ForeignRefresh(appid, "stable_token")
	if err != nil {
		f.Fatal(err)
	}
	f.eventually(func(ctx context.Context) error {
		lease, err := f.store.Acquire(ctx, appid, messages.AccessToken, 5*time.Second)
		if err != nil {
			return err
		}
		defer lease.Release(ctx)
		now := time.Now().UTC().Truncate(time.Millisecond)
		_, err = lease.Publish(ctx, messages.Credential{
			AppID: appid, Kind: messages.AccessToken, Value: token,
			ObtainedAt: now, ExpiresAt: now.Add(time.Hour), RefreshAt: now.Add(50 * time.Minute),
			Generation: generation, Source: messages.SourceStableToken, Worker: "second",
		})
		return err
	})
	f.awaitBucket(generation)
}

// recreateBucket deletes the bucket, if it exists, and creates it. Its revisions begin at 1 again.
func (f *fixture) recreateBucket() {
	f.Helper()
	err := f.js.DeleteKeyValue(testContext(f.T), messages.DefaultBucket)
	if err != nil && !errors.Is(err, jetstream.ErrBucketNotFound) {
		f.Fatal(err)
	}
	f.eventually(f.store.Ensure)
}
