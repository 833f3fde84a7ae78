package wechat

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

// maxBody is how much of a body is read. Answers have some hundred bytes; a list of IPs a few thousand.
const maxBody = 1 << 20

// A request is one call, which may become several attempts.
type request struct {
	endpoint Endpoint
	method   string
	path     string
	query    string // documented parameters in documented order, escaped
	body     []byte // JSON; nil: none
	mask     *mask
	// accept reads an answer with errcode 0. Its errors say what is wrong with it and quote nothing.
	accept func(a answer, sentAt time.Time) error
}

// A report is what one attempt says about its host, beyond its error.
type report struct {
	hostFailed bool // the next call should go to another host
	stale      bool // a kept connection was dead before anything was written; says nothing of the host
	date       time.Time
}

// attempt sends r once to base and reads the answer.
func (c *Client) attempt(ctx context.Context, base *url.URL, r *request) (*Error, report) {
	// Each attempt has a deadline of its own, so that a host that swallows packets leaves time for the next.
	own := ctx
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > c.timeout {
		var cancel context.CancelFunc
		own, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	var t trace
	req := c.newRequest(httptrace.WithClientTrace(own, t.hooks()), base, r)

	e := &Error{Endpoint: r.endpoint, Host: base.Host, Sent: true}
	sentAt := time.Now()
	// The RoundTripper itself, not an http.Client: that would follow redirects and wrap errors in URLs.
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		e.Class = ClassTransport
		e.Sent = !t.unsent(err)
		e.Err = c.transportCause(ctx, own, err, r.mask, e.Sent)
		stale := !e.Sent && t.reused.Load() && own.Err() == nil
		return e, report{stale: stale, hostFailed: !stale && c.blamesHost(ctx, own, time.Since(sentAt))}
	}
	defer resp.Body.Close()
	e.HTTPStatus = resp.StatusCode
	serverFailed := resp.StatusCode >= 500
	date, _ := http.ParseTime(resp.Header.Get("Date")) // zero where it is none

	body, err := readBody(resp)
	if err != nil && resp.StatusCode == http.StatusOK {
		e.Class = ClassTransport
		e.Err = c.transportCause(ctx, own, err, r.mask, true)
		e.Excerpt = r.excerpt(body)
		return e, report{hostFailed: c.blamesHost(ctx, own, time.Since(sentAt)), date: date}
	}
	e = r.read(e, body, sentAt)
	return e, report{hostFailed: serverFailed || e != nil && e.Errcode == retiredIP, date: date}
}

// retiredIP is the errcode of a host whose name leads to an IP that WeChat retired (wechat-api.md 1.6).
const retiredIP = 48017

// read judges an answer that came whole. It fills in e, or returns nil if r accepted the answer.
func (r *request) read(e *Error, body []byte, sentAt time.Time) *Error {
	a, err := answer{}, errors.New("it is longer than 1 MiB")
	if len(body) <= maxBody {
		a, err = parse(body)
	}
	if err == nil && a.errcode != 0 {
		errmsg, rid := splitRID(r.mask.line(a.errmsg))
		v, known := judge(r.endpoint, a.errcode, errmsg)
		// Errors come with HTTP 200 (wechat-api.md 1.6). With another status the body may be that of a proxy, so its errcode
		// is believed only if it is one of WeChat's.
		if known || e.HTTPStatus == http.StatusOK {
			e.Errcode, e.Errmsg, e.RID = a.errcode, clip(errmsg, maxErrmsg), rid
			e.Class, e.Wait, e.Advice = v.class, v.wait, v.advice
			return e
		}
	}
	if e.HTTPStatus != http.StatusOK {
		e.Class = ClassServer
		if e.HTTPStatus >= 300 && e.HTTPStatus < 400 {
			e.Err = &cause{text: "a redirect, not followed: it would carry credentials to another host"}
			e.Advice = "WeChat does not redirect: look at WECHAT_API_URL, and for a proxy or a login page on the way"
		}
		e.Excerpt = r.excerpt(body)
		return e
	}
	if err == nil {
		err = r.accept(a, sentAt)
	}
	if err != nil {
		e.Class, e.Err = ClassBroken, &cause{text: err.Error()}
		e.Excerpt = r.excerpt(body)
		return e
	}
	return nil
}

// excerpt shows the beginning of a body that could not be used.
func (r *request) excerpt(body []byte) string {
	return clip(r.mask.quote(string(body[:min(len(body), maskWindow)])), maxExcerpt)
}

// readBody reads at most one byte more than maxBody, so that a longer body can be told.
func readBody(resp *http.Response) ([]byte, error) {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return nil, nil // this body is the connection itself, no deadline ends it
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
}

// newRequest makes a request that net/http will not send again by itself: after a kept connection breaks it repeats a GET
// that it takes for idempotent, and a repeated GET /cgi-bin/token mints a second token and kills the first. It does not
// repeat a request with a body that it cannot rewind; so a GET has a body too, an empty one, of which HTTP/1 shows
// nothing on the wire (HTTP/2 an empty DATA frame).
func (c *Client) newRequest(ctx context.Context, base *url.URL, r *request) *http.Request {
	u := *base
	u.Path += r.path
	if u.RawPath != "" {
		u.RawPath += r.path
	}
	u.RawQuery = r.query
	req := (&http.Request{
		Method: r.method, URL: &u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"User-Agent": {"wxkeeper"}},
		Body:   io.NopCloser(bytes.NewReader(r.body)),
	}).WithContext(ctx)
	if r.body != nil {
		req.ContentLength = int64(len(r.body))
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

// A trace says whether a failed request can have reached the server.
type trace struct {
	asked  atomic.Bool // the RoundTripper reports to httptrace
	reused atomic.Bool
	wrote  atomic.Bool // bytes of the request may be on their way
}

func (t *trace) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(string) { t.asked.Store(true) },
		GotConn: func(info httptrace.GotConnInfo) {
			t.asked.Store(true)
			t.reused.Store(info.Reused)
			// HTTP/2 calls WroteHeaders after the frame with the whole request is out, so it counts from here on.
			if conn, ok := info.Conn.(*tls.Conn); ok && conn.ConnectionState().NegotiatedProtocol == "h2" {
				t.wrote.Store(true)
			}
		},
		WroteHeaders: func() { t.wrote.Store(true) },
		WroteRequest: func(httptrace.WroteRequestInfo) { t.wrote.Store(true) },
	}
}

// unsent reports whether the request that failed with err certainly did not reach the server.
func (t *trace) unsent(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	return t.asked.Load() && !t.wrote.Load()
}

// blamesHost says whether a transport failure after elapsed speaks against the host: not where the caller went away, nor
// where it left the host hardly any time.
func (c *Client) blamesHost(caller, own context.Context, elapsed time.Duration) bool {
	switch {
	case own.Err() == nil:
		return true // refused, reset, dial timeout …
	case errors.Is(caller.Err(), context.Canceled):
		return false
	default:
		return elapsed >= min(c.timeout, time.Second)
	}
}

// transportCause keeps of err what can be kept. serverText: see newCause.
func (c *Client) transportCause(caller, own context.Context, err error, m *mask, serverText bool) error {
	cs := newCause(err, m, serverText)
	if end := own.Err(); end != nil && !errors.Is(cs, end) {
		cs.is = append(cs.is, end) // net/http returns the cause of a context in place of what ended it
	}
	if own.Err() != nil && caller.Err() == nil {
		cs.text += fmt.Sprintf(" (timeout of %s)", c.timeout) // which the caller did not set and may not know
	}
	return cs
}
