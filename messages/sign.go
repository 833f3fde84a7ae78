package messages

// Largest sizes of the fields of a request for a signature, in bytes.
const (
	MaxURL       = 8 << 10
	MaxCardField = 128 // each text of a [SignCard]
)

// SignJSSDKRequest asks for what a web page puts into wx.config. The reply is [JSSDKSignature].
type SignJSSDKRequest struct {
	AppID string `json:"appid,omitempty"`
	// URL is the address of the page as the browser has it (location.href), not URL-encoded once more. It is signed byte
	// for byte, without its fragment: "#" and what follows are cut off.
	URL string `json:"url"`
}

// JSSDKSignature has the fields of wx.config, in its spelling: they are copied into it as they are.
type JSSDKSignature struct {
	AppID     string `json:"appId"`
	Timestamp int64  `json:"timestamp"` // seconds since 1970: a JSON number, as wx.config has it
	NonceStr  string `json:"nonceStr"`
	Signature string `json:"signature"`
}

// Actions of [SignCard]: the functions of the JS-SDK for which WeChat wants a signature with the wx_card_ticket. They
// sign different values, so neither signature can stand for the other.
const (
	ActionAddCard    = "addCard"
	ActionChooseCard = "chooseCard"
)

// SignCardRequest asks for the signature of one card (addCard), or of a choice among the cards that the user has (chooseCard).
// A field of the other action is refused: it would not be in the signature. What is left out, or empty, is not signed.
// The reply is [CardSignature].
type SignCardRequest struct {
	AppID  string `json:"appid,omitempty"`
	Action string `json:"action,omitempty"` // addCard (also where it is left out) or chooseCard
	// CardID is the card that is added; chooseCard: the only card to choose from.
	CardID string `json:"card_id,omitempty"`

	Code   string `json:"code,omitempty"`   // addCard, where the card has codes of the merchant's own
	OpenID string `json:"openid,omitempty"` // addCard, where the card is bound to one user
	// FixedBeginTimestamp is when the card was really received, in seconds since 1970. addCard; not signed.
	FixedBeginTimestamp int64 `json:"fixed_begintimestamp,omitempty"`
	// OuterStr tells through which channel the card was received. addCard; not signed.
	OuterStr string `json:"outer_str,omitempty"`

	ShopID   string `json:"shop_id,omitempty"`   // chooseCard: the shop of the cards, which WeChat also calls location_id
	CardType string `json:"card_type,omitempty"` // chooseCard: the type of the cards
}

// CardSignature has what a web page hands to the JS-SDK for a [SignCardRequest], in WeChat's spelling. What was not asked for is not
// there.
type CardSignature struct {
	CardID    string `json:"cardId,omitempty"`
	Timestamp string `json:"timestamp"` // seconds since 1970, as a JSON string: so WeChat describes it, for both actions

	// Of addCard: the page calls wx.addCard({cardList: [{cardId, cardExt}]}). CardExt is JSON in a string, as WeChat wants
	// it; its members are Timestamp and those that follow, which are there a second time for pages that make their own.
	CardExt             string `json:"cardExt,omitempty"`
	Code                string `json:"code,omitempty"`
	OpenID              string `json:"openid,omitempty"`
	ExtNonceStr         string `json:"nonce_str,omitempty"`
	FixedBeginTimestamp int64  `json:"fixed_begintimestamp,omitempty"`
	OuterStr            string `json:"outer_str,omitempty"`
	Signature           string `json:"signature,omitempty"`

	// Of chooseCard: CardID, Timestamp and these are the fields of wx.chooseCard, to be copied into it as they are.
	ShopID   string `json:"shopId,omitempty"`
	CardType string `json:"cardType,omitempty"`
	NonceStr string `json:"nonceStr,omitempty"`
	SignType string `json:"signType,omitempty"` // SHA1
	CardSign string `json:"cardSign,omitempty"`
}
