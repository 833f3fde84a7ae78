package worker

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/wxkeeper/wxkeeper/messages"
)

// signer signs for WeChat's JS-SDK with the tickets in memory. Its replies contain a ticket only as part of a
// hash. See https://developers.weixin.qq.com/doc/offiaccount/OA_Web_Apps/JS-SDK.html, appendices 1 and 4.
type signer struct {
	lookup *lookup
	now    func() time.Time
	nonce  func() string // returns another text at each call, of at most 32 letters and digits
}

// jssdk signs a URL for wx.config. Names and values are joined unchanged, in the order of the names.
func (s *signer) jssdk(ctx context.Context, a *Account, url string) (messages.JSSDKSignature, error) {
	ticket, err := s.lookup.current(ctx, a, messages.JSAPITicket)
	if err != nil {
		return messages.JSSDKSignature{}, err
	}
	sig := messages.JSSDKSignature{AppID: a.AppID, Timestamp: s.now().Unix(), NonceStr: s.nonce()}
	sig.Signature = sha1Hex("jsapi_ticket=" + ticket.Value + "&noncestr=" + sig.NonceStr +
		"&timestamp=" + strconv.FormatInt(sig.Timestamp, 10) + "&url=" + url)
	return sig, nil
}

// card signs a request that checkCard accepts.
func (s *signer) card(ctx context.Context, a *Account, req messages.SignCardRequest) (messages.CardSignature, error) {
	ticket, err := s.lookup.current(ctx, a, messages.WXCardTicket)
	if err != nil {
		return messages.CardSignature{}, err
	}
	sig := messages.CardSignature{Timestamp: strconv.FormatInt(s.now().Unix(), 10)}
	if req.Action == messages.ActionChooseCard {
		sig.CardID, sig.ShopID, sig.CardType, sig.NonceStr, sig.SignType = req.CardID, req.ShopID, req.CardType,
			s.nonce(), "SHA1"
		sig.CardSign = signCard(ticket.Value, a.AppID, sig.ShopID, sig.Timestamp, sig.NonceStr, sig.CardID,
			sig.CardType)
		return sig, nil
	}
	sig.Code, sig.OpenID, sig.ExtNonceStr = req.Code, req.OpenID, s.nonce()
	sig.FixedBeginTimestamp, sig.OuterStr = req.FixedBeginTimestamp, req.OuterStr // not signed
	sig.Signature = signCard(ticket.Value, sig.Timestamp, req.CardID, sig.Code, sig.OpenID, sig.ExtNonceStr)
	ext, err := json.Marshal(sig) // cardExt has the fields that are set until here
	if err != nil {
		return messages.CardSignature{}, err
	}
	sig.CardExt, sig.CardID = string(ext), req.CardID
	return sig, nil
}

// signCard is the signature of a card: the hash of the values without their names, sorted by their bytes.
func signCard(values ...string) string {
	slices.Sort(values)
	return sha1Hex(strings.Join(values, ""))
}

func sha1Hex(s string) string {
	sum := sha1.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

func (s *service) jssdkSign(ctx context.Context, r *request) (any, error) {
	var req messages.SignJSSDKRequest
	if err := decode(r.Data(), &req); err != nil {
		return nil, err
	}
	url, err := signedURL(req.URL)
	if err != nil {
		return nil, err
	}
	a, _, err := s.credential(r, req.AppID, messages.JSAPITicket)
	if err != nil {
		return nil, err
	}
	return s.signer.jssdk(ctx, a, url)
}

// checkText checks a text that is signed. Its error does not show the text.
func checkText(name, value string, most int) error {
	if len(value) > most {
		return messages.Errorf(messages.InvalidRequest, "%s has %d bytes, at most %d are allowed", name, len(value),
			most)
	}
	if i := strings.IndexFunc(value, unprintable); i >= 0 {
		return messages.Errorf(messages.InvalidRequest, "%s has a space or an unprintable character at byte %d", name,
			i)
	}
	return nil
}

// unprintable reports whether no URL and no code contains r. r is RuneError for bytes that are not UTF-8.
func unprintable(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || r == utf8.RuneError
}

func (s *service) cardSign(ctx context.Context, r *request) (any, error) {
	var req messages.SignCardRequest
	if err := decode(r.Data(), &req); err != nil {
		return nil, err
	}
	if err := checkCard(req); err != nil {
		return nil, err
	}
	a, _, err := s.credential(r, req.AppID, messages.WXCardTicket)
	if err != nil {
		return nil, err
	}
	return s.signer.card(ctx, a, req)
}

// checkCard checks the request of a card's signature.
func checkCard(req messages.SignCardRequest) error {
	addCard := req.Action != messages.ActionChooseCard
	switch {
	case addCard && req.Action != "" && req.Action != messages.ActionAddCard:
		return messages.Errorf(messages.InvalidRequest, "action must be %s or %s", messages.ActionAddCard,
			messages.ActionChooseCard)
	case addCard && req.CardID == "":
		return messages.Errorf(messages.InvalidRequest, "card_id is missing; it may be left out with \"action\":%q",
			messages.ActionChooseCard)
	case req.FixedBeginTimestamp < 0:
		return messages.Errorf(messages.InvalidRequest, "fixed_begintimestamp is negative")
	case !addCard && req.FixedBeginTimestamp != 0:
		return ofAnotherAction("fixed_begintimestamp", messages.ActionAddCard)
	}
	for _, f := range []struct{ name, value, action string }{
		{"card_id", req.CardID, ""},
		{"code", req.Code, messages.ActionAddCard}, {"openid", req.OpenID, messages.ActionAddCard},
		{"outer_str", req.OuterStr, messages.ActionAddCard},
		{"shop_id", req.ShopID, messages.ActionChooseCard}, {"card_type", req.CardType, messages.ActionChooseCard},
	} {
		switch {
		case f.value == "":
		case f.action != "" && addCard != (f.action == messages.ActionAddCard):
			return ofAnotherAction(f.name, f.action)
		default:
			if err := checkText(f.name, f.value, messages.MaxCardField); err != nil {
				return err
			}
		}
	}
	return nil
}

// ofAnotherAction refuses a field that the signature would not cover, because the caller believes that it does.
func ofAnotherAction(name, action string) error {
	return messages.Errorf(messages.InvalidRequest, "only the action %[2]s has the field %[1]s", name, action)
}
