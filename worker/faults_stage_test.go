package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// faultStage is a stage with three NATS servers, two workers in health, and a consumer that writes down all it sees.
type faultStage struct {
	*stage
	ahead     atomic.Int64 // of WeChat's clock
	bucket    jetstream.KeyValue
	transport *http.Transport
	seen      *consumer

	mu       sync.Mutex // one SetAccounts at a time
	fleet    []*actor
	accounts []Account
}

const (
	// shortLease is for a worker whose lease must end by itself: with time enough for what it does on a busy machine.
	shortLease = 5 * time.Second
	// usualLease is that of workers.
	usualLease = 12 * time.Second
	// longLease is for one whose lease the test ends.
	longLease = patience
	// seedLeft is what the first tokens have left of their life: so little that stable_token gives a new one.
	seedLeft = 150 * time.Second
)

func newFaultStage(t *testing.T, lease time.Duration) *faultStage {
	t.Helper()
	f := &faultStage{accounts: []Account{{AppID: "wx-fleet", Secret: secret}}, transport: http.DefaultTransport.(*http.Transport).Clone()}
	t.Cleanup(f.transport.CloseIdleConnections)
	f.stage = &stage{TB: t, cluster: natstest.StartCluster(t), lease: lease, wechat: wechattest.Start(t, wechattest.Config{
		Accounts: []wechattest.Account{{AppID: "wx-fleet", Secret: secret}},
		Now:      func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) },
	})}
	for _, name := range []string{"other-1", "other-2"} {
		f.fleet = append(f.fleet, f.worker(func(c *Config) {
			c.Name, c.Accounts, c.WeChat.Timeout, c.WeChat.Transport = name, f.accounts, 5*time.Second, f.transport
		}))
	}
	js, err := jetstreamOf(f.connect())
	if err == nil {
		f.bucket, err = js.KeyValue(f.context(), "wechat")
	}
	if err != nil {
		t.Fatal(err)
	}
	f.seen = f.consume()
	return f
}

// account makes an account with a token that is due, as an earlier worker left it. Where a ticket is the matter, its
// token is not due. age must follow.
func (f *faultStage) account(id, api string, kind messages.Kind) Account {
	f.Helper()
	a := Account{AppID: id, Secret: secret, TokenAPI: api}
	f.wechat.AddAccount(wechattest.Account{AppID: id, Secret: secret})
	token, err := f.wechat.ForeignRefresh(id, api)
	if err != nil {
		f.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	c := messages.Credential{
		AppID: id, Kind: messages.AccessToken, Value: token, ObtainedAt: now, ExpiresAt: now.Add(seedLeft), RefreshAt: now,
		Generation: 1, Source: api, Worker: "earlier",
	}
	if kind != messages.AccessToken {
		a.Tickets, c.RefreshAt = []messages.Kind{kind}, c.ExpiresAt
	}
	data, err := json.Marshal(c)
	if err == nil {
		_, err = f.bucket.Put(f.context(), messages.Key(id, messages.AccessToken), data)
	}
	if err == nil {
		_, err = f.seen.Wait(f.context(), id, messages.AccessToken)
	}
	if err != nil {
		f.Fatal(err)
	}
	return a
}

// age makes the tokens that were issued so far as old as their records say.
func (f *faultStage) age() { f.ahead.Add(int64(7200*time.Second - seedLeft)) }

// join makes the fleet keep an account too.
func (f *faultStage) join(a Account) {
	f.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.accounts = append(f.accounts, a)
	for _, w := range f.fleet {
		if err := w.SetAccounts(slices.Clone(f.accounts)); err != nil {
			f.Fatal(err)
		}
	}
}

// endLease ends a lease at the server, as its TTL would.
func (f *faultStage) endLease(key string) {
	f.Helper()
	if err := f.bucket.Purge(f.context(), "lease."+key); err != nil {
		f.Fatal(err)
	}
}

// isQuiet says whether the worker has nothing to do for a credential, for long.
func (w *Worker) isQuiet(key string) bool {
	s := w.scheduler
	s.mu.Lock()
	defer s.mu.Unlock()
	it := s.items[key]
	return it != nil && !it.running && it.next.action == wait && it.next.at.After(s.now().Add(time.Minute))
}

// consumer is a reader on a connection of its own, and what it saw.
type consumer struct {
	*kv.Reader
	mu     sync.Mutex
	sights map[string][]sight // by kv.Key
	leases map[string]lease   // by kv.Key
}

// lease is what became of the last lease of a credential.
type lease uint8

const (
	never lease = iota
	taken
	ended
)

// sight is one record as it came, what the reader handed out then, and what WeChat said of it and of the one before.
type sight struct {
	messages.Credential
	held            uint64 // generation
	verdict, former wechattest.Verdict
}

func (f *faultStage) consume() *consumer {
	f.Helper()
	c := &consumer{sights: make(map[string][]sight), leases: make(map[string]lease)}
	nc := f.connect()
	var err error
	c.Reader, err = kv.NewReader(nc, kv.ReaderConfig{OnChange: func(ch kv.Change) {
		if ch.Record == nil {
			return
		}
		judge := func(r messages.Credential) wechattest.Verdict {
			return f.wechat.Judge(ch.AppID, string(ch.Kind), r.Value)
		}
		key := messages.Key(ch.AppID, ch.Kind)
		s := sight{Credential: *ch.Record, held: c.Held(ch.AppID, ch.Kind).Generation, verdict: judge(*ch.Record)}
		c.mu.Lock()
		defer c.mu.Unlock()
		if before := c.sights[key]; len(before) > 0 {
			s.former = judge(before[len(before)-1].Credential)
		}
		c.sights[key] = append(c.sights[key], s)
	}})
	if err != nil {
		f.Fatal(err)
	}
	leases, err := f.bucket.Watch(context.Background(), "lease.*.*")
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	running.Go(func() {
		for e := range leases.Updates() {
			if e == nil {
				continue // the snapshot is complete
			}
			l := ended
			if e.Operation() == jetstream.KeyValuePut {
				l = taken
			}
			c.mu.Lock()
			c.leases[strings.TrimPrefix(e.Key(), "lease.")] = l
			c.mu.Unlock()
		}
	})
	f.Cleanup(func() {
		cancel()
		_ = leases.Stop()
		running.Wait()
	})
	select {
	case <-c.Ready():
	case <-time.After(patience):
		f.Fatal("the consumer has no snapshot")
	}
	return c
}

// saw are the records of a credential in their order.
func (c *consumer) saw(key string) []sight {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.sights[key])
}

// lease is that of a credential, as the server has it.
func (c *consumer) lease(key string) lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leases[key]
}

func (s sight) String() string {
	return fmt.Sprintf("generation %d of %s, %s", s.Generation, s.Worker, s.verdict)
}
