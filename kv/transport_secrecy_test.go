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

// withCanary is a scene whose token is the canary and whose base is another.
func withCanary(tb testing.TB, base http.RoundTripper, hosts ...string) *Transport {
	tb.Helper()
	s := newScene(tb, refreshed)
	c := credential(1, time.Hour)
	c.Value = canary
	s.reader.Apply(c)
	s.Base, s.Hosts = base, hosts
	return s.Transport
}

// noCanary fails where a text shows the canary, in any spelling.
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
		"a url.Error":          {withURL(syscall.ECONNREFUSED), syscall.ECONNREFUSED},
		"a deadline":           {withURL(context.DeadlineExceeded), context.DeadlineExceeded},
		"canceled":             {withURL(context.Canceled), context.Canceled},
		"deep inside":          {func(r *http.Request) error { return hides{withURL(io.EOF)(r)} }, io.EOF},
		"one of many":          {func(r *http.Request) error { return hidesMany{io.EOF, withURL(io.EOF)(r)} }, io.EOF},
		"joined":               {func(r *http.Request) error { return hides{errors.Join(io.EOF, withURL(io.EOF)(r))} }, io.EOF},
		"decoded":              {func(*http.Request) error { return fmt.Errorf("%s: %w", canary, io.EOF) }, io.EOF},
		"escaped once more":    {func(r *http.Request) error { return fmt.Errorf("%s: %w", url.QueryEscape(r.URL.RawQuery), io.EOF) }, io.EOF},
		"broken off":           {func(r *http.Request) error { return fmt.Errorf("%.80s…: %w", r.URL, io.EOF) }, io.EOF},
		"nothing to be masked": {func(*http.Request) error { return &net.OpError{Op: "dial", Err: io.EOF} }, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := withCanary(t, roundTripper(func(r *http.Request) (*http.Response, error) { return nil, c.fail(r) }), "api.weixin.qq.com")
			client := &http.Client{Transport: tr}
			resp, err := client.Post(apiURL, "", nil)
			if err == nil {
				resp.Body.Close()
				t.Fatal("no error")
			}
			if !errors.Is(err, c.is) {
				t.Errorf("%v is not %v any more", err, c.is)
			}
			var inner *url.Error
			if errors.As(err, &inner); inner.Timeout() != errors.Is(c.is, context.DeadlineExceeded) {
				t.Errorf("%v: Timeout %v", err, inner.Timeout())
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				noCanary(t, "the error", e.Error(), fmt.Sprintf("%v %+v %#v %q", e, e, e, e))
				if errors.As(e, &inner) {
					noCanary(t, "the URL of the error", inner.URL)
				}
				var op *net.OpError
				if name == "nothing to be masked" && !errors.As(err, &op) {
					t.Error("an error without the token was replaced")
				}
			}
		})
	}
}

// hides does not say what it wraps.
type hides struct{ error }

func (hides) Error() string   { return "trouble" }
func (h hides) Unwrap() error { return h.error }

type hidesMany []error

func (hidesMany) Error() string     { return "troubles" }
func (h hidesMany) Unwrap() []error { return h }

// An http.Client follows redirects, and tells the next host where it came from.
func TestTransportsTokenDoesNotLeaveByRedirects(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var atOther []string
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		atOther = append(atOther, fmt.Sprint(r.URL, r.Header))
	}))
	defer other.Close()
	var base *http.Transport
	tokens := make(chan string, 10)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tokens <- r.URL.Query().Get("access_token")
		switch r.URL.Path {
		case "/away": // as a gateway does: the query goes with it
			http.Redirect(w, r, other.URL+"/there?"+r.URL.RawQuery, http.StatusFound)
		case "/plain":
			http.Redirect(w, r, other.URL+"/there?t="+r.URL.Query().Get("access_token"), http.StatusFound)
		case "/near":
			http.Redirect(w, r, "/here?"+r.URL.RawQuery, http.StatusTemporaryRedirect)
		}
	}))
	defer api.Close()
	base = api.Client().Transport.(*http.Transport)
	tr := withCanary(t, base, strings.TrimPrefix(api.URL, "http://"))
	client := &http.Client{Transport: tr}
	for path, want := range map[string]struct {
		end    string
		tokens int
	}{
		"/away?a=b&c": {other.URL + "/there?a=b&c", 1}, "/plain": {api.URL + "/plain", 1}, "/near?a=b": {api.URL + "/here?a=b", 2},
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
				t.Errorf("%s: WeChat was sent %q", path, token)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(atOther) == 0 {
		t.Error("no redirect was followed")
	}
	noCanary(t, "the other host", atOther...)
}

// Otherwise a page of anybody's would act in the name of the account, through a client that fetches pictures, say.
func TestTransportGivesNoTokenToWhatAnotherHostHasChosen(t *testing.T) {
	t.Parallel()
	for start, want := range map[string]bool{
		"https://api.weixin.qq.com/call":                                                          true,
		"https://api.weixin.qq.com/?to=https://api.weixin.qq.com/call":                            true,
		"https://evil.example/?to=https://api.weixin.qq.com/call":                                 false,
		"https://evil.example/?to=https://api.weixin.qq.com/%3Fto=https://api.weixin.qq.com/call": false,
		"https://api.weixin.qq.com/?to=https://evil.example/%3Fto=https://api.weixin.qq.com/call": false,
		"https://evil.example/?nameless&to=https://api.weixin.qq.com/call":                        false,
	} {
		var last string
		tr := withCanary(t, roundTripper(func(req *http.Request) (*http.Response, error) {
			resp := answered(req, "")
			if q := req.URL.Query(); q.Has("to") {
				resp.StatusCode = http.StatusTemporaryRedirect
				resp.Header.Set("Location", q.Get("to"))
				if q.Has("nameless") { // a base that leaves out Response.Request
					resp.Request = nil
				}
			} else {
				last = q.Get("access_token")
			}
			return resp, nil
		}), "api.weixin.qq.com")
		resp, err := (&http.Client{Transport: tr}).Post(start, "", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Request.URL.String(); got != "https://api.weixin.qq.com/call" {
			t.Errorf("%s ended at %s", start, got)
		}
		if (last == canary) != want || (last == "") == want {
			t.Errorf("%s: the token was sent: %v, want %v", start, last != "", want)
		}
	}
}

func TestTransportsTokenStandsInNoResponseAndNoErrorOfTheRealTransport(t *testing.T) {
	t.Parallel()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, deadAnswer)
	}))
	host := strings.TrimPrefix(api.URL, "http://")
	tr := withCanary(t, api.Client().Transport, host)
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
		t.Errorf("%v, want connection refused", err)
	}
	noCanary(t, "the error", err.Error())
}

// The base asks for gzip by itself, and hands on the plain answer.
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
	s := newScene(t, nil)
	s.fleet.answer = func(ctx context.Context) (messages.Refreshed, error) { s.apply(2); return refreshed(ctx) }
	dead.Store(s.apply(1))
	s.Base, s.Hosts = api.Client().Transport, []string{strings.TrimPrefix(api.URL, "https://")}
	resp, err := (&http.Client{Transport: s.Transport}).Post(api.URL, "", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "HTTP/2.0" || s.fleet.reports() != 1 {
		t.Errorf("%s, %v, %d reports", b, err, s.fleet.reports())
	}
}

func TestTransportPassesCloseIdleConnectionsOn(t *testing.T) {
	t.Parallel()
	base := new(idle)
	(&http.Client{Transport: withCanary(t, base)}).CloseIdleConnections()
	if !base.closed {
		t.Error("the base was not told")
	}
	(&http.Client{Transport: withCanary(t, roundTripper(nil))}).CloseIdleConnections() // it has none
}

type idle struct {
	http.RoundTripper
	closed bool
}

func (i *idle) CloseIdleConnections() { i.closed = true }
