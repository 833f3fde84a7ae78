package worker

import (
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/wxkeeper/wxkeeper/internal/safetext"
)

// Handler serves the pages for monitoring: /healthz (the process answers), /readyz (the worker knows its buckets,
// NATS is connected, and credentials can be renewed), /metrics (of g), and / (the status as plain text). They show no
// secret.
func (w *Worker) Handler(g prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(g, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "ok\n") })
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, _ *http.Request) {
		select {
		case <-w.ready:
		default:
			http.Error(rw, "starting: the buckets have not been read yet", http.StatusServiceUnavailable)
			return
		}
		if !w.nc.IsConnected() {
			http.Error(rw, "not connected to NATS; credentials are served from memory", http.StatusServiceUnavailable)
			return
		}
		t := w.scheduler.trouble()
		if t.everywhere {
			http.Error(rw, safetext.Sprintf("no credential can be renewed now: %s", t), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(rw, "ok\n")
		if t.credentials > 0 {
			safetext.Fprintf(rw, "some credentials cannot be renewed now: %s\n", t)
		}
	})
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, _ *http.Request) {
		st := w.status.of("")
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		accounts := "1 account"
		if st.Accounts != 1 {
			accounts = strconv.Itoa(st.Accounts) + " accounts"
		}
		safetext.Fprintf(rw, "worker %s, version %s, %s, %s\n\n", st.Worker, st.Version, accounts,
			st.Time.Format(time.RFC3339))
		rows := [][]string{{"APPID", "KIND", "STATE", "REASON", "EXPIRES", "CALLS", "ERROR"}}
		for _, c := range st.Credentials {
			expires := "-"
			if !c.ExpiresAt.IsZero() {
				expires = c.ExpiresAt.Format(time.RFC3339)
			}
			rows = append(rows, []string{c.AppID, string(c.Kind), string(c.State), string(c.Reason), expires,
				strconv.Itoa(c.CallsToday), c.Error})
		}
		_ = safetext.Table(rw, rows) // it fails only if the client has closed the connection
		if st.Truncated {
			safetext.Fprintf(rw, "… and more; these %d come first because they may need attention\n", len(st.Credentials))
		}
	})
	return mux
}
