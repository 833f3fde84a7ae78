package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func health(v healthVerb) (said string, code int) {
	var out, errs bytes.Buffer
	if v.Timeout == 0 {
		v.Timeout = patienceOfHealth
	}
	t := &terminal{out: &out, err: &errs}
	code = t.fail(v.Run(context.Background(), t))
	return out.String() + errs.String(), code
}

const patienceOfHealth = 30 * time.Second

func TestHealthIsWhatThePageSays(t *testing.T) {
	t.Parallel()
	hangs := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "starting:\nNATS is away", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/hangs", func(http.ResponseWriter, *http.Request) { <-hangs })
	srv := httptest.NewServer(mux)
	defer srv.Close()
	defer close(hangs)
	for _, tt := range []struct {
		verb healthVerb
		code int
		want string
	}{
		{healthVerb{URL: srv.URL + "/good"}, exitOK, "ok\n"},
		{healthVerb{URL: srv.URL + "/bad"}, exitFailure, "wxkeeper: not healthy: " + srv.URL + "/bad: 503 starting:; NATS is away\n"},
		{healthVerb{URL: srv.URL + "/missing"}, exitFailure, "404"},
		{healthVerb{URL: srv.URL + "/hangs", Timeout: time.Millisecond}, exitFailure, "no answer from " + srv.URL + "/hangs within 1ms"},
		{healthVerb{URL: "http://127.0.0.1:1/"}, exitFailure, "connection refused"},
		{healthVerb{URL: "127.0.0.1:8080"}, exitUsage, "not an http or https URL"},
		{healthVerb{URL: srv.URL, Timeout: -1}, exitUsage, "--timeout"},
	} {
		said, code := health(tt.verb)
		if code != tt.code || !strings.Contains(said, tt.want) || strings.Count(said, "\n") != 1 {
			t.Errorf("%+v: exit code %d, %q; want %d, %q", tt.verb, code, said, tt.code, tt.want)
		}
	}
}

// A server that listens everywhere is asked on the loopback.
func TestServersThatListenEverywhereAreReachable(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "192.0.2.1": "192.0.2.1", "localhost": "localhost"} {
		if got := reachable(host); got != want {
			t.Errorf("%q is reached at %q, want %q", host, got, want)
		}
	}
}
