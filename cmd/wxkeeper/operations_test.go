package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxkeeper/wxkeeper/internal/check"
	"github.com/wxkeeper/wxkeeper/internal/embedded"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
)

func operations(t *testing.T) string {
	t.Helper()
	return page(t, "operations.md")
}

// page returns a page of docs.
func page(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// catalogue is a Registerer that lists the registered metrics, also those without a series.
type catalogue struct {
	prometheus.Registerer
	rows []string
}

var descOf = regexp.MustCompile(`fqName: "(.*?)", help: "([^"]*)", (?:unit: "[^"]*", )?constLabels: \{.*?\}, variableLabels: \{(.*?)\}`)

func (c *catalogue) Register(collector prometheus.Collector) error {
	kind := "gauge"
	switch collector.(type) {
	case prometheus.Gauge:
	case *prometheus.CounterVec, prometheus.Counter:
		kind = "counter"
	case *prometheus.HistogramVec, prometheus.Histogram:
		kind = "histogram"
	}
	descs := make(chan *prometheus.Desc, 16)
	collector.Describe(descs)
	close(descs)
	for d := range descs {
		m := descOf.FindStringSubmatch(d.String())
		if m == nil {
			return fmt.Errorf("the description is not understood: %s", d)
		}
		labels := ""
		if m[3] != "" {
			labels = "`" + strings.ReplaceAll(m[3], ",", "`, `") + "`"
		}
		c.rows = append(c.rows, fmt.Sprintf("| `%s` | %s | %s | %s |\n", m[1], kind, labels,
			strings.TrimSuffix(m[2], ".")))
	}
	return nil
}

func TestOperationsHasTheTableOfMetrics(t *testing.T) {
	t.Parallel()
	s, err := embedded.Start(t.Context(), embedded.Config{Listen: "127.0.0.1:0", DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	nc, err := nats.Connect("", s.InProcess(), nats.ReconnectBufSize(-1))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &catalogue{}
	if _, err := worker.New(nc, worker.Config{Accounts: []worker.Account{{AppID: "wx1", Secret: canary}},
		Registerer: c}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(c.rows)
	want := "| metric | type | labels | meaning |\n|---|---|---|---|\n" + strings.Join(c.rows, "")
	text := page(t, "metrics.md")
	if !strings.Contains(text, want) {
		t.Errorf("docs/metrics.md has another table than the code:\n%s", want)
	}
	for name := range strings.FieldsSeq(text + operations(t)) { // also in the alert rules
		if m := regexp.MustCompile(`wxkeeper_[a-z_]+[a-z]`).FindString(name); m != "" &&
			!strings.Contains(want, "`"+m+"`") {
			t.Errorf("there is no metric %s", m)
		}
	}
}

// The page has every state, every reason, every event, and every error with its code.
func TestOperationsNamesEveryStateReasonEventAndError(t *testing.T) {
	t.Parallel()
	text := operations(t)
	contract := ""
	for _, file := range []string{"messages.go", "errors.go"} {
		b, err := os.ReadFile("../../messages/" + file)
		if err != nil {
			t.Fatal(err)
		}
		contract += string(b)
	}
	rows := func(constant, row string) {
		found := regexp.MustCompile(constant).FindAllStringSubmatch(contract, -1)
		if len(found) < 5 {
			t.Errorf("only %d of %s", len(found), constant)
		}
		for _, m := range found {
			want := fmt.Sprintf(row, m[1])
			if strings.Contains(row, "%d") {
				want = fmt.Sprintf(row, m[1], messages.Symbol(m[1]).Code())
			}
			if !strings.Contains(text, "\n"+want) {
				t.Errorf("docs/operations.md has no row %q", want)
			}
		}
	}
	rows(`(?m)^\tState\w+ +State = "(\w+)"`, "| `%s` |")
	rows(`(?m)^\tEvent\w+ += "(\w+)"`, "| `%s` |")
	rows(`(?m)^\t\w+ +Symbol = "(\w+)"`, "| `%s` | %d |")
	_, reasons, _ := strings.Cut(text, "\n## Reasons\n")
	text, _, _ = strings.Cut(reasons, "\n## ")
	rows(`(?m)^\tReason\w+ +Reason = "(\w+)"`, "| `%s` |")
	text = operations(t)
	for _, name := range []string{check.Environment, check.NATS, check.Permissions, check.Buckets, check.Workers,
		check.Account, check.Clock, check.OtherSystem} {
		if want := fmt.Sprintf("\n| `%s` |", name); !strings.Contains(text, want) {
			t.Errorf("docs/operations.md has no check %s", name)
		}
	}
	for _, code := range []int{exitOK, exitFailure, exitUsage, exitInterrupted} {
		if want := fmt.Sprintf("\n| %d |", code); !strings.Contains(text, want) {
			t.Errorf("docs/operations.md has no exit code %d", code)
		}
	}
}
