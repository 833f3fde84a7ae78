package kv

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
)

// canary is a token with characters that a URL escapes.
const canary = `CANARY"+TOKEN/0123456789==`

// withCanary makes a Transport whose token is the canary.
func withCanary(tb testing.TB, base http.RoundTripper, hosts ...string) *Transport {
	tb.Helper()
	f := newTransportFixture(tb, refreshed)
	c := credential(1, time.Hour)
	c.Value = canary
	put(tb, f.reader, c)
	f.Base, f.Hosts = base, hosts
	return f.Transport
}

// noCanary checks that no text shows the canary, in any spelling.
func noCanary(tb testing.TB, what string, texts ...string) {
	tb.Helper()
	for _, text := range texts {
		if strings.Contains(text, "CANARY") || strings.Contains(text, "0123456789") {
			tb.Errorf("%s shows the token: %s", what, text)
		}
	}
}

func TestTransportShowsNoTokenInAnError(t *testing.T) {
	t.Parallel()
	withURL := func(inner error) func(*http.Request) error {
		return func(r *http.Request) error { return &url.Error{Op: "Post", URL: r.URL.String(), Err: inner} }
	}
	for name, c := range map[string]struct {
		fail func(*http.Request) error
		is   error
	}{
		"a url.Error": {withURL(syscall.ECONNREFUSED), syscall.ECONNREFUSED},
		"a deadline":  {withURL(context.DeadlineExceeded), context.DeadlineExceeded},
		"cancelled":   {withURL(context.Canceled), context.Canceled},
		"wrapped":     {func(r *http.Request) error { return silent{withURL(io.EOF)(r)} }, io.EOF},
		"one of many": {func(r *http.Request) error { return silentMany{io.EOF, withURL(io.EOF)(r)} }, io.EOF},
		"joined": {
			func(r *http.Request) error { return silent{errors.Join(io.EOF, withURL(io.EOF)(r))} }, io.EOF,
		},
		"not escaped": {func(*http.Request) error { return fmt.Errorf("%s: %w", canary, io.EOF) }, io.EOF},
		"escaped twice": {func(r *http.Request) error {
			return fmt.Errorf("%s: %w", url.QueryEscape(r.URL.RawQuery), io.EOF)
		}, io.EOF},
		"truncated": {func(r *http.Request) error { return fmt.Errorf("%.80s…: %w", r.URL, io.EOF) }, io.EOF},
		"no token":  {func(*http.Request) error { return &net.OpError{Op: "dial", Err: io.EOF} }, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := roundTripper(func(r *http.Request) (*http.Response, error) { return nil, c.fail(r) })
			client := &http.Client{Transport: withCanary(t, base, "api.weixin.qq.com")}
			resp, err := client.Post(apiURL, "", nil)
			if err == nil {
				resp.Body.Close()
				t.Fatal("no error")
			}
			if !errors.Is(err, c.is) {
				t.Errorf("%v is no longer %v", err, c.is)
			}
			var inner *url.Error
			if !errors.As(err, &inner) {
				t.Fatalf("http.Client returns a %T", err)
			}
			if want := errors.Is(c.is, context.DeadlineExceeded); inner.Timeout() != want {
				t.Errorf("Timeout of %v is %t, want %t", err, inner.Timeout(), want)
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				noCanary(t, "the error", e.Error(), fmt.Sprintf("%v %+v %#v %q", e, e, e, e))
				if errors.As(e, &inner) {
					noCanary(t, "the URL of the error", inner.URL)
				}
			}
			var op *net.OpError
			if name == "no token" && !errors.As(err, &op) {
				t.Error("an error without the token was replaced")
			}
		})
	}
}

// silent wraps an error that its text does not show.
type silent struct{ error }

func (silent) Error() string   { return "a problem" }
func (s silent) Unwrap() error { return s.error }

type silentMany []error

func (silentMany) Error() string     { return "problems" }
func (s silentMany) Unwrap() []error { return s }

// An http.Client follows redirects, and sends the URL of the last request to the next host.
func TestTransportsTokenDoesNotLeaveByRedirects(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var received []string // by the other host
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		received = append(received, fmt.Sprint(r.URL, r.Header))
	}))
	defer other.Close()
	tokens := make(chan string, 10)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.URL.Query().Get("access_token")
		tokens <- token
		switch r.URL.Path {
		case "/away": // as gateways do, with the same query
			http.Redirect(w, r, other.URL+"/there?"+r.URL.RawQuery, http.StatusFound)
		case "/plain":
			http.Redirect(w, r, other.URL+"/there?t="+token, http.StatusFound)
		case "/near":
			http.Redirect(w, r, "/here?"+r.URL.RawQuery, http.StatusTemporaryRedirect)
		}
	}))
	defer api.Close()
	client := &http.Client{Transport: withCanary(t, api.Client().Transport, strings.TrimPrefix(api.URL, "http://"))}
	for path, want := range map[string]struct {
		end    string // the URL of the last request
		tokens int    // requests to the API
	}{
		"/away?a=b&c": {other.URL + "/there?a=b&c", 1},
		"/plain":      {api.URL + "/plain", 1},
		"/near?a=b":   {api.URL + "/here?a=b", 2},
	} {
		resp, err := client.Get(api.URL + path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		resp.Body.Close()
		if got := resp.Request.URL.String(); got != want.end {
			t.Errorf("%s ended at %s, want %s", path, got, want.end)
		}
		for r := resp; r != nil; r = r.Request.Response {
			noCanary(t, "the answer", fmt.Sprint(r.Header), r.Request.URL.String(), fmt.Sprint(r.Request.Header))
		}
		for range want.tokens {
			if token := <-tokens; token != canary {
				t.Errorf("%s: the API received the token %q", path, token)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(received) == 0 {
		t.Error("no redirect was followed")
	}
	noCanary(t, "the other host", received...)
}

// Otherwise any web page could act in the name of the account, for example through a client that fetches
// pictures.
func TestTransportGivesNoTokenToWhatAnotherHostHasChosen(t *testing.T) {
	t.Parallel()
	const (
		api  = "https://api.weixin.qq.com/"
		evil = "https://evil.example/"
	)
	for start, want := range map[string]bool{
		api + "call":                                  true,
		api + "?to=" + api + "call":                   true,
		evil + "?to=" + api + "call":                  false,
		evil + "?to=" + api + "%3Fto=" + api + "call": false,
		api + "?to=" + evil + "%3Fto=" + api + "call": false,
		evil + "?nameless&to=" + api + "call":         false,
	} {
		var last string
		tr := withCanary(t, roundTripper(func(req *http.Request) (*http.Response, error) {
			resp := answered(req, "")
			q := req.URL.Query()
			if !q.Has("to") {
				last = q.Get("access_token")
				return resp, nil
			}
			resp.StatusCode = http.StatusTemporaryRedirect
			resp.Header.Set("Location", q.Get("to"))
			if q.Has("nameless") { // a base that does not set Response.Request
				resp.Request = nil
			}
			return resp, nil
		}), "api.weixin.qq.com")
		resp, err := (&http.Client{Transport: tr}).Post(start, "", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Request.URL.String(); got != api+"call" {
			t.Errorf("%s ended at %s", start, got)
		}
		wantToken := ""
		if want {
			wantToken = canary
		}
		if last != wantToken {
			t.Errorf("%s: the token was sent: %t, want %t", start, last != "", want)
		}
	}
}

func TestTransportsTokenIsInNoResponseAndNoErrorOfTheRealTransport(t *testing.T) {
	t.Parallel()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, deadAnswer)
	}))
	tr := withCanary(t, api.Client().Transport, strings.TrimPrefix(api.URL, "http://"))
	tr.Patience = time.Millisecond
	client := &http.Client{Transport: tr}
	resp, err := client.Get(api.URL + "/x")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	noCanary(t, "Response.Request", resp.Request.URL.String(), fmt.Sprintf("%+v", resp.Request))
	_, err = client.Get(api.URL + "/broken")
	if err == nil {
		t.Fatal("no error")
	}
	noCanary(t, "the error", err.Error())
	api.Close()
	if _, err = client.Get(api.URL + "/x"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, want ECONNREFUSED", err)
	}
	noCanary(t, "the error", err.Error())
}

// The base requests gzip by itself, and returns the decoded answer.
func TestTransportSeesADeadTokenOverTLSAndHTTP2AndCompressed(t *testing.T) {
	t.Parallel()
	var dead atomic.Value
	api := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := r.Proto
		if r.URL.Query().Get("access_token") == dead.Load() {
			answer = deadAnswer
		}
		if r.Header.Get("Accept-Encoding") == "gzip" {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, answer)
			_ = z.Close()
		}
	}))
	api.EnableHTTP2 = true
	api.StartTLS()
	defer api.Close()
	f := newTransportFixture(t, nil)
	f.fleet.answer = func(ctx context.Context) (messages.Refreshed, error) { f.publish(2); return refreshed(ctx) }
	dead.Store(f.publish(1))
	f.Base, f.Hosts = api.Client().Transport, []string{strings.TrimPrefix(api.URL, "https://")}
	resp, err := (&http.Client{Transport: f.Transport}).Post(api.URL, "", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	f.check(string(b), err, "HTTP/2.0")
	f.checkReports(1)
}

func TestTransportClosesTheIdleConnectionsOfItsBase(t *testing.T) {
	t.Parallel()
	base := new(idle)
	(&http.Client{Transport: withCanary(t, base)}).CloseIdleConnections()
	if !base.closed {
		t.Error("CloseIdleConnections of the base was not called")
	}
	(&http.Client{Transport: withCanary(t, roundTripper(nil))}).CloseIdleConnections() // it has no such method
}

type idle struct {
	http.RoundTripper
	closed bool
}

func (i *idle) CloseIdleConnections() { i.closed = true }
