package report

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Better says which of two values is the better one.
type Better int

// The directions. A value that is to be known, and that is neither good nor bad by itself, has Neither.
const (
	Lower Better = iota
	Higher
	Neither
)

// alike is by how much two values may differ and still be called equal.
const alike = 0.02

// Measure names one thing that is measured of several systems.
type Measure struct {
	Row    string // (a) to (g)
	What   string // with its condition: "10 services: failed calls"
	Unit   string
	Better Better
}

// Report collects values. It is safe for concurrent use. Its zero value is ready.
type Report struct {
	// Systems is their order in the table, behind the baseline. Others come last, in the order in which they were added.
	Systems []string

	mu    sync.Mutex
	lines []*line
}

// line is one measure of one system.
type line struct {
	Measure
	system   string
	baseline string          // a system of the same measure; "": this line is a baseline
	values   map[int]float64 // by repeat
}

// Add records a value of a repeat. A system is compared with the baseline system of the same measure and repeat.
func (r *Report) Add(m Measure, system, baseline string, repeat int, value float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.find(m, system)
	if l == nil {
		l = &line{Measure: m, system: system, values: map[int]float64{}}
		if baseline != system {
			l.baseline = baseline
		}
		r.lines = append(r.lines, l)
	}
	l.values[repeat] = value
}

func (r *Report) find(m Measure, system string) *line {
	for _, l := range r.lines {
		if l.Measure == m && l.system == system {
			return l
		}
	}
	return nil
}

// Write prints the table. It is ordered by row, what was measured, and system, because rows that run at the same time
// finish in any order.
func (r *Report) Write(w io.Writer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortStableFunc(r.lines, func(a, b *line) int {
		return cmp.Or(cmp.Compare(a.Row, b.Row), cmp.Compare(a.What, b.What),
			cmp.Compare(r.place(a), r.place(b)))
	})
	var b strings.Builder
	b.WriteString("| row | what | system | median (min to max) | ratio to the first (min to max) | it is |\n")
	b.WriteString("|---|---|---|---|---|---|\n")
	var last Measure
	for _, l := range r.lines {
		row, what := l.Row, l.What
		if l.Measure == last {
			row, what = "", ""
		}
		last = l.Measure
		value := strings.TrimSpace(text(SpreadOf(l.series())) + " " + l.Unit)
		var ratios, verdict string
		if base := r.find(l.Measure, l.baseline); base != nil {
			ratios, verdict = compare(l, base)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", row, what, l.system, value, ratios, verdict)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) place(l *line) int {
	i := slices.Index(r.Systems, l.system)
	switch {
	case l.baseline == "":
		return -1
	case i < 0:
		return len(r.Systems)
	}
	return i
}

func (l *line) series() []float64 {
	var s []float64
	for _, v := range l.values {
		s = append(s, v)
	}
	return s
}

// compare returns the spread of the ratios, each within one repeat, and whether the peer is better. A baseline of 0
// has no ratio; then the values decide.
func compare(l, base *line) (ratios, verdict string) {
	var series []float64
	better, worse, zeros := 0, 0, 0
	for repeat, v := range l.values {
		b, ok := base.values[repeat]
		switch {
		case !ok:
			continue
		case b == 0:
			zeros++
		default:
			series = append(series, v/b)
		}
		switch {
		case math.Abs(v-b) <= alike*math.Abs(b):
		case (v < b) == (l.Better == Lower):
			better++
		default:
			worse++
		}
	}
	ratios = "–"
	if zeros == 0 {
		ratios = text(SpreadOf(series))
	}
	switch {
	case l.Better == Neither:
	case better > 0 && worse == 0:
		verdict = "**better**"
	case worse > 0 && better == 0:
		verdict = "worse"
	case better == 0 && worse == 0:
		verdict = "equal"
	default:
		verdict = "now better, now worse"
	}
	return ratios, verdict
}

// text returns "median (min to max)", or one number if all are the same.
func text(s Spread) string {
	low, middle, high := number(s.Min), number(s.Median), number(s.Max)
	if low == high {
		return middle
	}
	return fmt.Sprintf("%s (%s to %s)", middle, low, high)
}

// number returns three significant digits.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case a >= 999.5:
		step := math.Pow(10, math.Floor(math.Log10(a))-2)
		return thousands(strconv.FormatFloat(math.Round(v/step)*step, 'f', 0, 64))
	case a >= 99.95:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 9.995:
		return trim(strconv.FormatFloat(v, 'f', 1, 64))
	default:
		return trim(strconv.FormatFloat(v, 'f', 2, 64))
	}
}

// trim removes zeros after the decimal point.
func trim(s string) string { return strings.TrimSuffix(strings.TrimRight(s, "0"), ".") }

// thousands puts a comma before each third digit.
func thousands(s string) string {
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
