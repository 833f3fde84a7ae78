package wechattest

import "slices"

// Validity is whether WeChat accepts a value.
type Validity string

// The validities, with the errcode of an endpoint that takes such a token.
const (
	Valid   Validity = "valid"   // accepted
	Dead    Validity = "dead"    // 40001: replaced, revoked, or of another account
	Expired Validity = "expired" // 42001: its life is over
	Unknown Validity = "unknown" // 40014: never issued, or issued so long ago that the simulation has dropped it
)

var kinds = []string{KindAccessToken, KindJSAPITicket, KindWXCardTicket}

func knownKind(kind string) bool { return slices.Contains(kinds, kind) }

// Validity returns whether WeChat accepts a value of this kind for this account now. It changes nothing and
// counts as no call.
func (s *Simulator) Validity(appid, kind, value string) Validity {
	c := s.issued.find(value)
	switch {
	case c == nil || c.kind != kind:
		return Unknown
	case c.account.appid != appid:
		return Dead
	}
	return c.validity(s.now())
}

// Revoke makes WeChat refuse a token (40001) although its life is not over. The normal mode of stable_token
// still repeats it, so that a test can reach forced mode. A ticket can be revoked too, for Validity. A value
// that was never issued is ignored.
func (s *Simulator) Revoke(token string) { s.revoke(token) }

func (s *Simulator) revoke(value string) bool {
	c := s.issued.find(value)
	if c != nil {
		c.revoked.Store(true)
	}
	return c != nil
}
