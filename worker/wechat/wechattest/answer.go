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

// WeChat sends its JSON as text/plain, so a client must not trust the type.
const contentType = "text/plain"

// answer is what WeChat says, as JSON.
type answer struct {
	errcode int // 0: success
	body    []byte
}

// refusal is an errcode with its text, still without rid.
type refusal struct {
	errcode int
	errmsg  string
}

// The texts are those of WeChat's pages, or those that developers quote.
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

// errmsgs are the texts for a Fault that gives an errcode alone.
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

// textOf is WeChat's text for an errcode that a Fault gives alone.
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

// refuseIP names the caller's address twice, as WeChat does: operators copy it from
// there into the console.
func refuseIP(ip netip.Addr) refusal {
	v6 := ip.String()
	if ip.Is4() {
		v6 = "::ffff:" + v6
	}
	return refusal{40164, fmt.Sprintf("invalid ip %s ipv6 %s, not in whitelist", ip, v6)}
}

// refuseCode is 40097 as developers quote it, with a hint and the hour of Shanghai.
func refuseCode(now int64) refusal {
	at := time.Unix(0, now).In(time.FixedZone("CST", shanghai)).Format(time.DateTime)
	return refusal{40097, fmt.Sprintf("invalid args, 无效的code_ticket或与openid不对应 hint: [%08x][%s]", rand.Uint32(), at)}
}

// refuse writes a refusal, with a rid at the end of its text.
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

// newRID has the form of WeChat's: the second in hexadecimal, then two random words.
func newRID(now int64) string {
	return fmt.Sprintf("%08x-%08x-%08x", uint32(now/1e9), rand.Uint32(), rand.Uint32())
}

// write sends a body as it is.
func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h["Content-Type"] = []string{contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the caller may have gone
}
