package wechattest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"net/url"
)

// endpoint is one of the simulated paths.
type endpoint int

const (
	epToken endpoint = iota
	epStable
	epTicket
	epCode
	epDomainIP
	endpoints int = iota
)

var endpointNames = [endpoints]string{"token", "stable_token", "getticket", "tickettocode", "get_api_domain_ip"}

func (e endpoint) String() string { return endpointNames[e] }

func endpointOf(path string) (endpoint, bool) {
	switch path {
	case "/cgi-bin/token":
		return epToken, true
	case "/cgi-bin/stable_token":
		return epStable, true
	case "/cgi-bin/ticket/getticket":
		return epTicket, true
	case "/intp/marketcode/tickettocode":
		return epCode, true
	case "/cgi-bin/get_api_domain_ip":
		return epDomainIP, true
	}
	return 0, false
}

// call is one request, of which so much is read that its account is known.
type call struct {
	endpoint endpoint
	method   string
	remote   string
	query    url.Values
	fields   map[string]json.RawMessage // of a JSON body
	// malformed is why fields could not be read. It is returned when the arguments are checked.
	malformed refusal

	appid   string   // from the parameter, from the token, or UnknownAppID
	account *account // nil if there is no account with that appid
	token   *credential
	stats   *accountStats
}

// maxBody limits how much of a request is read.
const maxBody = 1 << 20

// identify reads the request and finds its account. At token and stable_token the appid is a parameter; at
// the other endpoints the access_token determines it.
func (s *Simulator) identify(ep endpoint, r *http.Request) *call {
	c := &call{endpoint: ep, method: r.Method, remote: r.RemoteAddr, query: r.URL.Query(), appid: UnknownAppID}
	if r.Method == http.MethodPost && (ep == epStable || ep == epCode) {
		c.readBody(r.Body)
	}
	switch ep {
	case epToken, epStable:
		appid := c.query.Get("appid")
		if ep == epStable {
			appid, _ = c.text("appid")
		}
		if appid != "" {
			c.appid = appid
			c.account = s.account(appid)
		}
	default:
		if t := s.issued.find(c.query.Get("access_token")); t != nil && t.kind == KindAccessToken {
			c.token, c.account, c.appid = t, t.account, t.account.appid
		}
	}
	if c.account != nil {
		c.stats = c.account.stats
	} else {
		c.stats = s.stats.of(c.appid, false)
	}
	return c
}

func (c *call) readBody(r io.Reader) {
	b, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	switch {
	case err != nil || len(b) > maxBody:
		c.malformed = refuseFormat
	case len(b) == 0:
		c.malformed = refuseEmptyBody
	default:
		// A map, because encoding/json decodes "OpenID" into a field tagged openid. WeChat does not.
		if json.Unmarshal(b, &c.fields) != nil || c.fields == nil {
			c.malformed = refuseFormat
		}
	}
}

// text returns a string field of the body, or "" if it is missing. ok is false if the field is not a string.
func (c *call) text(name string) (value string, ok bool) {
	raw, exists := c.fields[name]
	return value, !exists || json.Unmarshal(raw, &value) == nil
}

// boolean returns a boolean field of the body, or false if it is missing. ok is false if the field is not a
// boolean.
func (c *call) boolean(name string) (value, ok bool) {
	raw, exists := c.fields[name]
	return value, !exists || json.Unmarshal(raw, &value) == nil
}

// answer makes the call take effect and returns WeChat's answer.
func (s *Simulator) answer(c *call) answer {
	want, no := http.MethodGet, refuseNotGet
	if c.endpoint == epStable || c.endpoint == epCode {
		want, no = http.MethodPost, refuseNotPost
	}
	if c.method != want {
		return s.refuse(no)
	}
	switch c.endpoint {
	case epToken:
		return s.answerToken(c)
	case epStable:
		return s.answerStable(c)
	case epTicket:
		return s.answerTicket(c)
	case epCode:
		return s.answerCode(c)
	default:
		return s.answerDomainIP(c)
	}
}

// checkToken checks the access_token and the IP of a call.
func (s *Simulator) checkToken(c *call) refusal {
	if c.token == nil {
		if c.query.Get("access_token") == "" {
			return refuseNoToken
		}
		return refuseUnknownToken
	}
	switch c.token.validity(s.now()) {
	case Expired:
		return refuseExpiredToken
	case Dead:
		return refuseDeadToken
	}
	return s.checkIP(c)
}

// checkIP checks the white list. It is the list of an official account, which applies to every endpoint and
// not only to those that take the AppSecret (docs/wechat-api.md#ip-white-list).
func (s *Simulator) checkIP(c *call) refusal {
	if len(s.allow) == 0 {
		return refusal{}
	}
	addr := callerIP(c.remote)
	for _, p := range s.allow {
		if p.Contains(addr) {
			return refusal{}
		}
	}
	return refuseIP(addr)
}

// callerIP returns the address in "address:port", or the zero address, which is on no list.
func callerIP(remote string) netip.Addr {
	ap, _ := netip.ParseAddrPort(remote)
	return ap.Addr().Unmap().WithZone("")
}

// answerDomainIP is GET /cgi-bin/get_api_domain_ip. Its addresses are from the range for documentation, so
// that nobody opens a firewall for them.
func (s *Simulator) answerDomainIP(c *call) answer {
	if no := s.checkToken(c); no.errcode != 0 {
		return s.refuse(no)
	}
	return answer{body: []byte(domainIPReply)}
}

const domainIPReply = `{"ip_list":["203.0.113.18","203.0.113.19","203.0.113.20"]}`
