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

// maxBody limits how much of a body is read. Answers have some hundred bytes; a list of IPs has a few thousand.
const maxBody = 1 << 20

// A request is the content of one call, which may take several attempts.
type request struct {
	endpoint Endpoint
	path     string
	query    string // documented parameters in documented order, escaped
	body     []byte // JSON of a POST; nil means a GET
	mask     *mask
	// accept reads an answer with errcode 0. Its errors describe the defect and quote nothing of the answer.
	accept func(a answer, sentAt time.Time) error
}

// An attemptResult is what the client learns from one attempt besides its error.
type attemptResult struct {
	hostFailed bool // the next call should go to another host
	deadConn   bool // an idle connection was dead before a byte was written; the host may be fine
	date       time.Time
}

// attempt sends r once to base and reads the answer.
func (c *Client) attempt(ctx context.Context, base *url.URL, r *request) (*Error, attemptResult) {
	// Each attempt has its own deadline, so that a host that silently drops packets leaves time for the next host.
	own := ctx
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > c.timeout {
		var cancel context.CancelFunc
		own, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	t := new(trace)
	req := c.newRequest(httptrace.WithClientTrace(t.within(own), t.hooks()), base, r)

	e := &Error{Endpoint: r.endpoint, Host: base.Host, Sent: true}
	sentAt := time.Now()
	// Not an http.Client: it would follow redirects and wrap errors in a *url.Error with the URL.
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		e.Class = ClassTransport
		if !t.connected.Load() && c.usesProxy(req) {
			err = aboutProxy(err)
			e.Advice = adviceOfProxy(err)
		}
		e.Sent = !t.unsent(err)
		e.Err = c.transportCause(ctx, own, err, r.mask, e.Sent)
		deadConn := !e.Sent && t.reused.Load() && own.Err() == nil
		return e, attemptResult{deadConn: deadConn, hostFailed: !deadConn && c.blamesHost(ctx, own, time.Since(sentAt))}
	}
	defer resp.Body.Close()
	e.HTTPStatus = resp.StatusCode
	serverFailed := resp.StatusCode >= 500
	date, _ := http.ParseTime(resp.Header.Get("Date")) // zero if there is none
	body, err := readBody(resp)
	if err != nil && resp.StatusCode == http.StatusOK {
		e.Class = ClassTransport
		e.Err = c.transportCause(ctx, own, err, r.mask, true)
		e.Excerpt = describe(body)
		return e, attemptResult{hostFailed: c.blamesHost(ctx, own, time.Since(sentAt)), date: date}
	}
	e = r.read(e, body, sentAt)
	if e != nil && e.Errcode == 0 {
		e.nameCoding(contentCoding(resp.Header, body))
	}
	return e, attemptResult{hostFailed: serverFailed || e != nil && e.Errcode == retiredIP, date: date}
}

// retiredIP is the errcode of a call through an IP that WeChat has retired (docs/wechat-api.md#hosts).
const retiredIP = 48017

// read classifies a complete answer. It fills in and returns e, or returns nil if r accepted the answer.
func (r *request) read(e *Error, body []byte, sentAt time.Time) *Error {
	a, err := answer{}, errors.New("it is longer than 1 MiB")
	if len(body) <= maxBody {
		a, err = parse(body)
	}
	if err == nil && a.errcode != 0 {
		errmsg, rid := splitRID(r.mask.line(a.errmsg))
		m, known := lookUp(r.endpoint, a.errcode, errmsg)
		// WeChat sends errors with HTTP 200 (docs/wechat-api.md#answers). With another status the body may
		// come from a proxy, so its errcode counts only if the table has it.
		if known || e.HTTPStatus == http.StatusOK {
			e.Errcode, e.Errmsg, e.RID = a.errcode, clip(errmsg, maxErrmsg), rid
			e.Class, e.Wait, e.Advice = m.class, m.wait, m.advice
			return e
		}
	}
	if e.HTTPStatus != http.StatusOK {
		e.Class = ClassServer
		if e.HTTPStatus >= 300 && e.HTTPStatus < 400 {
			e.Err = &cause{text: "a redirect, not followed: it would carry credentials to another host"}
			e.Advice = "check WECHAT_API_URL, and look for a proxy or a login page on the network path: WeChat does not redirect"
		}
		e.Excerpt = describe(body)
		return e
	}
	if err == nil {
		err = r.accept(a, sentAt)
	}
	if err != nil {
		e.Class, e.Err = ClassBroken, &cause{text: err.Error()}
		e.Excerpt = describe(body)
		return e
	}
	return nil
}

// readBody reads at most one byte more than maxBody, so that the caller can detect a longer body.
func readBody(resp *http.Response) ([]byte, error) {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return nil, nil // this body is the connection itself, and no deadline ends it
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
}

// newRequest returns the request of one attempt. A GET has no body at all: over HTTP/2 an empty one would be an empty
// DATA frame after the headers, and relays refuse a GET with a body. The answer is asked for as it is (identity),
// because a decompressor would need limits of its own.
func (c *Client) newRequest(ctx context.Context, base *url.URL, r *request) *http.Request {
	u := *base
	u.Path += r.path
	if u.RawPath != "" {
		u.RawPath += r.path
	}
	u.RawQuery = r.query
	req := (&http.Request{
		Method: http.MethodGet, URL: &u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"User-Agent": {"wxkeeper"}, "Accept-Encoding": {"identity"}},
	}).WithContext(ctx)
	if r.body != nil {
		req.Method = http.MethodPost
		req.ContentLength = int64(len(r.body))
		req.Body = io.NopCloser(bytes.NewReader(r.body)) // without GetBody, so that net/http cannot repeat it
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

// A trace records whether a failed request may have reached the server.
type trace struct {
	traced    atomic.Bool // the RoundTripper calls the hooks of httptrace
	connected atomic.Bool // there was a connection for the request: through a proxy, the tunnel was open
	http2     atomic.Bool // that connection speaks HTTP/2
	reused    atomic.Bool
	wrote     atomic.Bool // bytes of the request may have left
}

type traceKey struct{}

// within returns a context from which onlyOnce gets the trace.
func (t *trace) within(ctx context.Context) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// errNotRepeated is the error of a request whose connection broke before an answer came.
var errNotRepeated = errors.New("the connection was closed before an answer came")

// onlyOnce is proxy for a transport that sends no request twice. When an idle connection of HTTP/1 breaks, net/http
// repeats a GET, because it counts as idempotent; a repeated GET /cgi-bin/token issues a second token and ends the
// first. net/http asks for the proxy before each try, and an error ends the request. Over HTTP/2 net/http repeats only
// what the server certainly has not processed, so that is allowed.
func onlyOnce(proxy func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(r *http.Request) (*url.URL, error) {
		if t, ok := r.Context().Value(traceKey{}).(*trace); ok && t.connected.Load() && !t.http2.Load() {
			return nil, errNotRepeated
		}
		if proxy == nil {
			return nil, nil
		}
		return proxy(r)
	}
}

func (t *trace) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(string) { t.traced.Store(true) },
		GotConn: func(info httptrace.GotConnInfo) {
			t.traced.Store(true)
			t.connected.Store(true)
			t.reused.Store(info.Reused)
			// HTTP/2 calls WroteHeaders only after the frame with the whole request has left, so a request
			// counts as written from here on.
			conn, ok := info.Conn.(*tls.Conn)
			isHTTP2 := ok && conn.ConnectionState().NegotiatedProtocol == "h2"
			t.http2.Store(isHTTP2)
			if isHTTP2 {
				t.wrote.Store(true)
			}
		},
		WroteHeaders: func() { t.wrote.Store(true) },
		WroteRequest: func(httptrace.WroteRequestInfo) { t.wrote.Store(true) },
	}
}

// unsent reports whether the request that failed with err certainly did not reach the server.
func (t *trace) unsent(err error) bool {
	op, isOp := errors.AsType[*net.OpError](err)
	_, atProxy := errors.AsType[*proxyError](err)
	return atProxy || isOp && op.Op == "dial" || t.traced.Load() && !t.wrote.Load()
}

// blamesHost reports whether a transport failure after elapsed is the fault of the host. It is not if the caller
// cancelled, or if the caller's deadline left the host hardly any time.
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

// transportCause returns the part of err that is free of secrets. serverText: see newCause.
func (c *Client) transportCause(caller, own context.Context, err error, m *mask, serverText bool) error {
	cs := newCause(err, m, serverText)
	if end := own.Err(); end != nil && !errors.Is(cs, end) {
		cs.is = append(cs.is, end) // net/http returns the context's cause in place of its error
	}
	if own.Err() != nil && caller.Err() == nil {
		cs.text += fmt.Sprintf(" (timeout of %s)", c.timeout) // the caller may not know this timeout
	}
	return cs
}
