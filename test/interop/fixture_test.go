//go:build interop

package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
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
	users := fmt.Sprintf(`authorization: { users: [
		{ user: %s, password: %s, permissions: { publish: { allow: %s }, subscribe: { allow: %s } } }
		{ user: %s, password: %s }
	] }`, service, passphrase, quoted(publish(prefix)), quoted(subscribe(prefix)), admin, passphrase)
	f := &fixture{T: t, wechat: wechattest.Start(t, wechattest.Config{
		Accounts: []wechattest.Account{{AppID: appid, Secret: secret}}, ForceGap: -1,
	})}
	f.nats = natstest.Start(t, func(o *server.Options) {
		if err := o.ProcessConfigString(users); err != nil {
			t.Fatal(err)
		}
	})
	f.nc = f.nats.Connect(nats.UserInfo(admin, passphrase))
	var err error
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

// accounts are the accounts that the programs may use.
var accounts = []string{appid, refusedAppID, unknownAppID}

// publish are the subjects to which the programs may publish: a service needs no right to ask JetStream.
func publish(prefix string) (subjects []string) {
	for _, id := range accounts {
		for _, request := range []string{
			messages.SubjectCodeResolve, messages.SubjectCredentialGet, messages.SubjectCredentialRefresh,
		} {
			subjects = append(subjects, prefix+"."+request+"."+id)
		}
	}
	return subjects
}

// subscribe are the subjects to which the programs may subscribe.
func subscribe(prefix string) []string {
	subjects := []string{permissions.Inbox(service) + ".>"}
	for _, id := range accounts {
		subjects = append(subjects, messages.PublishedSubject(prefix, id, "*"))
	}
	return subjects
}

func quoted(subjects []string) string { return `["` + strings.Join(subjects, `", "`) + `"]` }

// answerFromBucket answers requests for credentials as a worker does, but with whatever the bucket has.
func (f *fixture) answerFromBucket() {
	f.Helper()
	prefix := messages.DefaultPrefix + "." + messages.SubjectCredentialGet + "."
	f.answer(prefix+"*", func(m *nats.Msg) any {
		key := messages.Key(strings.TrimPrefix(m.Subject, prefix), messages.AccessToken)
		stream, err := f.js.Stream(testContext(f.T), "KV_"+messages.DefaultBucket)
		if err != nil {
			return messages.Errorf(messages.Overloaded, "no bucket")
		}
		stored, err := stream.GetLastMsgForSubject(testContext(f.T), "$KV."+messages.DefaultBucket+"."+key)
		if err != nil {
			return messages.Errorf(messages.NoCredential, "no record")
		}
		var c messages.Credential
		if err := json.Unmarshal(stored.Data, &c); err != nil {
			return messages.Errorf(messages.NoCredential, "not a record")
		}
		c.Revision = stored.Sequence
		return c
	})
}

// answer answers requests with JSON, or with an error.
func (f *fixture) answer(subject string, reply func(*nats.Msg) any) {
	f.Helper()
	_, err := f.nc.Subscribe(subject, func(m *nats.Msg) {
		body := reply(m)
		answer := nats.NewMsg(m.Reply)
		answer.Header.Set(messages.HeaderReply, messages.ReplyVersion)
		if refusal, ok := body.(*messages.Error); ok {
			answer.Header = refusal.Header()
		}
		answer.Data, _ = json.Marshal(body)
		_ = f.nc.PublishMsg(answer)
	})
	if err == nil {
		err = f.nc.Flush()
	}
	if err != nil {
		f.Fatal(err)
	}
}

// startWorker starts a worker, and returns a function that stops it. The end of the test does, too.
func (f *fixture) startWorker() (stop func()) {
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
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			f.Errorf("Run of the worker returns %v", err)
		}
	})
	f.Cleanup(stop)
	return stop
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
