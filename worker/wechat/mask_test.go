package wechat

import (
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

func TestMaskFindsEverySpelling(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"plain_SECRET-1", `a/b+c=&"<é>\ d`, "with\x00control\n"} {
		js, _ := json.Marshal(secret)
		inJSON := string(js[1 : len(js)-1])
		spelled := map[string]string{
			"plain": secret, "query": url.QueryEscape(secret), "lower query": strings.ToLower(url.QueryEscape(secret)),
			"path": url.PathEscape(secret), "JSON": inJSON, "PHP JSON": strings.ReplaceAll(inJSON, "/", `\/`),
			"Go": strings.Trim(strconv.Quote(secret), `"`), "JSON in Go": strings.Trim(strconv.Quote(inJSON), `"`),
			"printable": printable(secret),
		}
		if strings.ToLower(secret) != secret {
			delete(spelled, "lower query")
		}
		for name, s := range spelled {
			for _, text := range []string{s, "x" + s + "y", s + s, "x" + s[:len(s)-1]} {
				got := newMask(secret).line(text)
				if strings.Contains(got, printable(s[:len(s)-1])) || !strings.Contains(got, masked) {
					t.Errorf("%s of %q: %q became %q", name, secret, text, got)
				}
			}
		}
	}
}

func TestMask(t *testing.T) {
	t.Parallel()
	tests := []struct {
		secrets  []string
		in, want string
	}{
		{[]string{"abcdef", "defghi"}, "-abcdefghi-", "-[masked]-"},
		{[]string{"aaaaaa"}, "baaaaaaab", "b[masked]b"},
		{[]string{"o"}, "wrong code", "wrong code"},
		{[]string{""}, "nothing to hide", "nothing to hide"},
		{[]string{"secret"}, "sec\x00ret", "[masked]"},
		{[]string{"secret"}, "broken off in secr", "broken off in [masked]"},
		{[]string{"secret"}, "too short: sec", "too short: sec"},
		{nil, `{"wxa_appid":"wx3sxjifjwojfsffef"}`, `{"wxa_appid":"wx3sxjifjwojfsffef"}`},
	}
	for _, tt := range tests {
		if got := newMask(tt.secrets...).line(tt.in); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestAHugeTextIsMaskedQuickly(t *testing.T) {
	t.Parallel()
	got := newMask("aaaaaa").line(strings.Repeat("a", 1<<20))
	if strings.Contains(strings.ReplaceAll(got, masked, ""), "a") {
		t.Errorf("got %d bytes", len(got))
	}
}
