// Package report collects what was measured and prints it as one Markdown table: minimum, median and maximum over
// the repeats, and the ratio to the baseline of the same repeat.
package report
