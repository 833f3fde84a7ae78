package wechat

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
)

// codings are the content codings that an error names. The header is text from elsewhere, so others are not shown.
var codings = []string{"gzip", "x-gzip", "deflate", "br", "zstd", "compress"}

// contentCoding returns the content coding of an answer, in words: by its header, or by the first bytes of a gzip
// body; "" if there is none.
func contentCoding(h http.Header, body []byte) string {
	var named []string
	for field := range strings.SplitSeq(strings.Join(h.Values("Content-Encoding"), ","), ",") {
		switch field = strings.ToLower(strings.TrimSpace(field)); {
		case field == "", field == "identity":
		case slices.Contains(codings, field):
			named = append(named, field)
		default:
			named = append(named, "unknown")
		}
	}
	if len(named) == 0 && bytes.HasPrefix(body, []byte("\x1f\x8b")) {
		return "gzip"
	}
	return strings.Join(named[:min(len(named), 3)], ", ")
}

// nameCoding says in the error of an answer that could not be read that the answer is compressed.
func (e *Error) nameCoding(coding string) {
	if coding == "" {
		return
	}
	e.Err = &cause{text: "its content coding is " + coding + ", and the request allows identity only"}
	e.Advice = adviceCoding
}
