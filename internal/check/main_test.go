package check

import (
	"context"
	"io"
	"log"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret is the AppSecret of every account here: no finding may show it, and none a token.
const secret = "0123456789S3CRETabcdef0123456789"

var (
	stable  = worker.Account{AppID: "wx-stable", Secret: secret, TokenAPI: messages.SourceStableToken}
	classic = worker.Account{AppID: "wx-classic", Secret: secret, Name: "shop", TokenAPI: messages.SourceToken}
)

// upstream is a simulated WeChat that knows both accounts.
func upstream(t *testing.T, changes ...func(*wechattest.Config)) *wechattest.Server {
	t.Helper()
	cfg := wechattest.Config{Accounts: []wechattest.Account{{AppID: stable.AppID, Secret: secret}, {AppID: classic.AppID, Secret: secret}}, ForceGap: -1}
	for _, change := range changes {
		change(&cfg)
	}
	return wechattest.Start(t, cfg)
}

// of is what is checked of a server and a simulated WeChat.
func of(nats, wechatURL string, accounts ...worker.Account) Config {
	return Config{
		NATS: natsconn.Config{URL: nats}, Accounts: accounts,
		WeChat: wechat.Config{URLs: []string{wechatURL}, Timeout: 5 * time.Second},
	}
}

// ran runs all checks, and looks that no finding shows what must not be seen.
func ran(t *testing.T, cfg Config) []Finding {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return clean(t, Run(ctx, cfg))
}

func clean(t *testing.T, found []Finding) []Finding {
	t.Helper()
	for _, f := range found {
		if text := f.What + f.Advice; strings.Contains(text, "S3CRET") || strings.Contains(text, "97_") {
			t.Errorf("a secret: %+v", f)
		}
	}
	return found
}

// wants asserts that a finding of this check and level has all texts, in what it says or in its advice.
func wants(t *testing.T, found []Finding, check string, level Level, texts ...string) {
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
	t.Errorf("no finding %s %s with %q in %s", level, check, texts, lines(found))
}

// wantsNothing asserts that no check but those named has found anything wrong.
func wantsNothing(t *testing.T, found []Finding, but ...string) {
	t.Helper()
	for _, f := range found {
		if f.Level != OK && !strings.Contains(strings.Join(but, " "), f.Check) {
			t.Errorf("%s %s: %s", f.Level, f.Check, f.What)
		}
	}
}

func lines(found []Finding) string {
	var b strings.Builder
	for _, f := range found {
		b.WriteString("\n" + string(f.Level) + " " + f.Check + ": " + f.What + " | " + f.Advice)
	}
	return b.String()
}

// fleet is a store with both buckets, as the workers have it.
func fleet(t *testing.T, nc *nats.Conn) *kv.Store {
	t.Helper()
	s, err := kv.NewStore(nc, kv.StoreConfig{Worker: "w1"})
	if err == nil {
		err = s.Ensure(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// publish fetches the token of an account and publishes it as a worker does, with the life it is to have; 0: its own.
func publish(t *testing.T, s *kv.Store, sim *wechattest.Server, a worker.Account, generation uint64, life time.Duration) messages.Credential {
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
		AppID: a.AppID, Kind: messages.AccessToken, Value: issued.Value, ExpiresAt: issued.SentAt.Add(life), Generation: generation,
		ObtainedAt: issued.SentAt.Add(life - issued.ExpiresIn), Source: a.TokenAPI, Worker: "w1",
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

// installation is a server with both buckets, and a simulated WeChat.
func installation(t *testing.T) (*natstest.Server, *kv.Store, *wechattest.Server) {
	t.Helper()
	s := natstest.Start(t)
	return s, fleet(t, s.Connect()), upstream(t)
}

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
