package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/messages"
)

// Editors of Windows save a byte order mark, and PowerShell writes UTF-16.
func TestRequestOfStandardInputMayHaveAByteOrderMark(t *testing.T) {
	t.Parallel()
	want := messages.ResolveCodeRequest{AppID: "wx1", OpenID: "S3-o", CodeTicket: "S3-t"}
	const text = `{"appid":"wx1","openid":"S3-o","code_ticket":"S3-t"}` + "\r\n"
	got, err := readRequest(strings.NewReader("\ufeff" + text))
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v, -want +got\n%s", err, d)
	}
	for in, want := range map[string]string{
		"\xff\xfe" + strings.Join(strings.Split(text, ""), "\x00") + "\x00": "is UTF-16: save it as UTF-8",
		strings.Join(strings.Split(text, ""), "\x00") + "\x00":              "is UTF-16: save it as UTF-8",
		`{"appid":"wx1","openid":"S3-` + "\xc6\xec\xbd\xa2\xb5\xea" + `"}`:  "probably GBK: save it as UTF-8",
	} {
		_, err := readRequest(strings.NewReader(in))
		if err == nil || !strings.Contains(err.Error(), "resolve -: standard input is") ||
			!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "S3") {
			t.Errorf("%q: %v", in, err)
		}
	}
}
