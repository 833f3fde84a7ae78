package wechattest

import (
	"fmt"
	"strings"
	"testing"
)

func TestTheSampleOfTheSeedResolvesForEveryAccount(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.AddAccount(Account{"wx2", "s2"})
	want := `{"errcode":0,"errmsg":"ok","code":"8","code_start":0,"code_end":200,"activity_name":"test_name",` +
		`"product_brand":"test_brand","product_title":"test_title","product_code":"test_code","wxa_appid":"wx3sxjifjwojfsffef",` +
		`"wxa_path":"pages/index/index","application_id":581865877,"isv_application_id":"test_id"}`
	for _, token := range []string{h.ok(h.classic()).AccessToken, h.ok(h.classicOf("wx2", "s2")).AccessToken} {
		got := h.ok(h.code(token, "oiV2luCau8Cx0TMOy9lvZSLqRcKc", "6cb4bc95e1f1abc97034cbe8fd484989"))
		h.equal("body", got.body, want)
	}
}

func TestARegisteredCodeIsAnsweredVerbatimToItsAccountAlone(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.AddAccount(Account{"wx2", "s2"})
	const reply = `{"errcode":0, "errmsg":"ok", "code":"012345678","application_id":18446744073709551615,"new":[1]}`
	h.AddCode(app, "o1", "t1", []byte(reply))
	h.AddCode("", "o1", "t2", nil)
	token, other := h.ok(h.classic()).AccessToken, h.ok(h.classicOf("wx2", "s2")).AccessToken
	h.equal("body", h.ok(h.code(token, "o1", "t1")).body, reply)
	h.refused(h.code(other, "o1", "t1"), 40097, "invalid args")
	h.equal("default reply", h.ok(h.code(other, "o1", "t2")).Code, CodeOf("t2"))
}

func TestTicketToCodeRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	token := h.ok(h.classic()).AccessToken
	h.refused(h.code(token, sampleOpenID, "nope"), 40097, "invalid args, ")
	h.refused(h.code(token, "nobody", sampleTicket), 40097, "hint: [")
	h.refused(h.code(token, sampleOpenID, ""), 40097, "[2026-03-02 12:00:00]")
	h.refused(h.code(token, "", sampleTicket), 40003, "invalid openid")
	path := "/intp/marketcode/tickettocode?access_token=" + token
	h.refused(h.do("POST", path, ""), 44002, "empty")
	h.refused(h.do("POST", path, "{"), 47001, "data format")
	h.refused(h.do("POST", path, `{"openid":1,"code_ticket":"x"}`), 47001, "data format")
	h.refused(h.do("POST", path, `{"openid":"`+strings.Repeat("o", maxBody)+`"}`), 47001, "data format")
	// The token in the body is not where WeChat looks for it.
	h.refused(h.do("POST", "/intp/marketcode/tickettocode", `{"access_token":"`+token+`"}`), 41001, "missing")
}

func TestAnyCodeResolvesEveryWellFormedTicket(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.AnyCode = true })
	token := h.ok(h.classic()).AccessToken
	got := h.ok(h.code(token, "o", "t-1"))
	h.equal("code", got.Code, CodeOf("t-1"))
	h.equal("length", len(got.Code), 9)
	h.equal("sample", h.ok(h.code(token, sampleOpenID, sampleTicket)).Code, "8")
	for _, bad := range []string{"", "a b", "票", strings.Repeat("t", 257)} {
		h.refused(h.code(token, "o", bad), 40097, "invalid args")
	}
}

func BenchmarkTicketToCode(b *testing.B) {
	s := New(Config{Accounts: []Account{{app, secret}}, AnyCode: true})
	h := &house{Simulator: s, t: b}
	token := h.ok(h.classic()).AccessToken
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			h.ok(h.code(token, "o", fmt.Sprint("t", i)))
		}
	})
}
