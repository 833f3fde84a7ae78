package worker

import (
	"context"
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

// faultFixture is a fixture with three NATS servers, two workers without faults, and a consumer that notes
// everything that it receives.
type faultFixture struct {
	*fixture
	ahead     atomic.Int64 // of WeChat's clock
	creds     jetstream.KeyValue
	transport *http.Transport
	seen      *consumer

	mu       sync.Mutex // one SetAccounts at a time
	fleet    []*testWorker
	accounts []Account
}

const (
	// faultOverlap is for how long WeChat accepts an old token and already issues a new one.
	faultOverlap = time.Hour
	// seedLeft is what the first tokens have left of their life: so little that stable_token issues a new
	// token, and enough for the whole test on a busy machine.
	seedLeft = 40 * time.Minute
	// faultTokenLife is the life of WeChat's tokens.
	faultTokenLife = 2 * time.Hour
)

func newFaultFixture(t *testing.T) *faultFixture {
	t.Helper()
	first := Account{AppID: "wx-fleet", Secret: secret}
	f := &faultFixture{accounts: []Account{first}, transport: http.DefaultTransport.(*http.Transport).Clone()}
	t.Cleanup(f.transport.CloseIdleConnections)
	f.fixture = newClusterFixture(t, wechattest.Config{
		Accounts:  []wechattest.Account{{AppID: first.AppID, Secret: secret}},
		Now:       func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) },
		TokenLife: faultTokenLife, Overlap: faultOverlap,
	})
	f.hurried, f.lease = true, shortLease
	for _, name := range []string{"other-1", "other-2"} {
		f.fleet = append(f.fleet, f.worker(func(c *Config) {
			c.Name, c.Accounts, c.WeChat.Transport = name, f.accounts, f.transport
		}))
	}
	f.creds = f.bucket("wechat")
	f.seen = f.consume()
	return f
}

// fixtureFor is the same fixture for a subtest, whose workers connect through a gate.
func (f *faultFixture) fixtureFor(t *testing.T, g *natstest.Gate) *fixture {
	t.Helper()
	return &fixture{TB: t, cluster: f.cluster, wechat: f.wechat, clock: f.clock, gate: g, hurried: true, lease: f.lease}
}

// account makes an account whose credential of this kind is due, and publishes its token as an earlier worker
// did. The token itself is due only if kind is access_token. Call age when all accounts are made.
func (f *faultFixture) account(id, api string, kind messages.Kind) Account {
	f.Helper()
	a := Account{AppID: id, Secret: secret, TokenAPI: api}
	f.wechat.AddAccount(wechattest.Account{AppID: id, Secret: secret})
	token, err := f.wechat.ForeignRefresh(id, api)
	if err != nil {
		f.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	c := messages.Credential{
		AppID: id, Kind: messages.AccessToken, Value: token,
		ObtainedAt: now, ExpiresAt: now.Add(seedLeft), RefreshAt: now,
		Generation: 1, Source: api, Worker: "earlier",
	}
	if kind != messages.AccessToken {
		a.Tickets, c.RefreshAt = []messages.Kind{kind}, c.ExpiresAt
	}
	_, err = f.creds.Put(f.context(), messages.Key(id, messages.AccessToken), sealed(f, c))
	if err == nil {
		_, err = f.seen.Wait(f.context(), id, messages.AccessToken)
	}
	if err != nil {
		f.Fatal(err)
	}
	return a
}

// age makes the tokens that were issued until now as old as their records say.
func (f *faultFixture) age() { f.ahead.Add(int64(faultTokenLife - seedLeft)) }

// addAccount makes the fleet keep one more account.
func (f *faultFixture) addAccount(a Account) {
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

// consumer is a Reader on a connection of its own, and what it received.
type consumer struct {
	*kv.Reader
	mu       sync.Mutex
	received map[string][]received // by messages.Key
	leases   map[string]leaseState // by messages.Key
}

// leaseState is the state of the last lease of a credential.
type leaseState uint8

const (
	leaseNever leaseState = iota // there has been none
	leaseIsTaken
	leaseEnded
)

// received is one record as it arrived, the generation that the Reader returned then, and what WeChat said of
// the record and of the one before it.
type received struct {
	messages.Credential
	held             uint64
	validity, former validity
}

func (r received) String() string {
	return fmt.Sprintf("generation %d of %s, %s", r.Generation, r.Worker, r.validity)
}

func (f *faultFixture) consume() *consumer {
	f.Helper()
	c := &consumer{received: make(map[string][]received), leases: make(map[string]leaseState)}
	var err error
	c.Reader, err = kv.NewReader(f.connect(), kv.ReaderConfig{OnChange: func(ch kv.Change) {
		if ch.Record == nil {
			return
		}
		r := received{Credential: *ch.Record, validity: f.validity(ch.AppID, ch.Kind, ch.Record.Value)}
		if held, err := c.Get(ch.AppID, ch.Kind); err == nil {
			r.held = held.Generation
		}
		key := messages.Key(ch.AppID, ch.Kind)
		c.mu.Lock()
		defer c.mu.Unlock()
		if before := c.received[key]; len(before) > 0 {
			r.former = f.validity(ch.AppID, ch.Kind, before[len(before)-1].Value)
		}
		c.received[key] = append(c.received[key], r)
	}})
	if err != nil {
		f.Fatal(err)
	}
	leases, err := f.creds.Watch(context.Background(), "lease.*.*")
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
			state := leaseEnded
			if e.Operation() == jetstream.KeyValuePut {
				state = leaseIsTaken
			}
			c.mu.Lock()
			c.leases[strings.TrimPrefix(e.Key(), "lease.")] = state
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

// records are the records of a credential, in the order in which they arrived.
func (c *consumer) records(key string) []received {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.received[key])
}

// lease is the state of the lease of a credential, as the server has it.
func (c *consumer) lease(key string) leaseState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leases[key]
}
