package wechat

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestExcerptShowsTheStructureAndNoValue(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		"": "", " \r\n": "", "{}": "{}", " {} ": "{}", "[]": "array(0)",
		`{"errcode":0,"errmsg":"ok","code":81}`:                   "{errcode: number(1), errmsg: string(2), code: number(2)}",
		`{"access_token":"97_abc","expires_in":null,"data":true}`: "{access_token: string(6), expires_in: null, data: boolean}",
		`{"ip_list":["a",1,{"x":[1,2]},[]]}`:                      "{ip_list: array(4)}",
		`{"data":{"code":"8","data":{"code":"8","x":[1]}}}`:       "{data: {code: string(1), data: object(2)}}",
		`{"secret-of-a-name":1,"\u0063ode":"8","":[]}`:            "{<16 bytes>: number(1), code: string(1), <0 bytes>: array(0)}",
		`{"errmsg":"字"}`:                        "{errmsg: string(3)}",
		"{\"errmsg\":\"a\nb\"}":                 "{errmsg: string(3)}",
		`{"errcode":0,"code":"81`:               "{errcode: number(1), code: …",
		`{"errcode":0 "code":"81"}`:             "{errcode: number(1)…",
		`{"data":[1,2`:                          "{data: …",
		"<html>login</html>":                    "a page (HTML or XML) of 18 bytes",
		"service unavailable\n":                 "text of 20 bytes",
		"ok":                                    "text of 2 bytes",
		"\x00\x01":                              "binary data of 2 bytes",
		"\x1f\x8b\x08":                          "binary data of 3 bytes",
		strings.Repeat("x", maxBody+1):          "text of more than 1 MiB",
		`{"data":` + strings.Repeat("[", 1<<19): "{data: …",
		`{"data":` + strings.Repeat(`{"data":`, 1<<16):      "{data: {data: …",
		"{" + strings.Repeat(`"data":1,`, 1<<16) + `"x":1}`: "{" + strings.Repeat("data: number(1), ", 11) + "data: num…",
	} {
		got := describe([]byte(body))
		if got != want {
			t.Errorf("%.60q is described as %q, want %q", body, got, want)
		}
		if len(got) > maxExcerpt || !utf8.ValidString(got) {
			t.Errorf("%.60q is described by %d bytes", body, len(got))
		}
	}
}

// FuzzDescribe checks that a description contains nothing of the body but names of memberNames.
func FuzzDescribe(f *testing.F) {
	f.Add([]byte(`{"errcode":0,"code":"$S","$S":["$S",{"data":"$S"}]}`))
	f.Add([]byte("<html>$S"))
	f.Add([]byte("{\"code\":\"\x01$S\\u00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		const secret = "012-SECRET"
		got := describe([]byte(strings.ReplaceAll(string(body), "$S", secret)))
		checkText(t, got)
		if len(got) > maxExcerpt || strings.Contains(got, secret) && !strings.Contains(string(body), secret) {
			t.Fatalf("%q", got)
		}
	})
}
