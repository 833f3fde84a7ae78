package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// health returns what the verb prints, and its exit code.
func health(v healthVerb) (printed string, code int) {
	if v.Timeout == 0 {
		v.Timeout = patience
	}
	t, out, errs := screen(false)
	code = t.fail(v.Run(context.Background(), t))
	return out.String() + errs.String(), code
}

func TestHealthNeverPrintsThePasswordOfItsURL(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"ftp://u:" + canary + "@h/", "http://u:" + canary + "@:port/x y", "u:" + canary + "@h"} {
		if printed, code := health(healthVerb{URL: url}); code != exitUsage || strings.Contains(printed, canary) {
			t.Errorf("exit code %d: %s", code, printed)
		}
	}
}

func TestHealthIsTheAnswerOfThePage(t *testing.T) {
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
		{healthVerb{URL: srv.URL + "/bad"}, exitFailure,
			"wxkeeper: not healthy: " + srv.URL + "/bad: 503 starting:; NATS is away\n"},
		{healthVerb{URL: srv.URL + "/missing"}, exitFailure, "404"},
		{healthVerb{URL: srv.URL + "/hangs", Timeout: time.Millisecond}, exitFailure,
			"no answer from " + srv.URL + "/hangs within 1ms"},
		{healthVerb{URL: "http://127.0.0.1:1/"}, exitFailure, "connection refused"},
		{healthVerb{URL: "127.0.0.1:8080"}, exitUsage, "not an http or https URL"},
		{healthVerb{URL: srv.URL, Timeout: -1}, exitUsage, "--timeout"},
	} {
		printed, code := health(tt.verb)
		if code != tt.code {
			t.Errorf("%+v: exit code %d, want %d", tt.verb, code, tt.code)
		}
		if !strings.Contains(printed, tt.want) {
			t.Errorf("%+v: %q lacks %q", tt.verb, printed, tt.want)
		}
		if strings.Count(printed, "\n") != 1 {
			t.Errorf("%+v: %q is not one line", tt.verb, printed)
		}
	}
}
