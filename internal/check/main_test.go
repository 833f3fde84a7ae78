package check

import (
	"context"
	"io"
	"log"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/store"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// patience limits waits for events that must come. It is for hangs only, not a claim about speed.
const patience = 2 * time.Minute

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret is the AppSecret of every account of these tests. No finding may show it, or a token.
const secret = "0123456789S3CRETabcdef0123456789"

var (
	stable  = worker.Account{AppID: "wx-stable", Secret: secret, TokenAPI: messages.SourceStableToken}
	classic = worker.Account{AppID: "wx-classic", Secret: secret, Name: "shop", TokenAPI: messages.SourceToken}
)

// startWeChat starts a simulated WeChat that knows both accounts.
func startWeChat(t *testing.T, changes ...func(*wechattest.Config)) *wechattest.Server {
	t.Helper()
	cfg := wechattest.Config{
		Accounts: []wechattest.Account{{AppID: stable.AppID, Secret: secret}, {AppID: classic.AppID, Secret: secret}},
		ForceGap: -1,
	}
	for _, change := range changes {
		change(&cfg)
	}
	return wechattest.Start(t, cfg)
}

// configOf is the configuration for a NATS server and a simulated WeChat.
func configOf(nats, wechatURL string, accounts ...worker.Account) Config {
	return Config{
		NATS: natsconn.Config{URL: nats},
		Config: worker.Config{
			Accounts: accounts, WeChat: wechat.Config{URLs: []string{wechatURL}, Timeout: 5 * time.Second},
		},
	}
}

// runAll runs all checks.
func runAll(t *testing.T, cfg Config) []Finding {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return withoutSecrets(t, Run(ctx, cfg))
}

// withoutSecrets checks that no finding shows a secret.
func withoutSecrets(t *testing.T, found []Finding) []Finding {
	t.Helper()
	for _, f := range found {
		if text := f.What + f.Advice; strings.Contains(text, "S3CRET") || strings.Contains(text, "97_") {
			t.Errorf("a finding shows a secret: %s", describe([]Finding{f}))
		}
	}
	return found
}

// wantFinding asserts that one finding of this check and level contains all texts, in What or in Advice.
func wantFinding(t *testing.T, found []Finding, check string, level Level, texts ...string) {
	t.Helper()
	for _, f := range found {
		if f.Check != check || f.Level != level {
			continue
		}
		all := true
		for _, text := range texts {
			all = all && strings.Contains(f.What+" | "+f.Advice, text)
		}
		if all {
			return
		}
	}
	t.Errorf("no finding %s %s with %q in %s", level, check, texts, describe(found))
}

// wantNoTrouble asserts that all findings are OK, except those of the named checks.
func wantNoTrouble(t *testing.T, found []Finding, but ...string) {
	t.Helper()
	for _, f := range found {
		if f.Level != OK && !slices.Contains(but, f.Check) {
			t.Errorf("%s %s: %s", f.Level, f.Check, f.What)
		}
	}
}

func describe(found []Finding) string {
	var b strings.Builder
	for _, f := range found {
		b.WriteString("\n" + string(f.Level) + " " + f.Check + ": " + f.What + " | " + f.Advice)
	}
	return b.String()
}

// createBuckets creates both buckets as a worker does.
func createBuckets(t *testing.T, nc *nats.Conn) *store.Store {
	t.Helper()
	s, err := store.New(nc, store.Config{Worker: "w1", Keys: func(appid string) []seal.Key {
		return []seal.Key{seal.New(appid, secret)}
	}})
	if err == nil {
		err = s.Ensure(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// publish fetches the token of an account and publishes it as a worker does. life is how long it lives from now
// on; 0 is the life that WeChat gives it.
func publish(
	t *testing.T, s *store.Store, sim *wechattest.Server, a worker.Account, generation uint64, life time.Duration,
) messages.Credential {
	t.Helper()
	client, err := wechat.New(wechat.Config{URLs: []string{sim.URL}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	fetch := func() (wechat.Issued, error) {
		return client.StableToken(t.Context(), a.AppID, a.Secret.Reveal(), false)
	}
	if a.TokenAPI == messages.SourceToken {
		fetch = func() (wechat.Issued, error) { return client.Token(t.Context(), a.AppID, a.Secret.Reveal()) }
	}
	issued, err := fetch()
	if err != nil {
		t.Fatal(err)
	}
	if life == 0 {
		life = issued.ExpiresIn
	}
	c := messages.Credential{
		AppID: a.AppID, Kind: messages.AccessToken, Value: issued.Value, Generation: generation,
		ObtainedAt: issued.SentAt.Add(life - issued.ExpiresIn), ExpiresAt: issued.SentAt.Add(life),
		Source: a.TokenAPI, Worker: "w1",
	}
	lease, err := s.Acquire(t.Context(), a.AppID, messages.AccessToken, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release(t.Context())
	if c.Revision, err = lease.Publish(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return c
}

// startAll starts a NATS server with both buckets, and a simulated WeChat.
func startAll(t *testing.T) (*natstest.Server, *store.Store, *wechattest.Server) {
	t.Helper()
	s := natstest.Start(t)
	return s, createBuckets(t, s.Connect()), startWeChat(t)
}

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
