package wechattest

import (
	"fmt"
	"strings"
	"testing"
)

func TestTheSampleOfWeChatsPageResolvesForEveryAccount(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.AddAccount(Account{"wx2", "s2"})
	want := `{"errcode":0,"errmsg":"ok","code":"8","code_start":0,"code_end":200,"activity_name":"test_name",` +
		`"product_brand":"test_brand","product_title":"test_title","product_code":"test_code",` +
		`"wxa_appid":"wx3sxjifjwojfsffef","wxa_path":"pages/index/index",` +
		`"application_id":581865877,"isv_application_id":"test_id"}`
	for _, token := range []string{fx.ok(fx.classic()).AccessToken, fx.ok(fx.classicOf("wx2", "s2")).AccessToken} {
		got := fx.ok(fx.code(token, "oiV2luCau8Cx0TMOy9lvZSLqRcKc", "6cb4bc95e1f1abc97034cbe8fd484989"))
		fx.equal("body", got.body, want)
	}
}

func TestARegisteredCodeIsAnsweredUnchangedAndOnlyToItsAccount(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.AddAccount(Account{"wx2", "s2"})
	const reply = `{"errcode":0, "errmsg":"ok", "code":"012345678","application_id":18446744073709551615,"new":[1]}`
	fx.AddCode(app, "o1", "t1", []byte(reply))
	fx.AddCode("", "o1", "t2", nil)
	token, other := fx.ok(fx.classic()).AccessToken, fx.ok(fx.classicOf("wx2", "s2")).AccessToken
	fx.equal("body", fx.ok(fx.code(token, "o1", "t1")).body, reply)
	fx.refused(fx.code(other, "o1", "t1"), 40097, "invalid args")
	fx.equal("default reply", fx.ok(fx.code(other, "o1", "t2")).Code, CodeOf("t2"))
}

func TestTicketToCodeRefusesUnknownTickets(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.ok(fx.classic()).AccessToken
	fx.refused(fx.code(token, sampleOpenID, "nope"), 40097, "invalid args, ")
	fx.refused(fx.code(token, "nobody", sampleTicket), 40097, "hint: [")
	fx.refused(fx.code(token, sampleOpenID, ""), 40097, "[2026-03-02 12:00:00]")
	fx.refused(fx.code(token, "", sampleTicket), 40003, "invalid openid")
	path := "/intp/marketcode/tickettocode?access_token=" + token
	fx.refused(fx.do("POST", path, ""), 44002, "empty")
	fx.refused(fx.do("POST", path, "{"), 47001, "data format")
	fx.refused(fx.do("POST", path, `{"openid":1,"code_ticket":"x"}`), 47001, "data format")
	fx.refused(fx.do("POST", path, `{"openid":"`+strings.Repeat("o", maxBody)+`"}`), 47001, "data format")
	// WeChat does not read the token from the body.
	fx.refused(fx.do("POST", "/intp/marketcode/tickettocode", `{"access_token":"`+token+`"}`), 41001, "missing")
}

func TestAnyCodeResolvesEveryWellFormedTicket(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *Config) { c.AnyCode = true })
	token := fx.ok(fx.classic()).AccessToken
	got := fx.ok(fx.code(token, "o", "t-1"))
	fx.equal("code", got.Code, CodeOf("t-1"))
	fx.equal("length", len(got.Code), 9)
	fx.equal("sample", fx.ok(fx.code(token, sampleOpenID, sampleTicket)).Code, "8")
	for _, bad := range []string{"", "a b", "票", strings.Repeat("t", 257)} {
		fx.refused(fx.code(token, "o", bad), 40097, "invalid args")
	}
}

func BenchmarkTicketToCode(b *testing.B) {
	s := New(Config{Accounts: []Account{{app, secret}}, AnyCode: true})
	fx := &fixture{Simulator: s, t: b}
	token := fx.ok(fx.classic()).AccessToken
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			fx.ok(fx.code(token, "o", fmt.Sprint("t", i)))
		}
	})
}
