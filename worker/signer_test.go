package worker

import (
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat/wechattest"
)

// newSigningService makes a service that signs with given tickets, at a given second, with a given nonce.
func newSigningService(t *testing.T, jsapi, card string, second int64, nonce string) *service {
	t.Helper()
	now := func() time.Time { return time.Unix(second, 999_999_999) }
	m := newMemory(now, slog.New(slog.DiscardHandler))
	for kind, value := range map[messages.Kind]string{messages.JSAPITicket: jsapi, messages.WXCardTicket: card} {
		m.hold(messages.Credential{
			AppID: appid, Kind: kind, Value: value,
			ObtainedAt: now(), ExpiresAt: now().Add(time.Hour), Generation: 1, Revision: 1,
		})
	}
	signs := &signer{lookup: &lookup{memory: m}, now: now, nonce: func() string { return nonce }}
	s := &service{accounts: new(accounts), signer: signs}
	a := Account{AppID: appid, Secret: secret, Tickets: []messages.Kind{messages.JSAPITicket, messages.WXCardTicket}}
	if err := s.accounts.set([]Account{a}); err != nil {
		t.Fatal(err)
	}
	return s
}

// requestOf is a request that was not sent.
type requestOf struct {
	micro.Request
	data, reply string
}

func (r requestOf) Data() []byte  { return []byte(r.data) }
func (r requestOf) Reply() string { return r.reply }

// replyText is the JSON of the reply to a request.
func replyText(t *testing.T, f answer, body string) string {
	t.Helper()
	reply, err := f(t.Context(), &request{Request: requestOf{data: body}})
	if err != nil {
		t.Errorf("%s: %v", body, err)
		return ""
	}
	text, err := json.Marshal(reply)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

// The examples of WeChat's JS-SDK page, appendix 1: as it is now, and as it was in 2015. The other rows are
// derived from them.
func TestJSSDKSignaturesAreThoseOfWeChatsExamples(t *testing.T) {
	t.Parallel()
	const ticket = "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg"
	const nonce = "Wm3WZYTPz0wzccnW"
	s := newSigningService(t, ticket, "x", 1414587457, nonce)
	a := s.accounts.only()
	for url, want := range map[string]string{ // no browser shows these URLs: a request for them is signed with a path
		`http://mp.weixin.qq.com?params=value`: "0f9de62fce790f9a083d5c99e95740ceb90c27ed",
		`http://mp.weixin.qq.com`:              "f4d90daf4b3bca3078ab155816175ba34c443a7b",
	} {
		if sig, err := s.signer.jssdk(t.Context(), a, url); err != nil || sig.Signature != want {
			t.Errorf("%s: %+v, %v, want the signature %s", url, sig, err, want)
		}
	}
	const page = "https://shop.example.com/%e4%bd%A0?a=%zz+|&b"
	want := fmt.Sprintf(`{"appId":%q,"timestamp":1414587457,"nonceStr":%q,"signature":%q}`, appid, nonce,
		sha1Of("jsapi_ticket="+ticket+"&noncestr="+nonce+"&timestamp=1414587457&url="+page))
	for _, url := range []string{page, page + "#", page + "#/a?b#c", "HTTPS://Shop.example.com:443" + page[24:]} {
		checkDiff(t, url, replyText(t, s.jssdkSign, fmt.Sprintf(`{"url":%q}`, url)), want)
	}
}

// The first row is the example of appendix 4. The other rows add the other values that are signed; their
// signatures were made with sha1sum.
func TestCardSignaturesAreThoseOfWeChatsExample(t *testing.T) {
	t.Parallel()
	s := newSigningService(t, "x", "ojZ8YtyVyr30HheH3CM73y7h4jJE", 1404896688, "123")
	const cardID = "pjZ8Yt1XGILfi-FUsewpnnolGgZk"
	const timestamp = `"timestamp":"1404896688"`
	// addCard is the reply whose cardExt has these fields after the timestamp.
	addCard := func(fields string) string {
		ext, err := json.Marshal("{" + timestamp + fields + "}")
		if err != nil {
			t.Fatal(err)
		}
		return `{"cardId":"` + cardID + `",` + timestamp + `,"cardExt":` + string(ext) + fields + `}`
	}
	for _, tc := range []struct{ request, want string }{
		{
			`{"card_id":"` + cardID + `","code":"1434008071"}`,
			addCard(`,"code":"1434008071","nonce_str":"123","signature":"f137ab68b7f8112d20ee528ab6074564e2796250"`),
		}, {
			`{"action":"addCard","card_id":"` + cardID + `","code":"1434008071","openid":"oaBopenid","outer_str":"海报",` +
				`"fixed_begintimestamp":1404896000}`,
			addCard(`,"code":"1434008071","openid":"oaBopenid","nonce_str":"123","fixed_begintimestamp":1404896000,` +
				`"outer_str":"海报","signature":"dc3454cff3e9a87aec145d98d48270e716a7ee02"`),
		}, { // sorted by their bytes: "1" < "G" < "_" < "o" < "p" < "w"
			`{"action":"chooseCard","card_id":"` + cardID + `","card_type":"GROUPON","shop_id":"_shop-"}`,
			`{"cardId":"` + cardID + `",` + timestamp + `,"shopId":"_shop-","cardType":"GROUPON","nonceStr":"123",` +
				`"signType":"SHA1","cardSign":"545a74b1979740ee2b6774e2523faee5651f1d7e"}`,
		}, {
			`{"action":"chooseCard"}`,
			`{` + timestamp + `,"nonceStr":"123","signType":"SHA1","cardSign":"d77911a08af5626f6c6b57e91069eda6acaf1384"}`,
		},
	} {
		checkDiff(t, tc.request, replyText(t, s.cardSign, tc.request), tc.want)
	}
}

func sha1Of(s string) string {
	sum := sha1.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

func sortedSHA1(values ...string) string {
	slices.Sort(values)
	return sha1Of(strings.Join(values, ""))
}

// The requests of a service in any language: JSON in, JSON out, on both subjects.
func TestSignsOverNATSWithTheTicketsOfTheBucket(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.clock.stop()
	w := f.worker(everything)
	jsapi, card := w.await(messages.JSAPITicket, 0).Value, w.await(messages.WXCardTicket, 0).Value
	calls, now := f.calls(""), f.clock.Now().Unix()
	ask := func(subject, request string, reply any) {
		t.Helper()
		m, err := w.nc.Request("wechat."+subject, []byte(request), patience)
		if err != nil {
			t.Fatal(err)
		}
		if m.Header.Get(messages.HeaderErrorCode) != "" {
			t.Fatalf("%s %s is refused: %s", subject, request, m.Data)
		}
		if err := json.Unmarshal(m.Data, reply); err != nil {
			t.Fatalf("%s %s: %s: %v", subject, request, m.Data, err)
		}
		for _, ticket := range []string{jsapi, card} {
			if strings.Contains(string(m.Data), ticket) {
				t.Errorf("the reply of %s contains a ticket", subject)
			}
		}
	}
	seen := map[string]bool{}
	checkFresh := func(nonce string, timestamp int64) {
		t.Helper()
		if timestamp != now {
			t.Errorf("the timestamp is %d, want %d", timestamp, now)
		}
		if len(nonce) < 16 || len(nonce) > 32 {
			t.Errorf("the nonce %q has %d characters, want 16 to 32", nonce, len(nonce))
		}
		if seen[nonce] {
			t.Errorf("the nonce %q was used before", nonce)
		}
		seen[nonce] = true
	}
	for range 2 {
		for _, suffix := range []string{"", "." + appid} {
			type page struct {
				AppID, NonceStr, Signature string
				Timestamp                  int64
			}
			var p page
			ask("jssdk.sign"+suffix, `{"url":"https://shop.example.com/p?id=1&from=2#comments"}`, &p)
			checkFresh(p.NonceStr, p.Timestamp)
			checkDiff(t, "jssdk.sign", p, page{appid, p.NonceStr, sha1Of(fmt.Sprintf(
				"jsapi_ticket=%s&noncestr=%s&timestamp=%d&url=https://shop.example.com/p?id=1&from=2", jsapi,
				p.NonceStr, now)), now})

			var add struct{ CardID, CardExt string }
			ask("card.sign"+suffix, `{"card_id":"pCard","code":"0071","openid":"`+openid+`"}`, &add)
			if add.CardID != "pCard" {
				t.Errorf("the card is %q, want pCard", add.CardID)
			}
			type extension struct {
				Code, OpenID, Signature string
				Timestamp               int64  `json:",string"`
				NonceStr                string `json:"nonce_str"`
			}
			var ext extension
			if err := json.Unmarshal([]byte(add.CardExt), &ext); err != nil {
				t.Fatalf("cardExt %q: %v", add.CardExt, err)
			}
			checkFresh(ext.NonceStr, ext.Timestamp)
			signature := sortedSHA1(card, "pCard", "0071", openid, fmt.Sprint(now), ext.NonceStr)
			checkDiff(t, "cardExt", ext, extension{"0071", openid, signature, now, ext.NonceStr})

			type choice struct {
				CardID, CardType, NonceStr, SignType, CardSign string
				Timestamp                                      int64 `json:",string"`
			}
			var c choice
			ask("card.sign"+suffix, `{"action":"chooseCard","card_type":"CASH"}`, &c)
			checkFresh(c.NonceStr, c.Timestamp)
			signature = sortedSHA1(card, appid, "CASH", fmt.Sprint(now), c.NonceStr)
			checkDiff(t, "chooseCard", c, choice{"", "CASH", c.NonceStr, "SHA1", signature, now})
		}
	}
	page, err := w.client.SignJSSDK(f.context(), messages.SignJSSDKRequest{AppID: appid, URL: "https://a.example"})
	if err != nil {
		t.Fatal(err)
	}
	checkDiff(t, "the signature that the client returns", page.Signature, sha1Of(fmt.Sprintf(
		"jsapi_ticket=%s&noncestr=%s&timestamp=%d&url=https://a.example/", jsapi, page.NonceStr, page.Timestamp)))
	add, err := w.client.SignCard(f.context(), messages.SignCardRequest{AppID: appid, CardID: "pCard"})
	if err != nil {
		t.Fatal(err)
	}
	checkDiff(t, "the signature of the card that the client returns",
		add.Signature, sortedSHA1(card, "pCard", add.Timestamp, add.ExtNonceStr))
	f.checkCalls("", calls)
}

func TestWithoutALivingTicketNothingIsSigned(t *testing.T) {
	t.Parallel()
	f := newFixture(t, wechattest.Config{})
	f.wechat.Inject(wechattest.Fault{Endpoint: "getticket", Errcode: 48001})
	w := f.worker(everything)
	w.await(messages.AccessToken, 0)
	f.eventually("both tickets are refused", func() bool { return f.calls("getticket") == 2 })
	_, err := w.client.SignJSSDK(f.context(), messages.SignJSSDKRequest{URL: "https://a.example"})
	checkSymbol(t, "jssdk.sign", err, messages.NoCredential)
	_, err = w.client.SignCard(f.context(), messages.SignCardRequest{CardID: "pCard"})
	checkSymbol(t, "card.sign", err, messages.NoCredential)
}
