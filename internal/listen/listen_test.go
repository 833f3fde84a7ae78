package listen_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/listen"
)

// fakeListener is a listener of which only the address counts.
type fakeListener struct {
	net.Listener
	addr string
}

func (l fakeListener) Addr() net.Addr {
	a, _ := net.ResolveTCPAddr("tcp", l.addr)
	return a
}

// A web site that lets its own name resolve to this machine (DNS rebinding) is refused, and nobody else.
func TestPagesOfTheLoopbackAnswerOnlyToItsNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		listener, configured string
		accepted, refused    []string
	}{
		{
			"127.0.0.1:8080", "127.0.0.1:8080",
			[]string{"127.0.0.1:8080", "127.0.0.1", "localhost:8080", "LOCALHOST", "[::1]:8080", "[::1]", "127.0.0.2:1", ""},
			[]string{
				"evil.example", "evil.example:8080", "localhost.evil.example:8080", "127.0.0.1.evil.example:8080",
				"127.0.0.1@evil.example", "evil.example:8080:127.0.0.1", "192.0.2.1:8080", "0.0.0.0:8080", "[::]:8080",
				"localhost.", "127.0.0.1:8080;x", "127.0.0.1:evil.example", "[::1", "[[::1]]", ":8080;", "127.1:8080",
			},
		},
		{"[::1]:8080", "[::1]:8080", []string{"[::1]:8080", "localhost:8080", "127.0.0.1"}, []string{"evil.example:8080"}},
		// The name of the setting, which resolves to the loopback, as the name of a Debian machine does.
		{"127.0.1.1:8080", "my-host:8080", []string{"my-host:8080", "MY-HOST", "localhost"}, []string{"evil.example:8080"}},
		// Beyond the loopback monitoring uses names that nobody here knows.
		{"0.0.0.0:8080", "0.0.0.0:8080", []string{"wxkeeper:8080", "10.0.0.1:8080", "evil.example"}, nil},
		{"192.0.2.1:8080", "192.0.2.1:8080", []string{"wxkeeper.monitoring.svc:8080"}, nil},
	} {
		pages := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the page") })
		h := listen.Guard(pages, fakeListener{addr: tt.listener}, tt.configured)
		ask := func(host string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Host = host
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			return rec
		}
		for _, host := range tt.accepted {
			if rec := ask(host); rec.Code != http.StatusOK || rec.Body.String() != "the page" {
				t.Errorf("%s refuses Host %q: %d %s", tt.listener, host, rec.Code, rec.Body)
			}
		}
		for _, host := range tt.refused {
			rec := ask(host)
			if rec.Code != http.StatusMisdirectedRequest || strings.Contains(rec.Body.String(), "the page") {
				t.Errorf("%s accepts Host %q: %d", tt.listener, host, rec.Code)
			}
			if host != "" && strings.Contains(rec.Body.String(), "evil") {
				t.Errorf("the refusal shows Host %q: %s", host, rec.Body)
			}
		}
	}
}

// Also a refusal, and an error of the handler, have all headers.
func TestEveryAnswerHasTheHeadersForBrowsers(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<script>") })
	mux.HandleFunc("GET /error", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusServiceUnavailable)
	})
	srv := listen.NewServer(listen.Guard(mux, l, l.Addr().String()), slog.New(slog.DiscardHandler))
	shutdown := listen.Serve(srv, l, func(err error) { t.Errorf("serving failed: %v", err) })
	defer shutdown()
	want := map[string]string{
		"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "X-Frame-Options": "DENY",
		"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Resource-Policy": "same-origin", "Access-Control-Allow-Origin": "",
	}
	for _, tt := range []struct {
		method, path, host string
		status             int
	}{
		{"GET", "/", "", 200}, {"GET", "/error", "", 503}, {"GET", "/missing", "", 404}, {"POST", "/", "", 405},
		{"DELETE", "/", "", 405}, {"OPTIONS", "/", "", 405}, {"GET", "/", "evil.example", 421},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tt.method, "http://"+l.Addr().String()+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host, r.Header = tt.host, http.Header{"Origin": {"http://evil.example"}}
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		got := map[string]string{}
		for name := range want {
			got[name] = resp.Header.Get(name)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s %s: headers (-want +got):\n%s", tt.method, tt.path, d)
		}
		if resp.StatusCode != tt.status {
			t.Errorf("%s %s: status %d, want %d", tt.method, tt.path, resp.StatusCode, tt.status)
		}
	}
}

func TestLongRequestsAreCutOff(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		read <- err
	})
	srv := listen.NewServer(listen.Guard(h, l, l.Addr().String()), slog.New(slog.DiscardHandler))
	shutdown := listen.Serve(srv, l, func(err error) { t.Errorf("serving failed: %v", err) })
	defer shutdown()
	for name, limit := range map[string]any{
		"ReadHeaderTimeout": srv.ReadHeaderTimeout, "ReadTimeout": srv.ReadTimeout, "WriteTimeout": srv.WriteTimeout,
		"IdleTimeout": srv.IdleTimeout, "MaxHeaderBytes": srv.MaxHeaderBytes,
	} {
		if fmt.Sprint(limit) == "0" || fmt.Sprint(limit) == "0s" {
			t.Errorf("%s has no limit", name)
		}
	}
	send := func(text string) string {
		t.Helper()
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() { _, _ = io.WriteString(conn, text) }() // the server may close before it has read everything
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	const host = "Host: 127.0.0.1\r\n"
	if got := send("GET / HTTP/1.1\r\n" + host + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"); !strings.Contains(got,
		" 431 ") {
		t.Errorf("a header of 1 MiB: %s", got)
	}
	send("POST / HTTP/1.1\r\n" + host + "Content-Length: 2000000\r\nConnection: close\r\n\r\n" +
		strings.Repeat("x", 2_000_000))
	var tooLong *http.MaxBytesError
	if err := <-read; !errors.As(err, &tooLong) {
		t.Errorf("a body of 2 MB: %v", err)
	}
}
