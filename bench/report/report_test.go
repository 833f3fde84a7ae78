package report

import (
	"math"
	"strings"
	"testing"
)

func TestQuantileInterpolatesAndKeepsTheSeries(t *testing.T) {
	t.Parallel()
	series := []float64{4, 1, 3, 2}
	for q, want := range map[float64]float64{0: 1, 0.5: 2.5, 1: 4, 0.25: 1.75} {
		if got := Quantile(series, q); got != want {
			t.Errorf("the %v-quantile is %v, want %v", q, got, want)
		}
	}
	if series[0] != 4 {
		t.Error("the series was sorted in place")
	}
}

func TestSpreadOfNothingIsNotANumber(t *testing.T) {
	t.Parallel()
	if s := SpreadOf(nil); !math.IsNaN(s.Min) || !math.IsNaN(s.Median) || !math.IsNaN(s.Max) {
		t.Errorf("got %+v", s)
	}
}

func TestNumberHasThreeDigits(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{
		0: "0", 0.333: "0.33", 1: "1", 1.5: "1.5", 9.999: "10", 12.34: "12.3", 99.96: "100", 999: "999",
		1234.5: "1,230", 103858: "104,000", 1234567: "1,230,000", -2.5: "-2.5", -999999: "-1,000,000",
	} {
		if got := number(v); got != want {
			t.Errorf("number(%v) is %q, want %q", v, got, want)
		}
	}
}

// write returns the lines of the table without its head.
func write(t *testing.T, r *Report) []string {
	t.Helper()
	var b strings.Builder
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(b.String()), "\n")[2:]
}

func TestRatiosAreTakenWithinARepeat(t *testing.T) {
	t.Parallel()
	var r Report
	m := Measure{Row: "(a)", What: "reading", Unit: "ns"}
	for repeat, v := range []float64{10, 100, 1000} { // three runs on a machine that becomes slower
		r.Add(m, "own", "own", repeat, v)
		r.Add(m, "peer", "own", repeat, 2*v)
	}
	lines := write(t, &r)
	if want := "| (a) | reading | own | 100 (10 to 1,000) ns |  |  |"; lines[0] != want {
		t.Errorf("got  %s\nwant %s", lines[0], want)
	}
	if want := "|  |  | peer | 200 (20 to 2,000) ns | 2 | worse |"; lines[1] != want {
		t.Errorf("got  %s\nwant %s", lines[1], want)
	}
}

func TestAPeerThatIsBetterIsCalledBetter(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		better    Better
		own, peer []float64
		want      string
	}{
		"lower is better":       {Lower, []float64{2, 2}, []float64{1, 1}, "| 0.5 | **better** |"},
		"higher is better":      {Higher, []float64{2, 2}, []float64{3, 3}, "| 1.5 | **better** |"},
		"equal":                 {Lower, []float64{2, 2}, []float64{2, 2}, "| 1 | equal |"},
		"alike":                 {Lower, []float64{100, 100}, []float64{99, 101}, "| 1 (0.99 to 1.01) | equal |"},
		"neither good nor bad":  {Neither, []float64{2, 2}, []float64{1, 1}, "| 0.5 |  |"},
		"better once":           {Lower, []float64{2, 2}, []float64{1, 2}, "| 0.75 (0.5 to 1) | **better** |"},
		"mixed":                 {Lower, []float64{2, 2}, []float64{1, 4}, "| 1.25 (0.5 to 2) | now better, now worse |"},
		"no ratio to a zero":    {Lower, []float64{0, 0}, []float64{1, 4}, "| – | worse |"},
		"a zero in one repeat":  {Lower, []float64{0, 1}, []float64{1, 4}, "| – | worse |"},
		"both are always zero":  {Lower, []float64{0, 0}, []float64{0, 0}, "| – | equal |"},
		"the peer is zero once": {Lower, []float64{1, 1}, []float64{0, 1}, "| 0.5 (0 to 1) | **better** |"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r Report
			m := Measure{Row: "(a)", What: "x", Better: c.better}
			for repeat := range c.own {
				r.Add(m, "own", "own", repeat, c.own[repeat])
				r.Add(m, "peer", "own", repeat, c.peer[repeat])
			}
			if got := write(t, &r)[1]; !strings.HasSuffix(got, c.want) {
				t.Errorf("got %s, want …%s", got, c.want)
			}
		})
	}
}

func TestTheOrderIsRowThenMeasureThenSystem(t *testing.T) {
	t.Parallel()
	r := Report{Systems: []string{"own", "peer"}}
	r.Add(Measure{Row: "(b)", What: "failed"}, "peer", "own", 0, 1)
	r.Add(Measure{Row: "(b)", What: "calls"}, "unlisted", "own", 0, 1)
	r.Add(Measure{Row: "(b)", What: "calls"}, "peer", "own", 0, 1)
	r.Add(Measure{Row: "(a)", What: "time"}, "own", "own", 0, 1)
	r.Add(Measure{Row: "(b)", What: "failed"}, "own", "own", 0, 1)
	r.Add(Measure{Row: "(b)", What: "calls"}, "own", "own", 0, 1)
	var got []string
	for _, l := range write(t, &r) {
		cells := strings.Split(l, "|")
		got = append(got, strings.Join(strings.Fields(cells[1]+cells[2]+cells[3]), " "))
	}
	want := "(a) time own; (b) calls own; peer; unlisted; (b) failed own; peer"
	if strings.Join(got, "; ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, "; "), want)
	}
}
