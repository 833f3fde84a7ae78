package wechattest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// WeChat sends JSON as text/plain, so a client must not trust the type (docs/wechat-api.md#answers).
const contentType = "text/plain"

// answer is an answer of WeChat.
type answer struct {
	errcode int // 0 for a success
	body    []byte
}

// refusal is an errcode with its text, without the rid. The zero refusal means that a call is not refused.
type refusal struct {
	errcode int
	errmsg  string
}

// The texts are from WeChat's pages, or as developers quote them (docs/wechat-api.md#errcodes).
var (
	refuseBusy           = refusal{-1, "system error"}
	refuseSecretClassic  = refusal{40001, "invalid credential, appsecret error or appsecret does not belong to this appid"}
	refuseDeadToken      = refusal{40001, "invalid credential, access_token is invalid or not latest"}
	refuseGrantType      = refusal{40002, "invalid grant_type"}
	refuseOpenID         = refusal{40003, "invalid openid"}
	refuseAppID          = refusal{40013, "invalid appid"}
	refuseUnknownToken   = refusal{40014, "invalid access_token"}
	refuseTicketType     = refusal{40097, "invalid args, type must be jsapi or wx_card"}
	refuseSecretStable   = refusal{40125, "invalid appsecret"}
	refuseFrozen         = refusal{40243, "appsecret has been frozen"}
	refuseNoToken        = refusal{41001, "access_token missing"}
	refuseNoAppID        = refusal{41002, "appid missing"}
	refuseNoSecret       = refusal{41004, "appsecret missing"}
	refuseExpiredToken   = refusal{42001, "access_token expired"}
	refuseNotGet         = refusal{43001, "require GET method"}
	refuseNotPost        = refusal{43002, "require POST method"}
	refuseEmptyBody      = refusal{44002, "empty post data"}
	refuseDaily          = refusal{45009, "reach max api daily quota limit"}
	refuseMinute         = refusal{45011, "api minute-quota reach limit, must slower, retry next minute"}
	refuseFormat         = refusal{47001, "data format error"}
	refuseUnauthorized   = refusal{48001, "api unauthorized"}
	refuseTokenForbidden = refusal{50004, "user not allow to use accesstoken, maybe for punishment"}
	refuseNeedsConfirm   = refusal{89503, "this call needs administrator confirmation"}
)

// errmsgs are the texts for a Fault with an errcode and without an errmsg.
var errmsgs = func() map[int]string {
	m := make(map[int]string)
	for _, r := range []refusal{
		refuseBusy, refuseDeadToken, refuseGrantType, refuseOpenID, refuseAppID, refuseUnknownToken,
		refuseSecretStable, refuseFrozen, refuseNoToken, refuseNoAppID, refuseNoSecret, refuseExpiredToken,
		refuseNotGet, refuseNotPost, refuseEmptyBody, refuseDaily, refuseMinute, refuseFormat,
		refuseUnauthorized, refuseTokenForbidden, refuseNeedsConfirm,
	} {
		m[r.errcode] = r.errmsg
	}
	return m
}()

// textOf returns WeChat's text for the errcode of a Fault without an errmsg.
func textOf(errcode int, c *call) string {
	switch msg := errmsgs[errcode]; {
	case errcode == 40164:
		return refuseIP(callerIP(c.remote)).errmsg
	case errcode == 40001 && (c.endpoint == epToken || c.endpoint == epStable):
		return refuseSecretClassic.errmsg
	case errcode == 40097:
		return "invalid args"
	case msg != "":
		return msg
	}
	return "error"
}

// refuseIP names the caller's address in two forms, as WeChat does (docs/wechat-api.md#ip-white-list).
func refuseIP(ip netip.Addr) refusal {
	v6 := ip.String()
	if ip.Is4() {
		v6 = "::ffff:" + v6
	}
	return refusal{40164, fmt.Sprintf("invalid ip %s ipv6 %s, not in whitelist", ip, v6)}
}

// refuseCode is 40097 as developers quote it, with a hint and the time of Shanghai.
func refuseCode(now int64) refusal {
	at := time.Unix(0, now).In(time.FixedZone("CST", shanghai)).Format(time.DateTime)
	hint := fmt.Sprintf("hint: [%08x][%s]", rand.Uint32(), at)
	return refusal{40097, "invalid args, 无效的code_ticket或与openid不对应 " + hint}
}

// refuse returns the answer of a refusal, with a rid at the end of its text.
func (s *Simulator) refuse(r refusal) answer {
	msg := r.errmsg
	if !strings.Contains(msg, "rid: ") {
		msg += " rid: " + newRID(s.now())
	}
	var b bytes.Buffer
	b.WriteString(`{"errcode":` + strconv.Itoa(r.errcode) + `,"errmsg":`)
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(msg) // a string always encodes
	b.Truncate(b.Len() - 1)
	b.WriteByte('}')
	return answer{errcode: r.errcode, body: b.Bytes()}
}

// newRID returns a rid of WeChat's form: the time in seconds as hexadecimal digits, and two random words.
func newRID(now int64) string {
	return fmt.Sprintf("%08x-%08x-%08x", uint32(now/1e9), rand.Uint32(), rand.Uint32())
}

// write sends a body unchanged.
func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h["Content-Type"] = []string{contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the caller may have gone away
}
