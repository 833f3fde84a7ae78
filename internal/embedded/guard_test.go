package embedded

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
)

// client is a client of the server that authenticates.
type client struct {
	opts    server.ClientOpts
	network string
	user    *server.User // the last that was registered
}

func (c *client) GetOpts() *server.ClientOpts               { return &c.opts }
func (*client) GetTLSConnectionState() *tls.ConnectionState { return nil }
func (c *client) RegisterUser(u *server.User)               { c.user = u }
func (*client) GetNonce() []byte                            { return nil }
func (*client) Kind() int                                   { return server.CLIENT }
func (*client) GetID() uint64                               { return 0 }
func (c *client) RemoteAddress() net.Addr                   { return address{c.network} }
func (c *client) sends(o server.ClientOpts) *client         { c.opts = o; return c }

type address struct{ network string }

func (a address) Network() string { return a.network }
func (address) String() string    { return "192.0.2.7:4711" }

// lines is a slog handler that keeps the message and the attributes of each record.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (*lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l *lines) WithGroup(string) slog.Handler          { return l }
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, text)
	return nil
}

func (l *lines) get() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

func testGuard(open bool, consumer credentials, log *lines) *guard {
	g := newGuard(open, credentials{token: "S3CRET-worker"}, consumer, slog.New(log))
	g.inWorkers, g.inConsumers = &server.User{Username: "worker"}, &server.User{Username: "consumer"}
	return g
}

func TestCredentialsDecideTheAccount(t *testing.T) {
	t.Parallel()
	token, password := credentials{token: "S3CRET-consumer"}, credentials{user: "u", password: "S3CRET-p"}
	for _, tt := range []struct {
		name    string
		open    bool
		demands credentials
		network string
		sends   server.ClientOpts
		want    string
	}{
		{"in this process", false, token, "pipe", server.ClientOpts{}, "worker"},
		{"the token of workers", false, token, "tcp", server.ClientOpts{Token: "S3CRET-worker"}, "worker"},
		{"the token of consumers", false, token, "tcp", server.ClientOpts{Token: "S3CRET-consumer"}, "consumer"},
		{"nothing", false, token, "tcp", server.ClientOpts{}, ""},
		{"a longer token", false, token, "tcp", server.ClientOpts{Token: "S3CRET-consumer1"}, ""},
		{"a shorter token", false, token, "tcp", server.ClientOpts{Token: "S3CRET-consume"}, ""},
		{"the token as a password", false, token, "tcp", server.ClientOpts{Username: "u", Password: "S3CRET-consumer"}, ""},
		{"the token and a user", false, token, "tcp", server.ClientOpts{Token: "S3CRET-consumer", Username: "u"}, ""},
		{"user and password", false, password, "tcp", server.ClientOpts{Username: "u", Password: "S3CRET-p"}, "consumer"},
		{"another user", false, password, "tcp", server.ClientOpts{Username: "v", Password: "S3CRET-p"}, ""},
		{"no password", false, password, "tcp", server.ClientOpts{Username: "u"}, ""},
		{"the token of workers, beside a password", false, password, "tcp",
			server.ClientOpts{Token: "S3CRET-worker"}, "worker"},
		{"no token at an open server", true, credentials{}, "tcp", server.ClientOpts{}, "consumer"},
		{"any token at an open server", true, credentials{}, "tcp", server.ClientOpts{Token: "any"}, "consumer"},
		{"the token of workers at an open server", true, credentials{}, "tcp",
			server.ClientOpts{Token: "S3CRET-worker"}, "worker"},
		{"an account of choice", false, token, "tcp", server.ClientOpts{Account: "WX"}, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := testGuard(tt.open, tt.demands, new(lines))
			defer g.stop()
			c := (&client{network: tt.network}).sends(tt.sends)
			accepted, got := g.Check(c), ""
			if c.user != nil {
				got = c.user.Username
			}
			if got != tt.want || accepted != (tt.want != "") {
				t.Errorf("%s: accepted %t, account of the %q, want %q", tt.name, accepted, got, tt.want)
			}
		})
	}
}

// However many connections guess, the guesses are answered at a bounded rate; the right token never waits, and each
// second has one line at most, without what was sent.
func TestGuessesAreSlowAndQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := new(lines)
		g := testGuard(false, credentials{token: "S3CRET-consumer"}, log)
		const guesses = 10 * maxRefusals
		begin := time.Now()
		var done atomic.Int32
		var all sync.WaitGroup
		for i := range guesses {
			all.Go(func() {
				if g.Check((&client{network: "tcp"}).sends(server.ClientOpts{Token: fmt.Sprint("S3CRET-guess-", i)})) {
					t.Error("a guess was accepted")
				}
				done.Add(1)
			})
		}
		synctest.Wait()
		if n := done.Load(); n != 0 {
			t.Errorf("%d guesses were answered at once", n)
		}
		if !g.Check((&client{network: "tcp"}).sends(server.ClientOpts{Token: "S3CRET-consumer"})) {
			t.Error("the right token was refused")
		}
		if waited := time.Since(begin); waited > 0 {
			t.Errorf("the right token waited for %s", waited)
		}
		all.Wait()
		if d := cmp.Diff(10*refusalDelay, time.Since(begin)); d != "" {
			t.Errorf("time of all refusals: -want +got\n%s", d)
		}
		const text = "NATS client without the right token or password refused times=%d last_from=192.0.2.7"
		want := []string{fmt.Sprintf(text, 1), fmt.Sprintf(text, guesses-1)}
		if d := cmp.Diff(want, log.get()); d != "" {
			t.Errorf("log: -want +got\n%s", d)
		}
		g.stop()
	})
}

// The server waits for the goroutines of its clients when it stops.
func TestStopEndsTheDelays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := new(lines)
		g := testGuard(false, credentials{token: "S3CRET-consumer"}, log)
		var all sync.WaitGroup
		for range 3 * maxRefusals {
			all.Go(func() { g.Check(&client{network: "tcp"}) })
		}
		synctest.Wait()
		begin := time.Now()
		g.stop()
		all.Wait()
		if took := time.Since(begin); took > 0 {
			t.Errorf("the delays ended after %s", took)
		}
		if n := len(log.get()); n != 2 {
			t.Errorf("%d lines, want 2: %q", n, log.get())
		}
	})
}
