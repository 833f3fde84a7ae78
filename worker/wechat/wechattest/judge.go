package wechattest

import (
	"errors"
	"fmt"
	"slices"
)

// Verdict is what WeChat would say of a credential.
type Verdict string

// The verdicts, with what an API endpoint answers to such a token.
const (
	Valid   Verdict = "valid"   // accepted
	Dead    Verdict = "dead"    // 40001: superseded, revoked, or another account's
	Expired Verdict = "expired" // 42001: its life is over
	Unknown Verdict = "unknown" // 40014: never issued, or so long ago that it is forgotten
)

var kinds = []string{KindAccessToken, KindJSAPITicket, KindWXCardTicket}

// Judge says what WeChat would say now of a value of that kind, used for that
// account. It changes nothing and is counted nowhere.
func (s *Simulator) Judge(appid, kind, value string) Verdict {
	c := s.issued.find(value)
	switch {
	case c == nil || c.kind != kind:
		return Unknown
	case c.account.appid != appid:
		return Dead
	}
	return c.verdict(s.now())
}

// Revoke makes WeChat refuse a token (40001) though its life is not over. The
// normal mode of stable_token goes on giving it out, so that the way to forced
// mode can be tested. A ticket can be revoked too, for Judge. A value that was
// never issued: nothing happens.
func (s *Simulator) Revoke(token string) { s.revoke(token) }

func (s *Simulator) revoke(value string) bool {
	c := s.issued.find(value)
	if c != nil {
		c.revoked.Store(true)
	}
	return c != nil
}

// ForeignRefresh lets another system of the same account fetch a token: endpoint
// "token", or "stable_token" in forced mode. It spends the quotas of the account
// like any call, but counts neither in Calls nor in Minted: see Counters.Foreign.
// It fails where WeChat would not give out a new token.
func (s *Simulator) ForeignRefresh(appid, endpoint string) (token string, err error) {
	a := s.account(appid)
	if a == nil {
		return "", fmt.Errorf("wechattest: no account %q", appid)
	}
	var c *credential
	var no refusal
	minted := true
	ep := epToken
	switch endpoint {
	case epToken.String():
		c, no = s.issueClassic(a)
	case epStable.String():
		ep = epStable
		c, minted, _, no = s.issueStable(a, true)
	default:
		return "", fmt.Errorf("wechattest: endpoint %q gives no token: token or stable_token", endpoint)
	}
	switch {
	case no.errcode != 0:
		return "", fmt.Errorf("wechattest: %s: errcode %d: %s", endpoint, no.errcode, no.errmsg)
	case !minted:
		return "", fmt.Errorf("wechattest: %s: %w", endpoint, errTooSoon)
	}
	a.stats[ep].foreign.Add(1)
	return c.value, nil
}

var errTooSoon = errors.New("not refreshed: less than ForceGap after the last forced refresh")

func knownKind(kind string) bool { return slices.Contains(kinds, kind) }
