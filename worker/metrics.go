package worker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// metrics are the counters of a worker. No label is an AppID: thousands of accounts would make thousands of
// series. The status subject describes each account.
type metrics struct {
	upstream  *prometheus.CounterVec
	upstreamT *prometheus.HistogramVec
	refreshes *prometheus.CounterVec
	givenUp   *prometheus.CounterVec
	reports   *prometheus.CounterVec
	requests  *prometheus.CounterVec
	resolveT  prometheus.Histogram
	conflicts prometheus.Counter
	forged    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		upstream: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wxkeeper_upstream_calls_total",
			Help: "Calls of the WeChat server API, by endpoint and class (ok, or the class of the error).",
		}, []string{"endpoint", "class"}),
		upstreamT: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "wxkeeper_upstream_call_seconds", Help: "Duration of calls of the WeChat server API.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"endpoint"}),
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wxkeeper_refreshes_total",
			Help: "Refreshes, by kind and outcome (published, unchanged, republished, unpublished, failed).",
		}, []string{"kind", "outcome"}),
		givenUp: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wxkeeper_refreshes_given_up_total",
			Help: "Refreshes that were due and could not be made, by kind and reason (disconnected, unwritable, " +
				"lease_held, internal_error); each is tried again after some seconds.",
		}, []string{"kind", "reason"}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wxkeeper_reports_total",
			Help: "Reports, by outcome (refreshed, not_current, alive, unchanged, or the symbol of the error).",
		}, []string{"outcome"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wxkeeper_requests_total",
			Help: "Requests, by subject and outcome (ok, the symbol of the error, or " +
				"dropped: its reply subject is not allowed).",
		}, []string{"subject", "outcome"}),
		resolveT: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "wxkeeper_resolve_seconds", Help: "Time from the arrival of a code.resolve request to its reply.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wxkeeper_conflicts_total",
			Help: "Conflicts: another system replaced a token long before its end.",
		}),
		forged: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wxkeeper_forged_total",
			Help: "Entries of the buckets that no worker stored, by entry (record, ledger, lease).",
		}, []string{"entry"}),
	}
	for _, c := range []prometheus.Collector{
		m.upstream, m.upstreamT, m.refreshes, m.givenUp, m.reports, m.requests, m.resolveT, m.conflicts, m.forged,
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// called counts one call of WeChat.
func (m *metrics) called(c wechat.Call) {
	class := "ok"
	if c.Err != nil {
		class = c.Err.Class.String()
	}
	m.upstream.WithLabelValues(string(c.Endpoint), class).Inc()
	m.upstreamT.WithLabelValues(string(c.Endpoint)).Observe(c.Duration.Seconds())
}
