package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// request sends a request as a browser or a client does, and returns the answer and its body.
func request(t *testing.T, method, url, body string, header http.Header) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Host, r.Close = header.Get("Host"), true
	for name, values := range header {
		r.Header[name] = values
	}
	r.Header.Del("Host")
	resp, err := new(http.Transport).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// attackPages attacks pages under url as a web site can. page is a page that exists, and shows text.
func attackPages(t *testing.T, url, page, text string) {
	t.Helper()
	resp, body := request(t, "GET", url+page, "", nil)
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, text) {
		t.Errorf("GET %s: %d without %q: %.200s", page, resp.StatusCode, text, body)
	}
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "X-Frame-Options": "DENY",
		"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Resource-Policy": "same-origin", "Access-Control-Allow-Origin": "",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("GET %s: %s: %q, want %q", page, name, got, want)
		}
	}
	for _, host := range []string{"evil.example", "evil.example:80", "127.0.0.1.evil.example"} {
		resp, body := request(t, "GET", url+page, "", http.Header{"Host": {host}})
		if resp.StatusCode != http.StatusMisdirectedRequest || strings.Contains(body, text) {
			t.Errorf("GET %s with Host %s: %d: %.200s", page, host, resp.StatusCode, body)
		}
	}
}

func TestPagesOfAWorkerAreClosedToWebSites(t *testing.T) {
	t.Parallel()
	served := new(pages)
	closePages, err := served.listen("127.0.0.1:0", slog.New(slog.DiscardHandler), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer closePages()
	attackPages(t, served.url, "/healthz", "ok")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, mine) })
	served.show(mux) // as the worker's pages are shown
	attackPages(t, served.url, "/", mine)
}

func TestControlOfASimulationIsClosedToWebSites(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	term, _, errs := screen(false)
	ready, ended := make(chan string, 1), make(chan int, 1)
	term.out = writer(func(text string) { ready <- text })
	go func() {
		ended <- execute(ctx, term, []string{"simulate", "--listen=127.0.0.1:0", "--control=127.0.0.1:0"})
		close(ready)
	}()
	defer func() {
		cancel()
		if code := <-ended; code != exitOK {
			t.Errorf("exit code %d: %s", code, errs)
		}
	}()
	_, control, ok := strings.Cut(strings.TrimSpace(<-ready), "control=")
	if !ok {
		t.Fatal("the address of the control API is not printed")
	}
	attackPages(t, control, "/", "/faults")
	attackPages(t, control, "/calls", "accounts")
	const body = `{"endpoint":"token","errcode":-1}`
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}} // the type of curl -d
	if resp, text := request(t, "POST", control+"/faults", body, form); resp.StatusCode != http.StatusOK {
		t.Errorf("curl -d: %d %s", resp.StatusCode, text)
	}
	form.Set("Origin", "https://evil.example")
	if resp, text := request(t, "POST", control+"/faults", body, form); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a form of a web site: %d %s", resp.StatusCode, text)
	}
	// A site whose name resolves to this machine is same-origin for the browser.
	form.Set("Origin", "http://evil.example")
	form.Set("Host", "evil.example")
	form.Set("Sec-Fetch-Site", "same-origin")
	if resp, text := request(t, "POST", control+"/faults", body, form); resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("a form of a site that resolves to this machine: %d %s", resp.StatusCode, text)
	}
}

func TestPagesOfAStartingWorkerTakeOnlyGET(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]int{"GET": 503, "HEAD": 503, "POST": 405, "DELETE": 405} {
		rec := httptest.NewRecorder()
		new(pages).ServeHTTP(rec, httptest.NewRequest(method, "/", nil))
		if rec.Code != want {
			t.Errorf("%s: status %d, want %d", method, rec.Code, want)
		}
	}
}
