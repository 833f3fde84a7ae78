package wechat

import (
	"reflect"
	"strings"
	"testing"
)

func TestRIDIsTakenOutOfErrmsg(t *testing.T) {
	t.Parallel()
	const rid = "663ddb36-1f2a3b4c-5d6e7f80"
	tests := []struct{ in, rest, rid string }{
		{"invalid credential rid: " + rid, "invalid credential", rid},
		{"invalid credential, rid: " + rid, "invalid credential", rid},
		{"invalid credential rid:" + rid + ".", "invalid credential.", rid},
		{"rid: " + rid, "", rid},
		{"a rid: " + rid + " b", "a b", rid},
		{"grid: " + rid, "grid: " + rid, ""},
		{"rid: 1-2-3", "rid: 1-2-3", ""},
		{"invalid appid", "invalid appid", ""},
		{"", "", ""},
	}
	for _, tt := range tests {
		if rest, rid := splitRID(tt.in); rest != tt.rest || rid != tt.rid {
			t.Errorf("%q: got %q, %q", tt.in, rest, rid)
		}
	}
}

func TestIPsAreFoundInErrmsg(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want []string
	}{
		{"invalid ip 8.149.1.2 ipv6 ::ffff:8.149.1.2, not in whitelist", []string{"8.149.1.2"}},
		{"invalid ip 8.149.1.2, not in whitelist", []string{"8.149.1.2"}},
		{"invalid ip 2408:4004:1::2, not in whitelist", []string{"2408:4004:1::2"}},
		{"invalid ip 8.149.1.2 ipv6 2408:4004:1::2, not in whitelist", []string{"8.149.1.2", "2408:4004:1::2"}},
		{"invalid ip:8.149.1.2.", []string{"8.149.1.2"}},
		{"ipv6:2408::1", []string{"2408::1"}},
		{"ip [8.149.1.2]:4711 ", []string{"8.149.1.2"}},
		{"ip 8.149.1.2:4711", []string{"8.149.1.2"}},
		{"调用IP：8.149.1.2，不在白名单", []string{"8.149.1.2"}},
		{"invalid ip 8.149.x.x ipv6 ::ffff:8.149.x.x, not in whitelist", nil},
		{"hint: [a1][2024-05-10 16:31:02]", nil},
		{"0.0.0.0 ::", nil},
		{"", nil},
	}
	for _, tt := range tests {
		if got := findIPs(tt.in); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: got %v, want %v", tt.in, got, tt.want)
		}
	}
	contains(t, "words without an IP", nameIPs("not in whitelist"), "public IP of this machine")
	equal(t, "words for two IPs", nameIPs("8.149.1.2 2408::1"), "8.149.1.2 and 2408::1")
}

func TestForeignTextBecomesOneSafeLine(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want string }{
		{" a\r\n\tb \x00c\x1b[31m\x7f\u0085 ", "a b c[31m"},
		{"invisible\u200b\u202e\ufeff", "invisible"},
		{"bad \xff utf-8", "bad \uFFFD utf-8"},
		{"无效的", "无效的"},
	}
	for _, tt := range tests {
		if got := printable(tt.in); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
	equal(t, "clip", clip("ab无", 4), "ab")
}

func TestErrmsgIsBounded(t *testing.T) {
	t.Parallel()
	body := `{"errcode":40013,"errmsg":"` + strings.Repeat("无", 1000) + `"}`
	_, err := serveBody(t, 200, body).Token(t.Context(), testAppID, testSecret)
	equal(t, "errmsg", failure(t, err).Errmsg, strings.Repeat("无", 255/len("无")))
}
