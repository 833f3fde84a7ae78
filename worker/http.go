package worker

import (
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/wxkeeper/wxkeeper/internal/safetext"
)

// Handler serves the pages for monitoring: /healthz (the process answers), /readyz (the worker knows its buckets
// and NATS is connected), /metrics (of g), and / (the status as plain text). They show no secret.
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
		_, _ = io.WriteString(rw, "ok\n")
	})
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, _ *http.Request) {
		st := w.status.of("")
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		t := tabwriter.NewWriter(rw, 0, 0, 2, ' ', 0)
		safetext.Fprintf(t, "worker %s, version %s, %d accounts, %s\n\n", st.Worker, st.Version, st.Accounts,
			st.Time.Format(time.RFC3339))
		safetext.Fprintf(t, "APPID\tKIND\tSTATE\tREASON\tEXPIRES\tCALLS\tERROR\n")
		for _, c := range st.Credentials {
			safetext.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", c.AppID, c.Kind, c.State, c.Reason,
				c.ExpiresAt.Format(time.RFC3339), c.CallsToday, c.Error)
		}
		if st.Truncated {
			safetext.Fprintf(t, "… and more; these %d come first because they may need attention\n", len(st.Credentials))
		}
		_ = t.Flush() // it fails only if the client has closed the connection
	})
	return mux
}
