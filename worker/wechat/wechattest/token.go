package wechattest

import (
	"strconv"
	"time"
)

// tokenSeries is the series of tokens of one account at one endpoint. Classic and stable tokens are isolated
// from each other, so an account has two series.
type tokenSeries struct {
	current *credential
	older   []*credential // replaced, perhaps still valid, oldest first
}

// mintToken issues a new token. The classic endpoint and forced mode are abrupt: tokens that were already
// replaced end at once, and the current token stays valid for at most the overlap. Otherwise (a stable token
// in its last minutes) each token keeps its own end. The caller has locked a.mu.
func (s *Simulator) mintToken(a *account, ts *tokenSeries, now int64, abrupt bool) *credential {
	var valid []*credential
	for _, c := range ts.older {
		if abrupt {
			c.shorten(now)
		} else if now < c.end.Load() {
			valid = append(valid, c)
		}
	}
	ts.older = valid
	if last := ts.current; last != nil {
		if abrupt {
			last.shorten(now + int64(s.cfg.Overlap))
		}
		ts.older = append(ts.older, last)
		s.issued.retire(last, now)
	}
	ts.current = newCredential(a, KindAccessToken, newToken(), now+int64(s.cfg.TokenLife))
	s.issued.add(ts.current)
	return ts.current
}

// issueClassic is GET /cgi-bin/token after appid and secret were checked.
func (s *Simulator) issueClassic(a *account) (*credential, refusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := s.now()
	switch {
	case a.removed:
		return nil, refuseAppID
	case a.tokensDay.full(now):
		return nil, refuseDaily
	}
	a.tokensDay.count(now)
	return s.mintToken(a, &a.classic, now, true), refusal{}
}

// issueStable is POST /cgi-bin/stable_token after appid and secret were checked. minted reports whether the
// token is new; rest is its expires_in.
func (s *Simulator) issueStable(a *account, force bool) (c *credential, minted bool, rest time.Duration, no refusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := s.now()
	switch {
	case a.removed:
		return nil, false, 0, refuseAppID
	case a.stableMinute.full(now):
		return nil, false, 0, refuseMinute
	case a.stableDay.full(now):
		return nil, false, 0, refuseDaily
	}
	// WeChat: "at least 30 s, otherwise it does not refresh". Before that, a forced call is a normal call and
	// does not count as one of the twenty.
	if force && a.lastForce != 0 && now-a.lastForce < int64(s.cfg.ForceGap) {
		force = false
	}
	if force && a.forcesDay.full(now) {
		return nil, false, 0, refuseDaily
	}
	a.stableMinute.count(now)
	a.stableDay.count(now)

	switch c = a.stable.current; {
	case force:
		a.forcesDay.count(now)
		a.lastForce = now
		c, minted = s.mintToken(a, &a.stable, now, true), true
	case c == nil || s.dueStable(c.rest(now)):
		c, minted = s.mintToken(a, &a.stable, now, false), true
	}
	return c, minted, c.rest(now), refusal{}
}

// dueStable reports whether normal mode issues a new token: in the last Overlap of the current token, and at
// least in its last second, because WeChat never answers expires_in 0. A revoked token is not renewed: forced
// mode exists for the case that normal mode repeats a token which the API refuses.
func (s *Simulator) dueStable(rest time.Duration) bool {
	return rest <= s.cfg.Overlap || rest < time.Second
}

// answerToken is GET /cgi-bin/token. Its success has no errcode field.
func (s *Simulator) answerToken(c *call) answer {
	if c.query.Get("grant_type") != "client_credential" {
		return s.refuse(refuseGrantType)
	}
	if no := s.checkAccount(c, c.query.Get("secret"), refuseSecretClassic); no.errcode != 0 {
		return s.refuse(no)
	}
	cred, no := s.issueClassic(c.account)
	if no.errcode != 0 {
		return s.refuse(no)
	}
	c.stats[c.endpoint].minted.Add(1)
	return tokenAnswer(cred.value, s.cfg.TokenLife)
}

// answerStable is POST /cgi-bin/stable_token.
func (s *Simulator) answerStable(c *call) answer {
	if c.malformed.errcode != 0 {
		return s.refuse(c.malformed)
	}
	grant, ok1 := c.text("grant_type")
	secret, ok2 := c.text("secret")
	_, ok3 := c.text("appid")
	force, ok4 := c.boolean("force_refresh")
	switch {
	case !ok1 || !ok2 || !ok3 || !ok4:
		return s.refuse(refuseFormat)
	case grant != "client_credential":
		return s.refuse(refuseGrantType)
	}
	if no := s.checkAccount(c, secret, refuseSecretStable); no.errcode != 0 {
		return s.refuse(no)
	}
	cred, minted, rest, no := s.issueStable(c.account, force)
	if no.errcode != 0 {
		return s.refuse(no)
	}
	if minted {
		c.stats[c.endpoint].minted.Add(1)
	}
	return tokenAnswer(cred.value, rest)
}

// checkAccount checks appid, secret and IP of a call for a token.
func (s *Simulator) checkAccount(c *call, secret string, wrong refusal) refusal {
	switch {
	case c.appid == UnknownAppID:
		return refuseNoAppID
	case secret == "":
		return refuseNoSecret
	case c.account == nil:
		return refuseAppID
	}
	c.account.mu.Lock()
	right := secret == c.account.secret
	c.account.mu.Unlock()
	if !right {
		return wrong
	}
	return s.checkIP(c)
}

func tokenAnswer(token string, rest time.Duration) answer {
	b := append([]byte(nil), `{"access_token":"`...)
	b = append(b, token...)
	b = append(b, `","expires_in":`...)
	b = strconv.AppendInt(b, int64(rest/time.Second), 10)
	return answer{body: append(b, '}')}
}
