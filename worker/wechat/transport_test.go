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
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// dropper answers the first request of each connection, and drops the connection after it has read a complete
// second request. It counts the requests.
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

// A repeated GET /cgi-bin/token issues a second token and ends the first, so net/http must not repeat a request.
func TestNoRequestIsResentSilently(t *testing.T) {
	t.Parallel()
	for _, reset := range []bool{false, true} {
		for endpoint, call := range endpoints {
			t.Run(fmt.Sprint(endpoint, " reset ", reset), func(t *testing.T) {
				t.Parallel()
				url, requests := dropper(t, `{"access_token":"A","ticket":"A","code":"A","ip_list":[],"expires_in":1}`, reset)
				var attempts calls
				c := newClient(t, Config{URLs: []string{url}, OnCall: attempts.add})
				if _, err := call(c, t.Context()); err != nil {
					t.Fatal(err)
				}
				_, err := call(c, t.Context())
				e := failure(t, err)
				equal(t, "class", e.Class, ClassTransport)
				equal(t, "Sent", e.Sent, true)
				equal(t, "HTTP status", e.HTTPStatus, 0)
				equal(t, "requests", requests.Load(), 2)
				equal(t, "attempts", len(attempts.all), 2)
			})
		}
	}
	// The control: net/http does repeat an ordinary GET. If it no longer does, the test above proves nothing.
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
		equal(t, "requests", requests.Load(), 3)
	})
}

func TestRefusedConnectionIsUnsent(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{URLs: []string{"http://127.0.0.1:1"}})
	_, err := c.Token(t.Context(), testAppID, testSecret)
	e := failure(t, err)
	equal(t, "class", e.Class, ClassTransport)
	equal(t, "Sent", e.Sent, false)
	isError(t, err, syscall.ECONNREFUSED)
	equal(t, "error", err.Error(),
		"token: no answer from 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused")
}

func TestTLSFailureIsUnsentAndGoesToTheNextHost(t *testing.T) {
	t.Parallel()
	var served atomic.Int32
	bad := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }))
	bad.Config.ErrorLog = discardLog
	bad.StartTLS() // with a self-signed certificate
	t.Cleanup(bad.Close)
	_, err := newClient(t, Config{URLs: []string{bad.URL}}).Token(t.Context(), testAppID, testSecret)
	e := failure(t, err)
	equal(t, "class", e.Class, ClassTransport)
	equal(t, "Sent", e.Sent, false)
	isError(t, err, ErrTLS)
	contains(t, "error", err.Error(), "certificate")

	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, sample(t, "getaccesstoken_ok.json"))
	}))
	t.Cleanup(good.Close)
	var attempts calls
	c := newClient(t, Config{URLs: []string{bad.URL, good.URL}, OnCall: attempts.add})
	for range 2 {
		if _, err := c.Token(t.Context(), testAppID, testSecret); err != nil {
			t.Fatal(err)
		}
	}
	b, g := strings.TrimPrefix(bad.URL, "https://"), strings.TrimPrefix(good.URL, "http://")
	equal(t, "hosts of the attempts", attempts.hosts(), []string{b, g, g})
	equal(t, "requests at the host without TLS", served.Load(), 0)
}

// The cause of a failure on the network path is known by errors.Is, without the data of the network's error.
func TestLookupAndTLSFailuresAreDistinguished(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	noAddress := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "api.example"}}
	}}
	for name, tt := range map[string]struct {
		cfg         Config
		lookup, tls bool
	}{
		"no address":      {Config{Transport: noAddress}, true, false},
		"HTTP, not HTTPS": {Config{URLs: []string{strings.Replace(plain.URL, "http://", "https://", 1)}}, false, true},
		"no listener":     {Config{URLs: []string{"https://127.0.0.1:1"}}, false, false},
	} {
		_, err := newClient(t, tt.cfg).Token(t.Context(), testAppID, testSecret)
		equal(t, "class of "+name, failure(t, err).Class, ClassTransport)
		equal(t, "ErrLookup of "+name, errors.Is(err, ErrLookup), tt.lookup)
		equal(t, "ErrTLS of "+name, errors.Is(err, ErrTLS), tt.tls)
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
	e := failure(t, err)
	equal(t, "class", e.Class, ClassTransport)
	equal(t, "Sent", e.Sent, true)
	isError(t, err, context.DeadlineExceeded)
	contains(t, "error", err.Error(), "(timeout of 200ms)")

	got, err := c.Token(t.Context(), testAppID, testSecret)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "value", got.Value, "ACCESS_TOKEN")
}

// If the caller cancels, or leaves the host hardly any time, the host is not at fault.
func TestACallerThatCancelsDoesNotMoveTheHost(t *testing.T) {
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
	e := failure(t, err)
	equal(t, "class", e.Class, ClassTransport)
	equal(t, "Sent", e.Sent, true)
	isError(t, err, context.Canceled)

	ctx, cancelTimeout := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancelTimeout()
	_, err = c.Token(ctx, testAppID, testSecret)
	isError(t, err, context.DeadlineExceeded)
	equal(t, "our timeout in the error", strings.Contains(err.Error(), "timeout of"), false)
	equal(t, "index of the host", c.hosts.pos.Load().index, 0)
}

// byHost is a RoundTripper with a function for each host.
type byHost map[string]func(*http.Request) (*http.Response, error)

func (h byHost) RoundTrip(r *http.Request) (*http.Response, error) { return h[r.URL.Host](r) }

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
		"cut off": {func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: io.NopCloser(brokenReader{})}, nil
		}, "a|b"},
		"idle connection died": {deadConn(true), "a a b|a a b"},
		"new connection died":  {deadConn(false), "a b|b"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var attempts calls
			c := newClient(t, Config{
				URLs: []string{"https://a", "https://b"}, OnCall: attempts.add,
				Transport: byHost{"a": tt.first, "b": answering(200, ok)},
			})
			_, _ = c.Token(t.Context(), testAppID, testSecret)
			got := strings.Join(attempts.hosts(), " ")
			attempts.all = nil
			_, _ = c.Token(t.Context(), testAppID, testSecret)
			equal(t, "hosts of the attempts", got+"|"+strings.Join(attempts.hosts(), " "), tt.want)
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, syscall.ECONNRESET }

// deadConn behaves as *http.Transport does when a connection dies before a byte was written.
func deadConn(reused bool) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		tr := httptrace.ContextClientTrace(r.Context())
		tr.GetConn("a")
		tr.GotConn(httptrace.GotConnInfo{Reused: reused})
		return nil, errors.New("http: server closed idle connection")
	}
}

// If an idle connection dies, the host has not failed: the client tries the same host once more and stays there.
func TestADeadIdleConnectionIsTriedOnceMore(t *testing.T) {
	t.Parallel()
	n := 0
	flaky := func(r *http.Request) (*http.Response, error) {
		if n++; n == 1 {
			return deadConn(true)(r)
		}
		return answering(200, `{"access_token":"A","expires_in":1}`)(r)
	}
	c := newClient(t, Config{URLs: []string{"https://a", "https://b"}, Transport: byHost{"a": flaky}})
	for range 2 {
		if _, err := c.Token(t.Context(), testAppID, testSecret); err != nil {
			t.Error(err)
		}
	}
	equal(t, "attempts", n, 3)
}

// After a byte was written, nobody knows whether WeChat issued a token.
func TestAWrittenRequestIsNeverSentAgain(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]func(*httptrace.ClientTrace){
		"headers": func(tr *httptrace.ClientTrace) { tr.WroteHeaders() },
		"request": func(tr *httptrace.ClientTrace) { tr.WroteRequest(httptrace.WroteRequestInfo{}) },
	} {
		n := 0
		written := func(r *http.Request) (*http.Response, error) {
			n++
			tr := httptrace.ContextClientTrace(r.Context())
			tr.GetConn("a")
			tr.GotConn(httptrace.GotConnInfo{Reused: true})
			last(tr)
			return nil, io.EOF
		}
		c := newClient(t, Config{URLs: []string{"https://a", "https://a"}, Transport: byHost{"a": written}})
		_, err := c.Token(t.Context(), testAppID, testSecret)
		equal(t, "Sent after "+name, failure(t, err).Sent, true)
		isError(t, err, io.EOF)
		equal(t, "attempts after "+name, n, 1)
	}
}

func TestAllHostsAreTriedOnceAndTheErrorNamesTheLast(t *testing.T) {
	t.Parallel()
	var attempts calls
	c := newClient(t, Config{
		URLs: []string{"https://a", "https://b", "https://c"}, OnCall: attempts.add,
		Transport: byHost{"a": refusing, "b": refusing, "c": refusing},
	})
	_, err := c.Token(t.Context(), testAppID, testSecret)
	e := failure(t, err)
	equal(t, "Sent", e.Sent, false)
	equal(t, "host", e.Host, "c")
	equal(t, "hosts of the attempts", attempts.hosts(), []string{"a", "b", "c"})
}

func TestNoFurtherHostAfterTheContextHasEnded(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancelling := func(r *http.Request) (*http.Response, error) {
		cancel()
		return refusing(r)
	}
	var attempts calls
	c := newClient(t, Config{
		URLs: []string{"https://a", "https://b"}, OnCall: attempts.add, Transport: byHost{"a": cancelling},
	})
	_, err := c.Token(ctx, testAppID, testSecret)
	equal(t, "Sent", failure(t, err).Sent, false)
	isError(t, err, context.Canceled)
	equal(t, "attempts", len(attempts.all), 1)
}

func TestTheFirstHostServesAgainAfterTheCoolDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var attempts calls
		down := true
		c, err := New(Config{URLs: []string{"https://a", "https://b"}, OnCall: attempts.add, Transport: byHost{
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
			down = len(attempts.all) < 5
			time.Sleep(40 * time.Second) //nolint:forbidigo // virtual time
		}
		// a fails at 0 s; it is avoided at 40 s; it fails again at 80 s; it is avoided at 120 s; it serves at
		// 160 s.
		equal(t, "hosts of the attempts", strings.Join(attempts.hosts(), " "), "a b b a b b a")
		_, _ = c.Token(t.Context(), testAppID, testSecret)
		equal(t, "hosts after one more call", strings.Join(attempts.hosts(), " "), "a b b a b b a a")
	})
}
