package wechattest

import (
	"strconv"
	"time"
)

// line is the succession of tokens of one account and endpoint: the classic and
// the stable one never touch each other ("completely isolated").
type line struct {
	current *credential
	older   []*credential // superseded and perhaps alive, oldest first
}

// mintToken issues a new token. abrupt is the way of the classic endpoint and of
// forced mode: what was superseded before dies at once, the last lives on for the
// overlap at most. Otherwise (a stable token renewed in its last minutes) each
// lives to its own end. The caller holds a.mu.
func (s *Simulator) mintToken(a *account, l *line, now int64, abrupt bool) *credential {
	var living []*credential
	for _, c := range l.older {
		if abrupt {
			c.kill(now)
		} else if now < c.end.Load() {
			living = append(living, c)
		}
	}
	l.older = living
	if last := l.current; last != nil {
		if abrupt {
			last.shorten(now + int64(s.cfg.Overlap))
		}
		l.older = append(l.older, last)
		s.issued.retire(last, now)
	}
	l.current = newCredential(a, KindAccessToken, newToken(), now+int64(s.cfg.TokenLife))
	s.issued.add(l.current)
	return l.current
}

// issueClassic is GET /cgi-bin/token once appid and secret are proved.
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

// issueStable is POST /cgi-bin/stable_token once appid and secret are proved.
// minted says whether the token is new, rest what expires_in has to say.
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
	// "At least 30 s apart, otherwise it will not refresh": too soon, it is a
	// normal call and costs none of the twenty.
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

// dueStable says whether normal mode gives out a new token: in the last Overlap of
// the current one. Where lives are so short that Overlap is less than a second, in
// the last second, because WeChat never answers expires_in 0. A revoked token is
// not renewed: that normal mode repeats the token that the API refuses is the one
// case that forced mode is for.
func (s *Simulator) dueStable(rest time.Duration) bool {
	return rest <= s.cfg.Overlap || rest < time.Second
}

// answerToken is GET /cgi-bin/token. Its success has no errcode field.
func (s *Simulator) answerToken(c *call) answer {
	if c.query.Get("grant_type") != "client_credential" {
		return s.refuse(refuseGrantType)
	}
	if no := s.prove(c, c.query.Get("secret"), refuseSecretClassic); no.errcode != 0 {
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
	if no := s.prove(c, secret, refuseSecretStable); no.errcode != 0 {
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

// prove checks appid, secret and IP of a call for a token.
func (s *Simulator) prove(c *call, secret string, wrong refusal) refusal {
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
