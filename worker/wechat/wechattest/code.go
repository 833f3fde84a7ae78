package wechattest

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
)

// The sample of WeChat's page of tickettocode with all fields in their order. The page lacks a comma after wxa_path
// (docs/wechat-api.md#tickettocode), which is added here.
const (
	sampleOpenID = "oiV2luCau8Cx0TMOy9lvZSLqRcKc"
	sampleTicket = "6cb4bc95e1f1abc97034cbe8fd484989"
	sampleReply  = replyBeforeCode + "8" + replyAfterCode

	replyBeforeCode = `{"errcode":0,"errmsg":"ok","code":"`
	replyAfterCode  = `","code_start":0,"code_end":200,` +
		`"activity_name":"test_name","product_brand":"test_brand","product_title":"test_title","product_code":"test_code",` +
		`"wxa_appid":"wx3sxjifjwojfsffef","wxa_path":"pages/index/index",` +
		`"application_id":581865877,"isv_application_id":"test_id"}`
)

// codeKey is the key of a registered code. An empty appid stands for every account.
type codeKey struct{ appid, openid, ticket string }

type codes struct {
	mu    sync.RWMutex
	byKey map[codeKey]answer
}

// AddCode registers the answer of tickettocode for one openid and code_ticket, for the tokens of one account
// or, if appid is "", of every account. The reply is sent as it is, even if it is not JSON; an empty reply
// means a success with CodeOf(codeTicket). A later reply replaces an earlier one.
func (s *Simulator) AddCode(appid, openid, codeTicket string, reply json.RawMessage) {
	a := answer{body: slices.Clone(reply)}
	if len(reply) == 0 {
		a.body = anyReply(codeTicket)
	}
	var head struct {
		Errcode int `json:"errcode"`
	}
	_ = json.Unmarshal(a.body, &head) // only the counters use it
	a.errcode = head.Errcode
	s.codes.add(codeKey{appid, openid, codeTicket}, a)
}

func (c *codes) add(k codeKey, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey == nil {
		c.byKey = make(map[codeKey]answer)
	}
	c.byKey[k] = a
}

func (c *codes) find(appid, openid, ticket string) (answer, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	a, ok := c.byKey[codeKey{appid, openid, ticket}]
	if !ok {
		a, ok = c.byKey[codeKey{"", openid, ticket}]
	}
	return a, ok
}

func (c *codes) forget(appid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.byKey {
		if k.appid == appid {
			delete(c.byKey, k)
		}
	}
}

// CodeOf returns the code that AnyCode resolves a code_ticket to: nine digits with leading zeros, the form that
// developers report (docs/wechat-api.md#tickettocode).
func CodeOf(codeTicket string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(codeTicket)) // never fails
	return fmt.Sprintf("%09d", h.Sum64()%1_000_000_000)
}

func anyReply(codeTicket string) []byte {
	return []byte(replyBeforeCode + CodeOf(codeTicket) + replyAfterCode)
}

// wellFormed checks a ticket against the type on WeChat's older page, String256 (docs/wechat-api.md#tickettocode).
func wellFormed(ticket string) bool {
	return ticket != "" && len(ticket) <= 256 &&
		!strings.ContainsFunc(ticket, func(r rune) bool { return r <= ' ' || r > '~' })
}

// answerCode is POST /intp/marketcode/tickettocode. The token is in the query, as at its sister interfaces;
// the page does not mention it (docs/wechat-api.md#tickettocode).
func (s *Simulator) answerCode(c *call) answer {
	if no := s.checkToken(c); no.errcode != 0 {
		return s.refuse(no)
	}
	if no := s.countCode(c.account); no.errcode != 0 {
		return s.refuse(no)
	}
	if c.malformed.errcode != 0 {
		return s.refuse(c.malformed)
	}
	openid, ok1 := c.text("openid")
	ticket, ok2 := c.text("code_ticket")
	switch {
	case !ok1 || !ok2:
		return s.refuse(refuseFormat)
	case openid == "":
		return s.refuse(refuseOpenID)
	}
	if a, ok := s.codes.find(c.appid, openid, ticket); ok {
		return a
	}
	if s.cfg.AnyCode && wellFormed(ticket) {
		return answer{body: anyReply(ticket)}
	}
	return s.refuse(refuseCode(s.now()))
}

// countCode counts a call in the quotas. Without a limit, which is the usual case, it takes no lock.
func (s *Simulator) countCode(a *account) refusal {
	if s.cfg.CodesPerDay <= 0 && s.cfg.CodesPerMinute <= 0 {
		return refusal{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := s.now()
	switch {
	case a.codesMinute.full(now):
		return refuseMinute
	case a.codesDay.full(now):
		return refuseDaily
	}
	a.codesMinute.count(now)
	a.codesDay.count(now)
	return refusal{}
}
