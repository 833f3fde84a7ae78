package wechattest

import (
	"errors"
	"fmt"
)

// ForeignRefresh requests a token as another system of the same account would: from endpoint "token", or from
// "stable_token" in forced mode. It uses the quotas of the account like any call, but does not count in Calls
// or Minted: see Counters.Foreign. It fails if WeChat would not issue a new token.
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
		return "", fmt.Errorf("wechattest: endpoint %q issues no token: use token or stable_token", endpoint)
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
