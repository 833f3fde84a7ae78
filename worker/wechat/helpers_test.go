package wechat

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Secrets of the tests. An AppID is not a secret.
const (
	testAppID  = "wx0123456789abcdef"
	testSecret = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
	testToken  = "77_TOKEN-of_the_test"
	testOpenID = "oiV2luCau8Cx0TMOy9lvZSLqRcKc"
	testTicket = "6cb4bc95e1f1abc97034cbe8fd484989"
)

// endpoints has a call of each endpoint with the secrets of the tests.
var endpoints = map[Endpoint]func(*Client, context.Context) (any, error){
	EndpointToken: func(c *Client, ctx context.Context) (any, error) { return c.Token(ctx, testAppID, testSecret) },
	EndpointStableToken: func(c *Client, ctx context.Context) (any, error) {
		return c.StableToken(ctx, testAppID, testSecret, false)
	},
	EndpointTicket: func(c *Client, ctx context.Context) (any, error) { return c.Ticket(ctx, testToken, TicketJSAPI) },
	EndpointTicketToCode: func(c *Client, ctx context.Context) (any, error) {
		return c.TicketToCode(ctx, testToken, testOpenID, testTicket)
	},
	EndpointAPIDomainIP: func(c *Client, ctx context.Context) (any, error) { return c.APIDomainIP(ctx, testToken) },
}

func sample(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func newClient(t testing.TB, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// serve starts a server and returns a client of it.
func serve(t testing.TB, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return newClient(t, Config{URLs: []string{srv.URL}})
}

// serveBody returns the client of a server that answers every request with status and body.
func serveBody(t testing.TB, status int, body string) *Client {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// failure returns the *Error in err.
func failure(t testing.TB, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v (%T), want an *Error", err, err)
	}
	return e
}

// calls collects the arguments of OnCall.
type calls struct {
	mu  sync.Mutex
	all []Call
}

func (c *calls) add(call Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, call)
}

func (c *calls) hosts() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var hosts []string
	for _, call := range c.all {
		hosts = append(hosts, call.Host)
	}
	return hosts
}

// listen serves raw TCP. It calls handle once for each connection, in a goroutine that the test waits for.
func listen(t testing.TB, handle func(net.Conn)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}

// discardLog is for servers whose errors a test provokes.
var discardLog = log.New(io.Discard, "", 0)

// equal fails the test if got is not want.
func equal[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// contains fails the test unless text contains part.
func contains(t testing.TB, what, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("%s is %q, want a text with %q", what, text, part)
	}
}

// isError fails the test unless errors.Is(err, target).
func isError(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("error %v is not %v", err, target)
	}
}
