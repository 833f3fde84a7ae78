package wechat

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func compressed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A relay that compresses although the request allows identity only: the error names the coding, and says what to do.
func TestErrorNamesTheCodingOfACompressedAnswer(t *testing.T) {
	t.Parallel()
	zipped := compressed(t, anyAnswer)
	for _, tt := range []struct{ header, body, want string }{
		{"gzip", zipped, "gzip"}, {"GZip", zipped, "gzip"}, {"", zipped, "gzip"}, {"br", "\x8b\x00\x80", "br"},
		{"gzip, br", "\x8b", "gzip, br"}, {"rot13-" + testToken, "\x8b", "unknown"},
		{strings.Repeat("zstd,", 99), "\x8b", "zstd, zstd, zstd"},
	} {
		for endpoint, call := range endpoints {
			for _, status := range []int{200, 502} {
				c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
					if tt.header != "" {
						w.Header().Set("Content-Encoding", tt.header)
					}
					w.WriteHeader(status)
					_, _ = w.Write([]byte(tt.body))
				})
				_, err := call(c, t.Context())
				e := failure(t, err)
				what := fmt.Sprintf("%s, %q, HTTP %d: ", endpoint, tt.header, status)
				contains(t, what+"error", err.Error(), ": its content coding is "+tt.want+", and the request allows identity only")
				equal(t, what+"advice", e.Advice, adviceCoding)
				equal(t, what+"class", e.Class, map[int]Class{200: ClassBroken, 502: ClassServer}[status])
			}
		}
	}
}

// An answer that can be read is read, whatever its headers say.
func TestAnswerThatIsNotCompressedIsReadWhateverItsCodingSays(t *testing.T) {
	t.Parallel()
	for _, coding := range []string{"identity", "gzip", ""} {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", coding)
			_, _ = w.Write([]byte(anyAnswer))
		})
		for endpoint, call := range endpoints {
			if _, err := call(c, t.Context()); err != nil {
				t.Errorf("%s, %q: %v", endpoint, coding, err)
			}
		}
	}
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write([]byte(`{"errcode":40013,"errmsg":"invalid appid"}`))
	})
	_, err := c.Token(t.Context(), testAppID, testSecret)
	equal(t, "error", err.Error(), `token: WeChat refused: errcode 40013 "invalid appid"`)
}
