package wechat

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// serveHTTP2 does what serve does, with TLS and HTTP/2.
func serveHTTP2(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog, srv.Config.HTTP2 = discardLog, &http.HTTP2Config{MaxConcurrentStreams: 4}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	transport := newTransport(DefaultTimeout)
	transport.TLSClientConfig.RootCAs = x509.NewCertPool()
	transport.TLSClientConfig.RootCAs.AddCert(srv.Certificate())
	return newClient(t, Config{URLs: []string{srv.URL}, Transport: transport})
}

// anyAnswer is an answer that every endpoint accepts.
const anyAnswer = `{"access_token":"A","ticket":"A","code":"A","ip_list":[],"expires_in":1}`

// Over HTTP/2 the headers of a GET end the stream: relays answer 403 to a GET with a body, also with an empty one. For
// such a body the server of net/http has the length -1, as the control shows.
func TestGETHasNoBodyOverHTTP2(t *testing.T) {
	t.Parallel()
	type received struct {
		method, proto string
		length        int64
		header        string
	}
	got := make(chan received, 1)
	c := serveHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- received{r.Method, r.Proto, r.ContentLength, r.Header.Get("Content-Length")}
		_, _ = io.WriteString(w, anyAnswer)
	})
	for endpoint, call := range endpoints {
		for _, connection := range []string{"new", "idle"} {
			if connection == "new" {
				c.Close()
			}
			if _, err := call(c, t.Context()); err != nil {
				t.Fatal(err)
			}
			r := <-got
			what := fmt.Sprintf("%s on a connection that is %s: ", endpoint, connection)
			equal(t, what+"protocol", r.proto, "HTTP/2.0")
			if r.method == http.MethodGet {
				equal(t, what+"length of the body", r.length, 0)
				equal(t, what+"Content-Length", r.header, "")
			} else if r.length <= 0 {
				t.Errorf("%sthe length of the body is %d", what, r.length)
			}
		}
	}
	empty := io.NopCloser(bytes.NewReader(nil))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.bases[0].String(), empty)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	equal(t, "length of the control", (<-got).length, -1)
}

// A repeated GET /cgi-bin/token issues a second token, over HTTP/2 too. See TestNoRequestIsResentSilently.
func TestNoRequestIsResentSilentlyOverHTTP2(t *testing.T) {
	t.Parallel()
	for endpoint, call := range endpoints {
		var requests atomic.Int32
		c := serveHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if requests.Add(1) == 2 {
				panic(http.ErrAbortHandler)
			}
			_, _ = io.WriteString(w, anyAnswer)
		})
		if _, err := call(c, t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := call(c, t.Context())
		e := failure(t, err)
		equal(t, "class of "+string(endpoint), e.Class, ClassTransport)
		equal(t, "Sent of "+string(endpoint), e.Sent, true)
		equal(t, "requests of "+string(endpoint), requests.Load(), 2)
	}
}

// Many calls at once, more than one connection takes: net/http repeats what it has not sent, and nothing else.
func TestManyCallsAtOnceShareConnectionsOverHTTP2(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	c := serveHTTP2(t, func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		_, _ = io.WriteString(w, anyAnswer)
	})
	const calls = 12 // three times what a connection takes at once
	failed := make(chan error, calls)
	for range calls {
		go func() {
			_, err := c.Token(t.Context(), testAppID, testSecret)
			failed <- err
		}()
	}
	for range calls {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	equal(t, "requests", requests.Load(), calls)
}

func TestARequestAbortedOverHTTP2CountsAsSent(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	c := serveHTTP2(t, func(http.ResponseWriter, *http.Request) {
		requests.Add(1)
		panic(http.ErrAbortHandler)
	})
	for i := range int32(2) { // over a new connection, and over an idle one
		_, err := c.Token(t.Context(), testAppID, testSecret)
		e := failure(t, err)
		equal(t, "Sent", e.Sent, true)
		equal(t, "class", e.Class, ClassTransport)
		equal(t, "requests", requests.Load(), i+1)
	}
}
