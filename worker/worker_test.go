package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

func everything(c *Config) {
	c.Accounts[0].Tickets = []messages.Kind{messages.JSAPITicket, messages.WXCardTicket}
}

func classic(c *Config) { c.Accounts[0].TokenAPI = messages.SourceToken }

func everythingClassic(c *Config) {
	everything(c)
	classic(c)
}

func TestPublishesEveryKindWithOneCallEach(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(everything)
	for _, k := range messages.Kinds {
		c := w.await(k, 0)
		f.checkValid(c)
		if life := c.ExpiresAt.Sub(f.clock.Now()); life != 2*time.Hour {
			t.Errorf("the %s lives for %s, want 2 h", k, life)
		}
	}
	f.checkCalls("", 3)
}

func TestResolvesTheSampleOfTheSeedDocument(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(nil)
	w.await(messages.AccessToken, 0)
	code, err := w.resolve()
	if err != nil {
		t.Fatal(err)
	}
	got := messages.Code{Code: code.Code, ApplicationID: code.ApplicationID, CodeEnd: code.CodeEnd}
	checkDiff(t, "the code", got, messages.Code{Code: "8", ApplicationID: 581865877, CodeEnd: 200})
}

func TestRenewsBeforeTheEndAndNeverHandsOutADeadValue(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){"stable_token": everything, "token": everythingClassic} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, wechattest.Config{})
			f.clock.stop()
			w := f.worker(change)
			held := map[messages.Kind]messages.Credential{}
			for _, k := range messages.Kinds {
				held[k] = w.await(k, 0)
			}
			renewed := map[messages.Kind]int{}
			for renewed[messages.AccessToken] < 3 || renewed[messages.JSAPITicket] < 3 ||
				renewed[messages.WXCardTicket] < 3 {
				// Advance to the next planned turn, and wait until it has ended.
				next := time.Time{}
				for _, k := range messages.Kinds {
					w.awaitIdle()
					if at := w.planned(k); next.IsZero() || at.Before(next) {
						next = at
					}
				}
				f.advanceTo(next)
				for _, k := range messages.Kinds {
					w.awaitIdle()
					c, err := w.memory.get(appid, k)
					if err != nil {
						t.Fatalf("no valid %s %s after the start: %v", k, f.clock.Now().Sub(held[k].ObtainedAt), err)
					}
					f.checkValid(*c)
					if c.Generation != held[k].Generation {
						renewed[k]++
					}
					held[k] = *c
				}
			}
		})
	}
}

// A second call of Run must not start a second service and scheduler beside the first.
func TestSecondRunReturnsAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	w := f.worker(nil)
	if err := w.Run(f.context()); !errors.Is(err, ErrRunning) {
		t.Errorf("a second Run beside the first returned %v, want ErrRunning", err)
	}
	w.await(messages.AccessToken, 0) // the first one is not disturbed
	w.stop()
	if err := w.Run(f.context()); !errors.Is(err, ErrRunning) {
		t.Errorf("a second Run after the first returned %v, want ErrRunning", err)
	}
}

// While JetStream does not work, the worker tries to open its buckets again and again. The log has each problem
// once.
func TestProblemWithTheBucketsIsLoggedOnce(t *testing.T) {
	t.Parallel()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true,
		NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the NATS server does not start")
	}
	connect := func() *nats.Conn {
		nc, err := nats.Connect(srv.ClientURL(), nats.ReconnectBufSize(-1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	// The server has no JetStream. The test answers in its place, and so counts the attempts.
	attempts := make(chan struct{})
	var problem atomic.Pointer[string]
	first, second := "the first problem", "the second problem"
	problem.Store(&first)
	js := connect()
	if _, err := js.Subscribe("$JS.API.STREAM.INFO.KV_wechat", func(m *nats.Msg) {
		attempts <- struct{}{}
		_ = m.Respond(fmt.Appendf(nil, `{"error":{"code":503,"err_code":10008,"description":%q}}`, *problem.Load()))
	}); err != nil {
		t.Fatal(err)
	}
	if err := js.Flush(); err != nil {
		t.Fatal(err)
	}
	log := new(logLines)
	w, err := New(connect(), Config{
		Accounts: []Account{{AppID: appid, Secret: secret}}, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	for range 4 { // each attempt has logged before the next one arrives
		<-attempts
	}
	problem.Store(&second)
	for range 3 {
		<-attempts
	}
	stop()
	go func() { // an attempt that the stop interrupts
		for range attempts {
		}
	}()
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v, want nil after a stop", err)
	}
	js.Close()
	close(attempts)
	for _, text := range []string{first, second} {
		if n := log.count(text); n != 1 {
			t.Errorf("%s was logged %d times, want once", text, n)
		}
	}
}

// panickyUpstream panics at the next call of WeChat, once.
type panickyUpstream struct {
	turnUpstream
	panics atomic.Bool
}

const panicText = "CANARY: the value of a panic may contain a secret"

func (u *panickyUpstream) StableToken(ctx context.Context, id, secret string, force bool) (wechat.Issued, error) {
	if u.panics.Swap(false) {
		panic(panicText)
	}
	return u.turnUpstream.StableToken(ctx, id, secret, force)
}

func (u *panickyUpstream) APIDomainIP(ctx context.Context, token string) ([]string, error) {
	if u.panics.Swap(false) {
		panic(panicText)
	}
	return u.turnUpstream.APIDomainIP(ctx, token)
}

// A panic costs one request, report or turn. The log has its stack, and not its value.
func TestPanicIsLoggedWithItsStackAndCostsOneRequest(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	log := new(logLines)
	upstream := new(panickyUpstream)
	var nonce atomic.Bool // the next nonce panics
	upstream.panics.Store(true)
	w := f.workerOn(f.connect(), func(c *Config) {
		everything(c)
		c.Log = slog.New(slog.NewJSONHandler(log, nil))
	}, func(w *Worker) {
		upstream.turnUpstream, w.refresher.upstream = w.refresher.upstream, upstream
		random := w.service.signer.nonce
		w.service.signer.nonce = func() string {
			if nonce.Swap(false) {
				panic(panicText)
			}
			return random()
		}
	})
	// logged checks that the log has the message of a panic, with the function that panicked.
	logged := func(message, function string) {
		t.Helper()
		f.eventually(message, func() bool { return log.count(message) == 1 })
		if log.count(function) == 0 {
			t.Errorf("the log of %q has no stack with %s", message, function)
		}
	}
	logged("panic in a turn", "panickyUpstream).StableToken")
	w.checkMetric(`wxkeeper_refreshes_given_up_total{kind="access_token",reason="internal_error"} 1`)
	f.advance(panicRetry + time.Second)
	token := w.await(messages.AccessToken, 0)
	w.await(messages.JSAPITicket, 0)

	upstream.panics.Store(true)
	_, err := w.report(messages.RefreshCredentialRequest{Revision: token.Revision})
	checkSymbol(t, "a report that panics", err, messages.Upstream)
	logged("panic while answering a report", "panickyUpstream).APIDomainIP")
	w.mustReport(messages.RefreshCredentialRequest{Revision: token.Revision}, messages.ReasonAlive)

	nonce.Store(true)
	sign := messages.SignJSSDKRequest{URL: "https://shop.example.com/"}
	_, err = w.client.SignJSSDK(f.context(), sign)
	checkSymbol(t, "a request that panics", err, messages.Upstream)
	logged("panic while answering a request", "signer).jssdk")
	if _, err = w.client.SignJSSDK(f.context(), sign); err != nil {
		t.Errorf("the next request: %v", err)
	}
	if log.count("CANARY") > 0 {
		t.Error("the log shows the value of a panic")
	}
}
