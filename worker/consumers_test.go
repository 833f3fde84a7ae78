package worker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// streams are the streams of both buckets.
var streams = []string{"KV_wechat", "KV_wechat_ledger"}

// occupyConsumers makes consumers of both buckets until the server refuses another one.
func (f *fixture) occupyConsumers() {
	f.Helper()
	js, ctx := f.jetstream(), f.context()
	for _, stream := range streams {
		for refused := false; !refused; {
			_, err := js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
				AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true,
			})
			_, refused = errors.AsType[*jetstream.APIError](err)
			if err != nil && !refused {
				f.Fatal(err)
			}
		}
	}
}

// removeConsumers removes the consumers of both buckets, again and again until ctx ends.
func (f *fixture) removeConsumers(ctx context.Context) {
	js := f.jetstream()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, stream := range streams {
			st, err := js.Stream(ctx, stream)
			if err != nil {
				continue
			}
			for name := range st.ConsumerNames(ctx).Name() {
				_ = js.DeleteConsumer(ctx, stream, name)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// A user that may create consumers needs less than a second to make as many as a stream may have. And a user that
// knows the name of a consumer can remove it. Workers start, refresh, and see what another worker has published.
func TestWorkersNeedNoConsumer(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before, after func(*fixture) // the start of the workers
	}{
		"the limit is reached before the start": {(*fixture).occupyConsumers, nil},
		"the limit is reached later, and the consumers are removed": {nil, func(f *fixture) {
			js := f.jetstream()
			for _, stream := range streams {
				st, err := js.Stream(f.context(), stream)
				if err != nil {
					f.Fatal(err)
				}
				for name := range st.ConsumerNames(f.context()).Name() {
					_ = js.DeleteConsumer(f.context(), stream, name)
				}
			}
			f.occupyConsumers()
		}},
		"the consumers are removed again and again": {func(f *fixture) {
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { defer close(done); f.removeConsumers(ctx) }()
			f.Cleanup(func() { cancel(); <-done })
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, wechattest.Config{})
			f.nats = natstest.Start(t, func(o *server.Options) { o.JetStreamLimits.DefaultMaxConsumers = 8 })
			f.storeOf("earlier") // creates the buckets
			if tt.before != nil {
				tt.before(f)
			}
			classic := func(c *Config) { c.Accounts[0].TokenAPI = messages.SourceToken }
			workers := []*testWorker{f.worker(classic), f.worker(classic)}
			for _, w := range workers {
				w.await(messages.AccessToken, 0)
			}
			if tt.after != nil {
				tt.after(f)
			}
			f.killToken()
			first, err := workers[0].stored(messages.AccessToken)
			if err != nil {
				t.Fatal(err)
			}
			workers[0].mustReport(messages.RefreshCredentialRequest{Revision: first.Revision}, messages.ReasonRefreshed)
			for _, w := range workers {
				c := w.await(messages.AccessToken, 1)
				f.checkValid(c)
				f.eventually("the worker knows the ledger entry of the refresh", func() bool {
					return w.memory.ledger(messages.Key(appid, messages.AccessToken)).Generation == c.Generation
				})
			}
			if _, err := workers[1].resolve(); err != nil {
				t.Error(err)
			}
			f.checkCalls(messages.SourceToken, 2)
		})
	}
}
