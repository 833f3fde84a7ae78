package wechattest

import (
	"slices"
	"strconv"
	"time"
)

// ticketTypes are the values of the parameter type, ticketKinds the kinds of the tickets that they request.
var (
	ticketTypes = []string{"jsapi", "wx_card"}
	ticketKinds = [...]string{KindJSAPITicket, KindWXCardTicket}
)

// answerTicket is GET /cgi-bin/ticket/getticket. Unlike a success of token, its success has errcode 0.
func (s *Simulator) answerTicket(c *call) answer {
	if no := s.checkToken(c); no.errcode != 0 {
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

// issueTicket returns the current ticket, or a new one if the life of the current ticket is over. The old
// ticket stays valid for Overlap after its life: developers report that old tickets sign correctly after
// their life, and nobody reports that a new ticket ended an old one (docs/wechat-api.md#getticket).
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

// ticketAnswer states the whole life, whatever the remaining life is, as WeChat does.
func ticketAnswer(ticket string, life time.Duration) answer {
	b := append([]byte(nil), `{"errcode":0,"errmsg":"ok","ticket":"`...)
	b = append(b, ticket...)
	b = append(b, `","expires_in":`...)
	b = strconv.AppendInt(b, int64(life/time.Second), 10)
	return answer{body: append(b, '}')}
}
