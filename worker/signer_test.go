package worker

import (
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/natstest"
	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// signing is a service that signs with given tickets, at a given second, with a given nonce.
func signing(t *testing.T, jsapi, card string, second int64, nonce string) *service {
	t.Helper()
	now := func() time.Time { return time.Unix(second, 999_999_999) }
	reader, err := kv.NewReader(natstest.Start(t).Connect(), kv.ReaderConfig{Now: now}) // it does not run: it is told
	if err != nil {
		t.Fatal(err)
	}
	for kind, value := range map[messages.Kind]string{messages.JSAPITicket: jsapi, messages.WXCardTicket: card} {
		reader.Apply(messages.Credential{
			AppID: appid, Kind: kind, Value: value, ObtainedAt: now(), ExpiresAt: now().Add(time.Hour), Generation: 1, Revision: 1,
		})
	}
	s := &service{accounts: new(accounts), signer: &signer{lookup: &lookup{reader: reader}, now: now, nonce: func() string { return nonce }}}
	if err := s.accounts.set([]Account{{AppID: appid, Secret: secret, Tickets: []messages.Kind{messages.JSAPITicket, messages.WXCardTicket}}}); err != nil {
		t.Fatal(err)
	}
	return s
}

func replyText(t *testing.T, f answer, request string) string {
	t.Helper()
	reply, err := f(t.Context(), "", []byte(request))
	if err != nil {
		t.Errorf("%s: %v", request, err)
		return ""
	}
	text, err := json.Marshal(reply)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

// The examples of the JS-SDK's page: appendix 1 as it is now, and as it was in 2015. The rest is made of them.
func TestJSSDKSignaturesAreThoseOfWeChatsExamples(t *testing.T) {
	t.Parallel()
	const ticket = "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg"
	s := signing(t, ticket, "x", 1414587457, "Wm3WZYTPz0wzccnW")
	for url, want := range map[string]string{
		`http://mp.weixin.qq.com?params=value`:                "0f9de62fce790f9a083d5c99e95740ceb90c27ed",
		`http://mp.weixin.qq.com?params=value#`:               "0f9de62fce790f9a083d5c99e95740ceb90c27ed",
		`http://mp.weixin.qq.com?params=value#/a?b#c`:         "0f9de62fce790f9a083d5c99e95740ceb90c27ed",
		`http://mp.weixin.qq.com`:                             "f4d90daf4b3bca3078ab155816175ba34c443a7b",
		`https://MP.example.com:443/%e4%bd%A0/../好?a=%zz+|&b`: sha1Of("jsapi_ticket=" + ticket + "&noncestr=Wm3WZYTPz0wzccnW&timestamp=1414587457&url=https://MP.example.com:443/%e4%bd%A0/../好?a=%zz+|&b"),
	} {
		got := replyText(t, s.jssdkSign, fmt.Sprintf(`{"url":%q}`, url))
		if want := `{"appId":"` + appid + `","timestamp":1414587457,"nonceStr":"Wm3WZYTPz0wzccnW","signature":"` + want + `"}`; got != want {
			t.Errorf("%s:\n got %s\nwant %s", url, got, want)
		}
	}
}

// The first is the example of appendix 4; the others are its values with what else is signed, by sha1sum.
func TestCardSignaturesAreThoseOfWeChatsExample(t *testing.T) {
	t.Parallel()
	s := signing(t, "x", "ojZ8YtyVyr30HheH3CM73y7h4jJE", 1404896688, "123")
	const cardID = "pjZ8Yt1XGILfi-FUsewpnnolGgZk"
	addCard := func(ext string) string {
		quoted, err := json.Marshal(ext)
		if err != nil {
			t.Fatal(err)
		}
		return `{"cardId":"` + cardID + `","timestamp":"1404896688","cardExt":` + string(quoted) + strings.TrimPrefix(ext, `{"timestamp":"1404896688"`)
	}
	for _, tc := range []struct{ request, want string }{
		{
			`{"card_id":"` + cardID + `","code":"1434008071"}`,
			addCard(`{"timestamp":"1404896688","code":"1434008071","nonce_str":"123","signature":"f137ab68b7f8112d20ee528ab6074564e2796250"}`),
		}, {
			`{"action":"addCard","card_id":"` + cardID + `","code":"1434008071","openid":"oaBopenid","outer_str":"海报","fixed_begintimestamp":1404896000}`,
			addCard(`{"timestamp":"1404896688","code":"1434008071","openid":"oaBopenid","nonce_str":"123","fixed_begintimestamp":1404896000,"outer_str":"海报","signature":"dc3454cff3e9a87aec145d98d48270e716a7ee02"}`),
		}, { // in the order of bytes: "1" < "G" < "_" < "o" < "p" < "w"
			`{"action":"chooseCard","card_id":"` + cardID + `","card_type":"GROUPON","shop_id":"_shop-"}`,
			`{"cardId":"` + cardID + `","timestamp":"1404896688","shopId":"_shop-","cardType":"GROUPON","nonceStr":"123","signType":"SHA1","cardSign":"545a74b1979740ee2b6774e2523faee5651f1d7e"}`,
		}, {
			`{"action":"chooseCard"}`,
			`{"timestamp":"1404896688","nonceStr":"123","signType":"SHA1","cardSign":"d77911a08af5626f6c6b57e91069eda6acaf1384"}`,
		},
	} {
		if got := replyText(t, s.cardSign, tc.request); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.request, got, tc.want)
		}
	}
}

func sha1Of(s string) string {
	sum := sha1.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

// What a service in any language does: JSON in, JSON out, on both subjects.
func TestSignsOverNATSWithTheTicketsOfTheBucket(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	w := s.worker(everything)
	jsapi, card := w.await(messages.JSAPITicket, 0).Value, w.await(messages.WXCardTicket, 0).Value
	before, began := s.wechat.Calls("", ""), time.Now().Unix()
	seen := map[string]bool{}
	ask := func(subject, request string, reply any) {
		t.Helper()
		m, err := w.nc.Request("wechat."+subject, []byte(request), patience)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(m.Data, reply); err != nil || m.Header.Get(messages.HeaderErrorCode) != "" {
			t.Fatalf("%s %s: %s, %v", subject, request, m.Data, err)
		}
		if text := string(m.Data); strings.Contains(text, jsapi) || strings.Contains(text, card) {
			t.Errorf("the reply of %s shows a ticket", subject)
		}
	}
	fresh := func(nonce string, timestamp int64) {
		t.Helper()
		if now := time.Now().Unix(); timestamp < began || timestamp > now {
			t.Errorf("timestamp %d, the time is %d to %d", timestamp, began, now)
		}
		if len(nonce) < 16 || len(nonce) > 32 || seen[nonce] {
			t.Errorf("nonce %q: too short, too long, or not new", nonce)
		}
		seen[nonce] = true
	}
	for range 2 {
		for _, suffix := range []string{"", "." + appid} {
			var page struct {
				AppID, NonceStr, Signature string
				Timestamp                  int64
			}
			ask("jssdk.sign"+suffix, `{"url":"https://shop.example.com/p?id=1&from=2#comments"}`, &page)
			fresh(page.NonceStr, page.Timestamp)
			want := fmt.Sprintf("jsapi_ticket=%s&noncestr=%s&timestamp=%d&url=https://shop.example.com/p?id=1&from=2", jsapi, page.NonceStr, page.Timestamp)
			if page.Signature != sha1Of(want) || page.AppID != appid {
				t.Errorf("%+v", page)
			}

			var add struct{ CardID, CardExt string }
			ask("card.sign"+suffix, `{"card_id":"pCard","code":"0071","openid":"`+openid+`"}`, &add)
			var ext struct {
				Code, OpenID, Signature string
				Timestamp               int64  `json:",string"`
				NonceStr                string `json:"nonce_str"`
			}
			if err := json.Unmarshal([]byte(add.CardExt), &ext); err != nil {
				t.Fatalf("%q: %v", add.CardExt, err)
			}
			fresh(ext.NonceStr, ext.Timestamp)
			if ext.Signature != sortedSHA1(card, "pCard", "0071", openid, fmt.Sprint(ext.Timestamp), ext.NonceStr) || ext.Code != "0071" || ext.OpenID != openid || add.CardID != "pCard" {
				t.Errorf("%+v %+v", add, ext)
			}

			var choice struct {
				CardID, CardType, NonceStr, SignType, CardSign string
				Timestamp                                      int64 `json:",string"`
			}
			ask("card.sign"+suffix, `{"action":"chooseCard","card_type":"CASH"}`, &choice)
			fresh(choice.NonceStr, choice.Timestamp)
			if choice.CardSign != sortedSHA1(card, appid, "CASH", fmt.Sprint(choice.Timestamp), choice.NonceStr) || choice.SignType != "SHA1" {
				t.Errorf("%+v", choice)
			}
		}
	}
	page, err := w.client.SignJSSDK(s.context(), messages.SignJSSDKRequest{AppID: appid, URL: "https://a.example"})
	if err != nil || page.Signature != sha1Of(fmt.Sprintf("jsapi_ticket=%s&noncestr=%s&timestamp=%d&url=https://a.example", jsapi, page.NonceStr, page.Timestamp)) {
		t.Errorf("the client: %+v, %v", page, err)
	}
	add, err := w.client.SignCard(s.context(), messages.SignCardRequest{AppID: appid, CardID: "pCard"})
	if err != nil || add.Signature != sortedSHA1(card, "pCard", add.Timestamp, add.ExtNonceStr) {
		t.Errorf("the client: %+v, %v", add, err)
	}
	if n := s.wechat.Calls("", "") - before; n != 0 {
		t.Errorf("%d upstream calls for signatures", n)
	}
}

func sortedSHA1(values ...string) string {
	slices.Sort(values)
	return sha1Of(strings.Join(values, ""))
}

func TestWithoutALivingTicketNothingIsSigned(t *testing.T) {
	t.Parallel()
	s := newStage(t, wechattest.Config{})
	s.wechat.Inject(wechattest.Fault{Endpoint: "getticket", Errcode: 48001})
	w := s.worker(everything)
	w.await(messages.AccessToken, 0)
	s.eventually("both tickets are refused", func() bool { return s.wechat.Calls("", "getticket") == 2 })
	if got, err := w.client.SignJSSDK(s.context(), messages.SignJSSDKRequest{URL: "https://a.example"}); symbol(err) != messages.NoCredential {
		t.Errorf("%+v, %v; want no_credential", got, err)
	}
	if got, err := w.client.SignCard(s.context(), messages.SignCardRequest{CardID: "pCard"}); symbol(err) != messages.NoCredential {
		t.Errorf("%+v, %v; want no_credential", got, err)
	}
}
