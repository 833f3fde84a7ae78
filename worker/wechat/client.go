package wechat

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Client calls the WeChat server API. It keeps connections and the position in the list of hosts, and no
// credential. It starts no goroutine of its own. All methods are safe for concurrent use.
//
// Every method blocks until the answer is there, until ctx ends, or until the attempts have failed: one
// attempt lasts at most Config.Timeout, and a call makes at most one attempt for each host and one more.
// Every error is an *Error.
type Client struct {
	bases     []*url.URL
	hosts     *hosts
	timeout   time.Duration
	transport http.RoundTripper
	onCall    func(Call)
	// proxyForms are the spellings of the user, the password and the Proxy-Authorization of the proxy.
	proxyForms []string
}

// New returns a client. It opens no connection. If cfg is wrong, the error names the field.
func New(cfg Config) (*Client, error) {
	if len(cfg.URLs) == 0 {
		cfg.URLs = []string{DefaultURL}
	}
	bases := make([]*url.URL, len(cfg.URLs))
	for i, s := range cfg.URLs {
		var err error
		if bases[i], err = CheckURL(s, cfg.AllowInsecure); err != nil {
			return nil, fmt.Errorf("wechat: Config.URLs[%d] %w", i, err)
		}
	}
	if cfg.Timeout < 0 {
		return nil, errors.New("wechat: Config.Timeout is negative; 0 means 5s")
	}
	c := &Client{
		bases: bases, hosts: newHosts(len(bases)),
		timeout: cmp.Or(cfg.Timeout, DefaultTimeout), transport: cfg.Transport, onCall: cfg.OnCall,
	}
	switch t := cfg.Transport.(type) {
	case nil:
		own := newTransport(c.timeout)
		if cfg.Proxy != nil {
			own.Proxy = withoutVariable(func(r *http.Request) (*url.URL, error) { return cfg.Proxy(r.URL) })
		}
		own.Proxy = onlyOnce(own.Proxy)
		c.transport = own
	case *http.Transport:
		t = t.Clone()
		t.Proxy = onlyOnce(t.Proxy)
		c.transport = t
	}
	if c.onCall == nil {
		c.onCall = func(Call) {}
	}
	c.proxyForms = proxyForms(c.transport, bases)
	return c, nil
}

// Close closes idle connections, also those of a Config.Transport that is not an *http.Transport. Calls in flight go
// on. The client can still be used.
func (c *Client) Close() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Token requests a new access_token with GET /cgi-bin/token (docs/wechat-api.md#token). WeChat accepts the
// previous token for 5 more minutes, and no older token. So if the error has Sent, WeChat may have issued a
// token that nobody has received.
func (c *Client) Token(ctx context.Context, appid, secret string) (Issued, error) {
	query := "grant_type=client_credential&appid=" + url.QueryEscape(appid) + "&secret=" + url.QueryEscape(secret)
	return c.issue(ctx, "access_token", &request{
		endpoint: EndpointToken, path: "/cgi-bin/token", query: query,
		mask: c.newMask(secret),
	})
}

// StableToken requests the access_token with POST /cgi-bin/stable_token (docs/wechat-api.md#stable_token). In
// normal mode WeChat repeats the same token with its remaining life, and issues a new one only in the last 5
// minutes. force ends the current token: WeChat allows it 20 times a day, 30 s apart.
func (c *Client) StableToken(ctx context.Context, appid, secret string, force bool) (Issued, error) {
	body := struct {
		GrantType    string `json:"grant_type"`
		AppID        string `json:"appid"`
		Secret       string `json:"secret"`
		ForceRefresh bool   `json:"force_refresh,omitempty"`
	}{"client_credential", appid, secret, force}
	return c.issue(ctx, "access_token", &request{
		endpoint: EndpointStableToken, path: "/cgi-bin/stable_token", body: encode(body),
		mask: c.newMask(secret),
	})
}

// Ticket requests a ticket with GET /cgi-bin/ticket/getticket (docs/wechat-api.md#getticket). Within the life
// of a ticket WeChat repeats it with a constant ExpiresIn.
func (c *Client) Ticket(ctx context.Context, accessToken string, typ TicketType) (Issued, error) {
	query := "access_token=" + url.QueryEscape(accessToken) + "&type=" + url.QueryEscape(string(typ))
	return c.issue(ctx, "ticket", &request{
		endpoint: EndpointTicket, path: "/cgi-bin/ticket/getticket", query: query,
		mask: c.newMask(accessToken),
	})
}

// TicketToCode resolves the code_ticket of a scan into the marketing code with POST
// /intp/marketcode/tickettocode (docs/wechat-api.md#tickettocode). It returns WeChat's answer byte for byte,
// without surrounding white space and byte order mark: one JSON object in UTF-8 with errcode 0 or no errcode,
// and with a code that is a non-empty string.
func (c *Client) TicketToCode(ctx context.Context, accessToken, openid, codeTicket string) (json.RawMessage, error) {
	body := struct {
		OpenID     string `json:"openid"`
		CodeTicket string `json:"code_ticket"`
	}{openid, codeTicket}
	var code json.RawMessage
	err := c.call(ctx, &request{
		endpoint: EndpointTicketToCode, path: "/intp/marketcode/tickettocode",
		query: "access_token=" + url.QueryEscape(accessToken), body: encode(body),
		mask: c.newMask(accessToken, openid, codeTicket),
		accept: func(a answer, _ time.Time) (err error) {
			code, err = a.code()
			return err
		},
	})
	return code, err
}

// APIDomainIP requests the IPs of WeChat's API with GET /cgi-bin/get_api_domain_ip. That is the cheapest way
// to find out whether accessToken is alive (docs/wechat-api.md#get_api_domain_ip). The list may be empty, and
// may contain networks in CIDR form.
func (c *Client) APIDomainIP(ctx context.Context, accessToken string) ([]string, error) {
	var ips []string
	err := c.call(ctx, &request{
		endpoint: EndpointAPIDomainIP, path: "/cgi-bin/get_api_domain_ip",
		query: "access_token=" + url.QueryEscape(accessToken),
		mask:  c.newMask(accessToken),
		accept: func(a answer, _ time.Time) (err error) {
			ips, err = a.ips()
			return err
		},
	})
	return ips, err
}

// issue makes a call whose answer carries a credential in the field called name.
func (c *Client) issue(ctx context.Context, name string, r *request) (Issued, error) {
	var issued Issued
	r.accept = func(a answer, sentAt time.Time) (err error) {
		issued, err = a.issued(name)
		issued.SentAt = sentAt
		return err
	}
	err := c.call(ctx, r)
	return issued, err
}

// call makes one attempt. It makes further attempts only while the request certainly did not reach WeChat: at
// each other host, and once more at the first host if an idle connection was dead.
func (c *Client) call(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return &Error{Endpoint: r.endpoint, Class: ClassTransport, Err: &cause{text: err.Error(), is: []error{err}}}
	}
	var tried []int   // indexes of hosts
	mayRepeat := true // the first host may be tried once more
	ch := c.hosts.pick(time.Now())
	for {
		base := c.bases[ch.index]
		start := time.Now()
		err, res := c.attempt(ctx, base, r)
		if err != nil && err.Advice == "" {
			err.Advice = adviceOf(err)
		}
		c.onCall(Call{Endpoint: r.endpoint, Host: base.Host, Duration: time.Since(start), Date: res.date, Err: err})
		switch {
		case res.hostFailed:
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
		if res.deadConn && mayRepeat {
			mayRepeat = false
			continue
		}
		mayRepeat = false
		tried = append(tried, ch.index)
		next, ok := c.hosts.another(tried)
		if !ok {
			return err
		}
		ch = next
	}
}

// encode writes JSON as WeChat's pages show it: without HTML escapes, which WeChat's parser might not decode.
func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // structs of strings and bools always encode
	return bytes.TrimSpace(b.Bytes())
}
