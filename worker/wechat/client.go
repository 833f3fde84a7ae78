package wechat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"
)

// Client calls the WeChat server API. It keeps connections, and which host serves; nothing else, in particular no
// credential. It starts no goroutine of its own. All methods are safe for concurrent use.
//
// Every method blocks until there is an answer or its deadline has passed: each attempt lasts at most Config.Timeout, and
// a call as many attempts as there are hosts, but never longer than ctx. Every method fails with *Error, and with nothing
// else; errors.As and errors.Is see through it.
type Client struct {
	bases     []*url.URL
	hosts     *hosts
	timeout   time.Duration
	transport http.RoundTripper
	onCall    func(Call)
}

// New makes a client. It makes no connection. It fails if cfg is wrong, and names the field.
func New(cfg Config) (*Client, error) {
	bases, err := cfg.baseURLs()
	if err != nil {
		return nil, err
	}
	c := &Client{bases: bases, hosts: newHosts(len(bases)), timeout: cfg.Timeout, transport: cfg.Transport, onCall: cfg.OnCall}
	switch {
	case c.timeout < 0:
		return nil, errors.New("wechat: Config.Timeout is negative; 0 means 5s")
	case c.timeout == 0:
		c.timeout = DefaultTimeout
	}
	if c.transport == nil {
		c.transport = newTransport(c.timeout)
	}
	if c.onCall == nil {
		c.onCall = func(Call) {}
	}
	return c, nil
}

// Close closes idle connections, also those of Config.Transport. Calls in flight go on, and the client can still be used.
func (c *Client) Close() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Token mints a new access_token by GET /cgi-bin/token (getaccesstoken.txt). The one before dies five minutes later, and
// with a second call at once: so if the error says Sent, a token may have been minted that nobody knows.
func (c *Client) Token(ctx context.Context, appid, secret string) (Issued, error) {
	query := "grant_type=client_credential&appid=" + url.QueryEscape(appid) + "&secret=" + url.QueryEscape(secret)
	return c.issue(ctx, "access_token", &request{
		endpoint: EndpointToken, method: http.MethodGet, path: "/cgi-bin/token", query: query,
		mask: newMask(EndpointToken, secret),
	})
}

// StableToken asks for the access_token by POST /cgi-bin/stable_token (wechat-api.md 1.2). In normal mode WeChat repeats the
// same token with the life it has left, and gives a new one in its last five minutes. force kills the last one: 20 times
// a day, 30 s apart.
func (c *Client) StableToken(ctx context.Context, appid, secret string, force bool) (Issued, error) {
	body := struct {
		GrantType    string `json:"grant_type"`
		AppID        string `json:"appid"`
		Secret       string `json:"secret"`
		ForceRefresh bool   `json:"force_refresh,omitempty"`
	}{"client_credential", appid, secret, force}
	return c.issue(ctx, "access_token", &request{
		endpoint: EndpointStableToken, method: http.MethodPost, path: "/cgi-bin/stable_token", body: encode(body),
		mask: newMask(EndpointStableToken, secret),
	})
}

// Ticket asks for a ticket by GET /cgi-bin/ticket/getticket (getticket.txt). WeChat repeats the same ticket within its life,
// with a constant ExpiresIn (wechat-api.md 1.3).
func (c *Client) Ticket(ctx context.Context, accessToken string, typ TicketType) (Issued, error) {
	query := "access_token=" + url.QueryEscape(accessToken) + "&type=" + url.QueryEscape(string(typ))
	return c.issue(ctx, "ticket", &request{
		endpoint: EndpointTicket, method: http.MethodGet, path: "/cgi-bin/ticket/getticket", query: query,
		mask: newMask(EndpointTicket, accessToken),
	})
}

// TicketToCode turns the code_ticket of a scan into the marketing code by POST /intp/marketcode/tickettocode
// (tickettocode.txt; that the token goes into the query is in wechat-api.md 1.4). It returns WeChat's own answer, byte for
// byte but for surrounding white space and a byte order mark: one JSON object in UTF-8 with errcode 0, or none, and a
// string code that is not empty.
func (c *Client) TicketToCode(ctx context.Context, accessToken, openid, codeTicket string) (json.RawMessage, error) {
	body := struct {
		OpenID     string `json:"openid"`
		CodeTicket string `json:"code_ticket"`
	}{openid, codeTicket}
	var code json.RawMessage
	err := c.call(ctx, &request{
		endpoint: EndpointTicketToCode, method: http.MethodPost, path: "/intp/marketcode/tickettocode",
		query: "access_token=" + url.QueryEscape(accessToken), body: encode(body),
		mask: newMask(EndpointTicketToCode, accessToken, openid, codeTicket),
		accept: func(a answer, _ time.Time) (err error) {
			code, err = a.code()
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	return code, nil
}

// APIDomainIP asks for the IPs of WeChat's API by GET /cgi-bin/get_api_domain_ip (wechat-api.md 1.6): the cheapest way to learn
// whether accessToken is alive. It returns addresses, perhaps also networks in CIDR form; perhaps none.
func (c *Client) APIDomainIP(ctx context.Context, accessToken string) ([]string, error) {
	var ips []string
	err := c.call(ctx, &request{
		endpoint: EndpointAPIDomainIP, method: http.MethodGet, path: "/cgi-bin/get_api_domain_ip",
		query: "access_token=" + url.QueryEscape(accessToken),
		mask:  newMask(EndpointAPIDomainIP, accessToken),
		accept: func(a answer, _ time.Time) (err error) {
			ips, err = a.ips()
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	return ips, nil
}

// issue makes a call that is answered with a credential in the field called name.
func (c *Client) issue(ctx context.Context, name string, r *request) (Issued, error) {
	var issued Issued
	r.accept = func(a answer, sentAt time.Time) (err error) {
		issued, err = a.issued(name)
		issued.SentAt = sentAt
		return err
	}
	if err := c.call(ctx, r); err != nil {
		return Issued{}, err
	}
	return issued, nil
}

// call makes one attempt, and further ones only while the request certainly did not reach WeChat: at each other host, and
// once more at the same host if a kept connection was dead.
func (c *Client) call(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return &Error{Endpoint: r.endpoint, Class: ClassTransport, Err: &cause{text: err.Error(), is: []error{err}}}
	}
	var tried []int // indexes of hosts
	again := true   // the first host may be tried once more
	ch := c.hosts.pick(time.Now())
	for {
		base := c.bases[ch.index]
		start := time.Now()
		err, rep := c.attempt(ctx, base, r)
		c.onCall(Call{Endpoint: r.endpoint, Host: base.Host, Duration: time.Since(start), Date: rep.date, Err: err})
		switch {
		case rep.hostFailed:
			c.hosts.failed(ch, time.Now())
		case err == nil || err.HTTPStatus != 0:
			c.hosts.served(ch)
		}
		if err == nil {
			return nil
		}
		if err.Sent || ctx.Err() != nil {
			return err
		}
		if rep.stale && again {
			again = false
			continue
		}
		again = false
		tried = append(tried, ch.index)
		next, ok := c.hosts.another(tried)
		if !ok {
			return err
		}
		ch = next
	}
}

// encode writes JSON as the documents show it: without HTML escapes, which a reader of WeChat might not undo.
func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // structs of strings and bools always encode
	return bytes.TrimSpace(b.Bytes())
}
