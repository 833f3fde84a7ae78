package wechat

import "fmt"

// Class is what a failure means for the caller: the rest of the code knows classes, not errcodes. The zero Class is none.
type Class uint8

// The classes of failure.
const (
	// ClassBusy: WeChat is busy (-1), or was called through a retired IP (48017, the next call goes to another host).
	// Ask again soon.
	ClassBusy Class = iota + 1
	// ClassTransport: no usable HTTP answer came: dial, TLS, reset, timeout. See Error.Sent.
	ClassTransport
	// ClassServer: an HTTP status other than 200.
	ClassServer
	// ClassBroken: HTTP 200 with a body that is not what the documents say.
	ClassBroken
	// ClassDeadToken: the access_token of the request is not, or no longer, accepted (40001, 40014, 42001).
	ClassDeadToken
	// ClassDailyQuota: the quota of the day is used up (45009).
	ClassDailyQuota
	// ClassMinuteQuota: too fast, ask again in the next minute (45011).
	ClassMinuteQuota
	// ClassAccount: permanent until an operator acts: wrong secret, IP not on the white list, frozen account.
	ClassAccount
	// ClassPermission: this account may not use this interface (48001, 61007).
	ClassPermission
	// ClassRequest: the input of the caller is wrong (40097, 40003). Never retry, never refresh a token for it.
	ClassRequest
	// ClassBug: WeChat calls the request malformed (41002, 43002, 47001): our fault, or that of a relay on the way.
	ClassBug
	// ClassUnknown: an errcode that the table does not know. Permanent for the request, a slow retry for a refresh.
	ClassUnknown
)

// Classes are all classes.
var Classes = [...]Class{ClassBusy, ClassTransport, ClassServer, ClassBroken, ClassDeadToken, ClassDailyQuota,
	ClassMinuteQuota, ClassAccount, ClassPermission, ClassRequest, ClassBug, ClassUnknown}

var classNames = [...]string{"none", "busy", "transport", "server", "broken", "dead_token", "daily_quota",
	"minute_quota", "account", "permission", "request", "bug", "unknown"}

// String is the metric label, the JSON value and the log value of the class; "none" for the zero Class.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// MarshalText is String.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is the inverse of MarshalText. It fails on a name that is not that of a class.
func (c *Class) UnmarshalText(text []byte) error {
	for i, name := range classNames {
		if name == string(text) {
			*c = Class(i)
			return nil
		}
	}
	return fmt.Errorf("wechat: %.32q is not a class of failure", text)
}
