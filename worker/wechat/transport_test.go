package wechat

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// dropper answers the first request of each connection, and drops the connection once it has read a second one whole.
// It counts the requests.
func dropper(t testing.TB, body string, reset bool) (url string, requests *atomic.Int32) {
	t.Helper()
	requests = new(atomic.Int32)
	return listen(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		for range 2 {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if requests.Add(1)%2 == 1 {
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			}
		}
		if reset {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
	}), requests
}

// A GET /cgi-bin/token that is sent again mints a second token and kills the first, so net/http must not do it by itself.
func TestNoRequestIsResentSilently(t *testing.T) {
	t.Parallel()
	for _, reset := range []bool{false, true} {
		for endpoint, call := range endpoints {
			t.Run(fmt.Sprint(endpoint, " reset ", reset), func(t *testing.T) {
				t.Parallel()
				url, requests := dropper(t, `{"access_token":"A","ticket":"A","code":"A","ip_list":[],"expires_in":1}`, reset)
				var told calls
				c := newClient(t, Config{URLs: []string{url}, OnCall: told.add})
				if _, err := call(c, t.Context()); err != nil {
					t.Fatal(err)
				}
				_, err := call(c, t.Context())
				if e := failure(t, err); e.Class != ClassTransport || !e.Sent || e.HTTPStatus != 0 {
					t.Errorf("got %+v", *e)
				}
				if n := requests.Load(); n != 2 || len(told.all) != 2 {
					t.Errorf("%d requests and %d attempts, want 2 and 2", n, len(told.all))
				}
			})
		}
	}
	// The control: net/http does resend an ordinary GET. If one day it does not, this test proves nothing.
	t.Run("control", func(t *testing.T) {
		t.Parallel()
		url, requests := dropper(t, "{}", false)
		client := http.Client{Transport: newTransport(DefaultTimeout)}
		for range 2 {
			resp, err := client.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		client.CloseIdleConnections()
		if n := requests.Load(); n != 3 {
			t.Errorf("%d requests, want 3", n)
		}
	})
}

func TestRefusedConnectionIsUnsent(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{URLs: []string{"http://127.0.0.1:1"}})
	_, err := c.Token(t.Context(), testAppID, testSecret)
	e := failure(t, err)
	if e.Class != ClassTransport || e.Sent || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %+v", *e)
	}
	if want := "token: no answer from 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"; err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

func TestTLSFailureIsUnsentAndGoesToTheNextHost(t *testing.T) {
	t.Parallel()
	var served atomic.Int32
	bad := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }))
	bad.Config.ErrorLog = discardLog
	bad.StartTLS() // with a certificate that nobody signed
	t.Cleanup(bad.Close)
	_, err := newClient(t, Config{URLs: []string{bad.URL}}).Token(t.Context(), testAppID, testSecret)
	if e := failure(t, err); e.Sent || e.Class != ClassTransport || !strings.Contains(err.Error(), "certificate") || !errors.Is(err, ErrTLS) {
		t.Errorf("got %v: %+v", err, *e)
	}

	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, sample(t, "getaccesstoken_ok.json"))
	}))
	t.Cleanup(good.Close)
	var told calls
	c := newClient(t, Config{URLs: []string{bad.URL, good.URL}, OnCall: told.add})
	for range 2 {
		if _, err := c.Token(t.Context(), testAppID, testSecret); err != nil {
			t.Fatal(err)
		}
	}
	b, g := strings.TrimPrefix(bad.URL, "https://"), strings.TrimPrefix(good.URL, "http://")
	if want := []string{b, g, g}; !reflect.DeepEqual(told.hosts(), want) || served.Load() != 0 {
		t.Errorf("attempts at %v, want %v", told.hosts(), want)
	}
}

// What stands in the way is told apart, without what the error of the network carries.
func TestAHostWithoutAddressAndOneWithoutTLSAreToldApart(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	failing := func(err error) *http.Transport {
		return &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, err }}
	}
	for name, tt := range map[string]struct {
		cfg         Config
		lookup, tls bool
	}{
		"no address":       {Config{Transport: failing(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "api.example"}})}, true, false},
		"HTTP, not HTTPS":  {Config{URLs: []string{strings.Replace(plain.URL, "http://", "https://", 1)}}, false, true},
		"nobody listening": {Config{URLs: []string{"https://127.0.0.1:1"}}, false, false},
	} {
		_, err := newClient(t, tt.cfg).Token(t.Context(), testAppID, testSecret)
		if e := failure(t, err); e.Class != ClassTransport || errors.Is(err, ErrLookup) != tt.lookup || errors.Is(err, ErrTLS) != tt.tls {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTimeoutIsSentAndMovesTheNextCall(t *testing.T) {
	t.Parallel()
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(slow.Close)
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, sample(t, "getaccesstoken_ok.json"))
	}))
	t.Cleanup(good.Close)
	c := newClient(t, Config{URLs: []string{slow.URL, good.URL}, Timeout: 200 * time.Millisecond})
	_, err := c.Token(t.Context(), testAppID, testSecret)
	if e := failure(t, err); e.Class != ClassTransport || !e.Sent || !errors.Is(err, context.DeadlineExceeded) || !strings.HasSuffix(err.Error(), "(timeout of 200ms)") {
		t.Errorf("got %v: %+v", err, *e)
	}
	if got, err := c.Token(t.Context(), testAppID, testSecret); err != nil || got.Value != "ACCESS_TOKEN" {
		t.Errorf("got %v, %v", got, err)
	}
}

// A caller that goes away, or that left hardly any time, says nothing about the host.
func TestACallerThatGoesAwayDoesNotMoveTheHost(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 2)
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	c.hosts = newHosts(2)
	c.bases = append(c.bases, c.bases[0])

	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-arrived
		cancel(errors.New("a cause of the caller's own"))
	}()
	_, err := c.Token(ctx, testAppID, testSecret)
	if e := failure(t, err); !errors.Is(err, context.Canceled) || !e.Sent || e.Class != ClassTransport {
		t.Errorf("got %v: %+v", err, *e)
	}
	ctx, cancelTimeout := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancelTimeout()
	_, err = c.Token(ctx, testAppID, testSecret)
	if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "timeout of") {
		t.Errorf("got %v", err)
	}
	if c.hosts.pos.Load().index != 0 {
		t.Error("the host was moved")
	}
}

// hops is a RoundTripper that behaves per host as told.
type hops map[string]func(*http.Request) (*http.Response, error)

func (h hops) RoundTrip(r *http.Request) (*http.Response, error) { return h[r.URL.Host](r) }

func answering(status int, body string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

func refusing(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
}

func TestWhichFailuresMoveTheHost(t *testing.T) {
	t.Parallel()
	const ok = `{"access_token":"A","expires_in":1}`
	tests := map[string]struct {
		first func(*http.Request) (*http.Response, error)
		want  string // hosts of the attempts of two calls
	}{
		"served":        {answering(200, ok), "a|a"},
		"errcode":       {answering(200, `{"errcode":40013}`), "a|a"},
		"busy":          {answering(200, `{"errcode":-1}`), "a|a"},
		"retired IP":    {answering(200, `{"errcode":48017}`), "a|b"},
		"HTTP 404":      {answering(404, ""), "a|a"},
		"HTTP 502":      {answering(502, ""), "a|b"},
		"broken":        {answering(200, "<html>"), "a|a"},
		"dial":          {refusing, "a b|b"},
		"unknown error": {func(*http.Request) (*http.Response, error) { return nil, io.ErrClosedPipe }, "a|b"},
		"broken off": {func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: io.NopCloser(brokenReader{})}, nil
		}, "a|b"},
		"died unwritten": {stale(true), "a a b|a a b"},
		"fresh unsent":   {stale(false), "a b|b"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var told calls
			c := newClient(t, Config{URLs: []string{"https://a", "https://b"}, OnCall: told.add, Transport: hops{"a": tt.first, "b": answering(200, ok)}})
			_, _ = c.Token(t.Context(), testAppID, testSecret)
			got := strings.Join(told.hosts(), " ")
			told.all = nil
			_, _ = c.Token(t.Context(), testAppID, testSecret)
			if got += "|" + strings.Join(told.hosts(), " "); got != tt.want {
				t.Errorf("attempts %s, want %s", got, tt.want)
			}
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, syscall.ECONNRESET }

// stale behaves as *http.Transport does when a connection dies before anything was written.
func stale(reused bool) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		tr := httptrace.ContextClientTrace(r.Context())
		tr.GetConn("a")
		tr.GotConn(httptrace.GotConnInfo{Reused: reused})
		return nil, errors.New("http: server closed idle connection")
	}
}

// A kept connection that dies is no failure of the host: the same host is tried once more, and it stays.
func TestADeadKeptConnectionIsTriedOnceMore(t *testing.T) {
	t.Parallel()
	n := 0
	flaky := func(r *http.Request) (*http.Response, error) {
		if n++; n == 1 {
			return stale(true)(r)
		}
		return answering(200, `{"access_token":"A","expires_in":1}`)(r)
	}
	c := newClient(t, Config{URLs: []string{"https://a", "https://b"}, Transport: hops{"a": flaky}})
	for range 2 {
		if _, err := c.Token(t.Context(), testAppID, testSecret); err != nil {
			t.Error(err)
		}
	}
	if n != 3 {
		t.Errorf("%d attempts, want 3", n)
	}
}

// Once anything was written nobody knows whether WeChat minted a token.
func TestAWrittenRequestIsNeverSentAgain(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]func(*httptrace.ClientTrace){
		"headers": func(tr *httptrace.ClientTrace) { tr.WroteHeaders() },
		"request": func(tr *httptrace.ClientTrace) { tr.WroteRequest(httptrace.WroteRequestInfo{}) },
	} {
		n := 0
		c := newClient(t, Config{URLs: []string{"https://a", "https://a"}, Transport: hops{"a": func(r *http.Request) (*http.Response, error) {
			n++
			tr := httptrace.ContextClientTrace(r.Context())
			tr.GetConn("a")
			tr.GotConn(httptrace.GotConnInfo{Reused: true})
			last(tr)
			return nil, io.EOF
		}}})
		_, err := c.Token(t.Context(), testAppID, testSecret)
		if e := failure(t, err); !e.Sent || !errors.Is(err, io.EOF) || n != 1 {
			t.Errorf("%s: got %v after %d attempts", name, err, n)
		}
	}
}

func TestAllHostsAreTriedOnceAndTheLastIsReported(t *testing.T) {
	t.Parallel()
	var told calls
	c := newClient(t, Config{URLs: []string{"https://a", "https://b", "https://c"}, OnCall: told.add, Transport: hops{"a": refusing, "b": refusing, "c": refusing}})
	_, err := c.Token(t.Context(), testAppID, testSecret)
	if e := failure(t, err); e.Sent || e.Host != "c" || strings.Join(told.hosts(), " ") != "a b c" {
		t.Errorf("got %v after %v", err, told.hosts())
	}
}

func TestNoFurtherHostOnceTheContextIsOver(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var told calls
	c := newClient(t, Config{URLs: []string{"https://a", "https://b"}, OnCall: told.add, Transport: hops{"a": func(r *http.Request) (*http.Response, error) {
		cancel()
		return refusing(r)
	}}})
	_, err := c.Token(ctx, testAppID, testSecret)
	if e := failure(t, err); e.Sent || len(told.all) != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v after %v", err, told.hosts())
	}
}

func TestTheFirstHostServesAgainAfterTheCoolDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told calls
		down := true
		c, err := New(Config{URLs: []string{"https://a", "https://b"}, OnCall: told.add, Transport: hops{
			"a": func(r *http.Request) (*http.Response, error) {
				if down {
					return refusing(r)
				}
				return answering(200, `{"access_token":"A","expires_in":1}`)(r)
			},
			"b": answering(200, `{"access_token":"A","expires_in":1}`),
		}})
		if err != nil {
			t.Fatal(err)
		}
		for range 5 { // at 0, 40, 80, 120, 160 s
			_, _ = c.Token(t.Context(), testAppID, testSecret)
			down = len(told.all) < 5
			time.Sleep(40 * time.Second) //nolint:forbidigo // virtual time
		}
		// Down at 0; left alone at 40; probed at 80, still down; at 120 left alone; at 160 it serves.
		if got := strings.Join(told.hosts(), " "); got != "a b b a b b a" {
			t.Errorf("attempts at %s", got)
		}
		_, _ = c.Token(t.Context(), testAppID, testSecret)
		if got := told.hosts(); got[len(got)-1] != "a" {
			t.Errorf("attempts at %s", got)
		}
	})
}
