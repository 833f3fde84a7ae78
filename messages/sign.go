package messages

// The largest sizes of the fields of a request for a signature, in bytes.
const (
	MaxURL       = 8 << 10
	MaxCardField = 128 // each text of a SignCardRequest
)

// SignJSSDKRequest asks for the signature of a web page, for wx.config of WeChat's JS-SDK.
//
// The reply is [JSSDKSignature].
type SignJSSDKRequest struct {
	// AppID is the account. It may be left out if the subject names it, or if the workers keep one account.
	AppID string `json:"appid,omitempty"`
	// URL is the address of the page exactly as the browser shows it in location.href; do not URL-encode it
	// again. It is signed without the fragment: "#" and everything after it are removed. What is built from its
	// parts is signed as a browser shows it: scheme and host in lower case, without the default port, with a path.
	// What no browser shows is refused.
	URL string `json:"url"`
}

// JSSDKSignature is the reply to jssdk.sign. It has the fields of wx.config, in WeChat's spelling: copy them
// unchanged.
type JSSDKSignature struct {
	AppID string `json:"appId"`
	// Timestamp is in seconds since 1970. It is a JSON number, as wx.config expects it.
	Timestamp int64  `json:"timestamp"`
	NonceStr  string `json:"nonceStr"`
	Signature string `json:"signature"`
}

// The actions of [SignCardRequest]: functions of the JS-SDK that need a signature with the wx_card_ticket. They
// sign different values, so a signature for one action is not valid for the other.
const (
	ActionAddCard    = "addCard"
	ActionChooseCard = "chooseCard"
)

// SignCardRequest asks for the signature of one card (action addCard), or of a choice among the user's cards
// (action chooseCard). A field of the other action is refused, because the signature would not cover it. An
// empty field is not signed.
//
// The reply is [CardSignature].
type SignCardRequest struct {
	// AppID is the account. It may be left out if the subject names it, or if the workers keep one account.
	AppID string `json:"appid,omitempty"`
	// Action is addCard or chooseCard. If it is left out, it is addCard.
	Action string `json:"action,omitempty"`
	// CardID is the card to add. For chooseCard it is the only card that is shown; it may be left out.
	CardID string `json:"card_id,omitempty"`

	// Code is for addCard: the code of the card, if the merchant sets the codes of its cards.
	Code string `json:"code,omitempty"`
	// OpenID is for addCard: the openid of the user, if the card is bound to one user.
	OpenID string `json:"openid,omitempty"`
	// FixedBeginTimestamp is for addCard: the time at which the user received the card, in seconds since 1970.
	// It is not signed.
	FixedBeginTimestamp int64 `json:"fixed_begintimestamp,omitempty"`
	// OuterStr is for addCard: the channel through which the user received the card. It is not signed.
	OuterStr string `json:"outer_str,omitempty"`

	// ShopID is for chooseCard: the shop whose cards are shown. WeChat also calls it location_id.
	ShopID string `json:"shop_id,omitempty"`
	// CardType is for chooseCard: the type of the cards that are shown.
	CardType string `json:"card_type,omitempty"`
}

// CardSignature is the reply to card.sign. It has the values that a web page passes to the JS-SDK, in WeChat's
// spelling. Fields of the other action, and fields that were empty in the request, are left out.
type CardSignature struct {
	// CardID is the card of the request.
	CardID string `json:"cardId,omitempty"`
	// Timestamp is in seconds since 1970. It is a JSON string, as WeChat documents it for both actions.
	Timestamp string `json:"timestamp"`

	// CardExt is for addCard: JSON in a string, as WeChat wants it, for wx.addCard({cardList: [{cardId,
	// cardExt}]}). Its members are timestamp, code, openid, nonce_str, fixed_begintimestamp, outer_str and
	// signature. The reply repeats them for pages that build their own cardExt.
	CardExt             string `json:"cardExt,omitempty"`
	Code                string `json:"code,omitempty"`
	OpenID              string `json:"openid,omitempty"`
	ExtNonceStr         string `json:"nonce_str,omitempty"`
	FixedBeginTimestamp int64  `json:"fixed_begintimestamp,omitempty"`
	OuterStr            string `json:"outer_str,omitempty"`
	Signature           string `json:"signature,omitempty"`

	// ShopID is for chooseCard. Pass cardId, timestamp, shopId, cardType, nonceStr, signType and cardSign to
	// wx.chooseCard unchanged.
	ShopID   string `json:"shopId,omitempty"`
	CardType string `json:"cardType,omitempty"`
	NonceStr string `json:"nonceStr,omitempty"`
	// SignType is SHA1.
	SignType string `json:"signType,omitempty"`
	CardSign string `json:"cardSign,omitempty"`
}
