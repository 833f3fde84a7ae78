package safetext

import (
	"io"
	"strings"

	"golang.org/x/text/width"
)

// Table writes rows in columns, with two spaces between them. The cells are made safe. A Chinese character takes the
// place of two others on a terminal, and the columns allow for that (Unicode UAX 11). The last column is not padded.
func Table(w io.Writer, rows [][]string) error {
	var widths []int
	for i, row := range rows {
		rows[i] = make([]string, len(row))
		for j, cell := range row {
			rows[i][j] = Line(cell)
			if j == len(widths) {
				widths = append(widths, 0)
			}
			widths[j] = max(widths[j], columns(rows[i][j]))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for j, cell := range row {
			b.WriteString(cell)
			if j < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[j]-columns(cell)+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// columns is the width of a text on a terminal.
func columns(text string) (n int) {
	for _, r := range text {
		n++
		if kind := width.LookupRune(r).Kind(); kind == width.EastAsianWide || kind == width.EastAsianFullwidth {
			n++
		}
	}
	return n
}
