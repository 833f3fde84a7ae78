package report

import (
	"math"
	"slices"
)

// Spread is the minimum, median and maximum of a series.
type Spread struct{ Min, Median, Max float64 }

// SpreadOf returns the spread of a series. Of an empty series all three are NaN.
func SpreadOf(series []float64) Spread {
	if len(series) == 0 {
		return Spread{math.NaN(), math.NaN(), math.NaN()}
	}
	return Spread{Quantile(series, 0), Quantile(series, 0.5), Quantile(series, 1)}
}

// Quantile returns the q-quantile (0 to 1) of a series that is not empty. Between two values it interpolates
// linearly. The series is not changed.
func Quantile(series []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(series))
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}
