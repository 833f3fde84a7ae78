package wechattest

import (
	"slices"
	"strconv"
	"time"
)

// ticketTypes are the values of the type parameter, ticketKinds the kinds they give.
var (
	ticketTypes = []string{"jsapi", "wx_card"}
	ticketKinds = [...]string{KindJSAPITicket, KindWXCardTicket}
)

// answerTicket is GET /cgi-bin/ticket/getticket. Unlike a token's, its success has
// errcode 0.
func (s *Simulator) answerTicket(c *call) answer {
	if no := s.admit(c); no.errcode != 0 {
		return s.refuse(no)
	}
	i := slices.Index(ticketTypes, c.query.Get("type"))
	cred, minted, no := s.issueTicket(c.account, i)
	if no.errcode != 0 {
		return s.refuse(no)
	}
	if minted {
		c.stats[c.endpoint].minted.Add(1)
	}
	return ticketAnswer(cred.value, s.cfg.TicketLife)
}

// issueTicket gives the current ticket, or a new one once its life is over. The
// old one is good for Overlap after that: developers saw old tickets sign
// correctly after their life, and never saw a new one kill an old one.
func (s *Simulator) issueTicket(a *account, i int) (c *credential, minted bool, no refusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := s.now()
	switch {
	case a.removed:
		return nil, false, refuseAppID
	case a.ticketsDay.full(now):
		return nil, false, refuseDaily
	}
	a.ticketsDay.count(now)
	if i < 0 {
		return nil, false, refuseTicketType
	}
	old := a.tickets[i]
	if old != nil && old.rest(now) > s.cfg.Overlap {
		return old, false, refusal{}
	}
	c = newCredential(a, ticketKinds[i], newTicket(), now+int64(s.cfg.TicketLife+s.cfg.Overlap))
	a.tickets[i] = c
	s.issued.add(c)
	if old != nil {
		s.issued.retire(old, now)
	}
	return c, true, refusal{}
}

// ticketAnswer says the whole life whatever is left of it, as WeChat does.
func ticketAnswer(ticket string, life time.Duration) answer {
	b := append([]byte(nil), `{"errcode":0,"errmsg":"ok","ticket":"`...)
	b = append(b, ticket...)
	b = append(b, `","expires_in":`...)
	b = strconv.AppendInt(b, int64(life/time.Second), 10)
	return answer{body: append(b, '}')}
}
