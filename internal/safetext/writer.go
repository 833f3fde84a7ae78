package safetext

import "io"

// Writer returns a writer for lines of text that others make, for example the lines of a log. It escapes what [Line]
// escapes, except line breaks and tabs, and cuts nothing. Each Write must have whole characters.
func Writer(w io.Writer) io.Writer { return writer{w, lines} }

// JSONWriter is [Writer] for JSON: what it writes means the same as what it is given. See [JSON].
func JSONWriter(w io.Writer) io.Writer { return writer{w, JSON} }

type writer struct {
	w    io.Writer
	safe func([]byte) []byte
}

func (w writer) Write(p []byte) (int, error) {
	if _, err := w.w.Write(w.safe(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}
