package wechat

import (
	"fmt"
	"slices"
)

// Class is what a failure means for the caller. Other packages decide by class, not by errcode. The zero
// Class means no failure.
type Class uint8

// The classes of failure.
const (
	// ClassBusy: WeChat is busy (-1), or was called through a retired IP (48017; the next call goes to
	// another host). Retry soon.
	ClassBusy Class = iota + 1
	// ClassTransport: no complete HTTP answer arrived: dial, TLS, reset, timeout. See Error.Sent.
	ClassTransport
	// ClassServer: an HTTP status other than 200.
	ClassServer
	// ClassBroken: HTTP 200 with a body that differs from WeChat's documents.
	ClassBroken
	// ClassDeadToken: WeChat does not accept the access_token of the request (40001, 40014, 42001).
	ClassDeadToken
	// ClassDailyQuota: the quota of the day is used up (45009).
	ClassDailyQuota
	// ClassMinuteQuota: the quota of the minute is used up (45011). Retry in the next minute.
	ClassMinuteQuota
	// ClassAccount: fails until an operator acts: wrong AppSecret, IP not on the white list, frozen account.
	ClassAccount
	// ClassPermission: this account may not use this interface (48001, 61007).
	ClassPermission
	// ClassRequest: the caller's input is wrong (40097, 40003). Do not retry, and do not refresh a token
	// because of it.
	ClassRequest
	// ClassBug: WeChat calls the request malformed (41002, 43002, 47001): a fault of wxkeeper, or of a relay
	// in between.
	ClassBug
	// ClassUnknown: an errcode that the table lacks. The request fails for good; a refresh is retried slowly.
	ClassUnknown
)

// Classes lists all classes.
var Classes = [...]Class{ClassBusy, ClassTransport, ClassServer, ClassBroken, ClassDeadToken, ClassDailyQuota,
	ClassMinuteQuota, ClassAccount, ClassPermission, ClassRequest, ClassBug, ClassUnknown}

var classNames = [...]string{"none", "busy", "transport", "server", "broken", "dead_token", "daily_quota",
	"minute_quota", "account", "permission", "request", "bug", "unknown"}

// String returns the word of the class in metric labels, JSON and logs; "none" for the zero Class.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// MarshalText returns the word of String. It never fails.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads the word of String. It never fails: a word that is not in the list becomes
// ClassUnknown, because a newer worker may have stored it, and this worker must still read the rest of the
// record.
func (c *Class) UnmarshalText(text []byte) error {
	*c = ClassUnknown
	if i := slices.Index(classNames[:], string(text)); i >= 0 {
		*c = Class(i)
	}
	return nil
}
