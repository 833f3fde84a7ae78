package kv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/loopback"
	"github.com/wxkeeper/wxkeeper/messages"
)

// wechatHosts are the hosts of WeChat's server API: the nearest, the one for disasters, those of a region.
var wechatHosts = []string{"api.weixin.qq.com", "api2.weixin.qq.com", "sh.api.weixin.qq.com", "sz.api.weixin.qq.com", "hk.api.weixin.qq.com"}

// defaultPatience is how long a request without a deadline waits for a token.
const defaultPatience = 5 * time.Second

// Transport is an [http.RoundTripper] that gives each call of WeChat's API the access_token of one account:
//
//	client := &http.Client{Transport: reader.Transport(appid), Timeout: 5 * time.Second}
//
// While there is no valid token it waits for one, within the request's deadline; then its error is [ErrNotFound] or
// [ErrExpired]. Where WeChat answers that the token is dead (errcode 40001, 42001, 40014), it reports that to the workers,
// once however many requests meet it, waits for the new token within the request's deadline, and sends the request a
// second time, where its body can be sent again (none, or with GetBody, as http.NewRequest makes it of a bytes.Reader,
// bytes.Buffer or strings.Reader). Where no new token comes, or the body cannot be sent again, the caller gets WeChat's
// answer.
//
// It passes on untouched, without a token: requests to other hosts, those to which another host has redirected an
// http.Client, which would act in this account's name, requests that bring an access_token of their own in their URL,
// and those of /sns/, whose tokens are of users. To WeChat's hosts it refuses plain http:// beyond loopback, and the
// interfaces that issue tokens (/cgi-bin/token, /cgi-bin/stable_token), because who fetches a token for himself kills that
// of everybody.
//
// The token stands in no request of the caller's, no Response.Request, no redirect and no error. What stands below a
// Transport sees it: a Base that logs or traces, and over HTTP/2 the caller's own httptrace.ClientTrace. Wrap the
// Transport with those, and do not put them below it.
//
// Answers are handed on as they come; what is looked at is an object of JSON within the first 16 KiB, not one in an
// encoding (gzip) for which the caller has asked himself. It logs nothing. A Transport is safe for concurrent use, its
// fields must not be changed once it is used; several of one Reader share their reports. Its zero value does not work.
type Transport struct {
	// Base sends the requests; nil is http.DefaultTransport.
	Base http.RoundTripper
	// Hosts are those that get the token, each host or host:port; without a port the usual one is meant. nil: those of
	// WeChat's API.
	Hosts []string
	// Patience is how long a request without a deadline waits for a token, and again for a new one; 0 is 5 s.
	Patience time.Duration

	reader  *Reader
	appid   string
	current *Handle
}

// Transport makes a Transport for one account, with its fields at their zero values. It needs no end.
func (r *Reader) Transport(appid string) *Transport {
	return &Transport{reader: r, appid: appid, current: r.Handle(appid, messages.AccessToken)}
}

var errNoReader = errors.New("kv: a Transport without a Reader: Reader.Transport makes one")

// RoundTrip is what http.Client calls.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.reader == nil {
		closeBody(req)
		return nil, errNoReader
	}
	if !t.isListed(req.URL) {
		return t.base().RoundTrip(req)
	}
	if err := refuse(req.URL); err != nil {
		closeBody(req)
		return nil, err
	}
	if hasOwnToken(req.URL) || t.isLedHere(req) {
		return t.base().RoundTrip(req)
	}
	token, err := t.token(req.Context())
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := t.send(req, req.Body, token)
	if err != nil || !isDeadToken(resp) {
		return resp, err
	}
	token, ok := t.another(req, token)
	if !ok {
		return resp, nil
	}
	body := req.Body
	if body != nil && body != http.NoBody {
		if body, err = req.GetBody(); err != nil {
			return resp, nil //nolint:nilerr // WeChat has answered, and the caller may know what to do about that
		}
	}
	resp.Body.Close()
	return t.send(req, body, token)
}

// CloseIdleConnections is what http.Client.CloseIdleConnections calls.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (t *Transport) base() http.RoundTripper {
	if t.Base == nil {
		return http.DefaultTransport
	}
	return t.Base
}

// isListed reports whether a URL leads to one of the hosts.
func (t *Transport) isListed(u *url.URL) bool {
	if u == nil || u.Scheme != "https" && u.Scheme != "http" || u.Opaque != "" {
		return false
	}
	hosts := t.Hosts
	if hosts == nil {
		hosts = wechatHosts
	}
	return slices.ContainsFunc(hosts, func(h string) bool { return isHost(u, h) })
}

// isLedHere reports whether another host has had a part in sending an http.Client here. One redirect of WeChat's own does
// not change that: somebody else has chosen what is called.
func (t *Transport) isLedHere(req *http.Request) bool {
	for from := req.Response; from != nil; from = from.Request.Response {
		if from.Request == nil || !t.isListed(from.Request.URL) {
			return true
		}
	}
	return false
}

// isHost reports whether u leads to an entry of Hosts. That is decided by the URL, which is where the request goes, and
// not by the Host header.
func isHost(u *url.URL, entry string) bool {
	e := url.URL{Host: entry}
	if !strings.EqualFold(u.Hostname(), e.Hostname()) {
		return false
	}
	usual := "443"
	if u.Scheme == "http" {
		usual = "80"
	}
	return cmp.Or(u.Port(), usual) == cmp.Or(e.Port(), usual)
}

// hasOwnToken reports whether a URL brings an access_token, be it an empty one, or leads to where those of users are used.
func hasOwnToken(u *url.URL) bool {
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		if isToken(pair) {
			return true
		}
	}
	return strings.HasPrefix(path.Clean(u.Path), "/sns/")
}

// isToken reports whether a parameter of a query is an access_token.
func isToken(parameter string) bool {
	name, _, _ := strings.Cut(parameter, "=")
	plain, err := url.QueryUnescape(name)
	return err == nil && plain == "access_token"
}

// refuse says why a request must not be sent: nil where it may.
func refuse(u *url.URL) error {
	if u.Scheme != "https" && !loopback.Host(u.Hostname()) {
		return fmt.Errorf("kv: plain http to %s is refused: the access_token would cross the network in the clear", u.Host)
	}
	switch p := path.Clean(u.Path); p {
	case "/cgi-bin/token", "/cgi-bin/stable_token":
		return fmt.Errorf("kv: %s is refused: a service that fetches a token for itself kills that of all others; "+
			"ask the Reader for the token, or use a client without this Transport", p)
	}
	return nil
}

// token returns the current token, or waits for one.
func (t *Transport) token(ctx context.Context) (string, error) {
	value, err := t.current.Value()
	if err == nil {
		return value, nil
	}
	waiting, cancel := t.waiting(ctx)
	defer cancel()
	if c, err := t.reader.Wait(waiting, t.appid, messages.AccessToken); err == nil {
		return c.Value, nil
	}
	if value, err = t.current.Value(); err == nil {
		return value, nil
	}
	if why := t.reader.Health().Trouble; why != "" {
		err = fmt.Errorf("%w (the bucket is not heard: %s)", err, why)
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", err, ctx.Err())
	}
	return "", fmt.Errorf("kv: no access_token for the request: %w", err)
}

// another reports that a token is dead, and returns another one as soon as there is one. false: there is none in time, or
// the request cannot be sent again.
func (t *Transport) another(req *http.Request, dead string) (token string, ok bool) {
	canRepeat := req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
	if token, ok = t.reader.other(t.appid, dead); ok {
		return token, canRepeat
	}
	report := t.reader.reportDead(t.appid, dead)
	if !canRepeat {
		return "", false
	}
	waiting, cancel := t.waiting(req.Context())
	defer cancel()
	select {
	case <-report.done:
	case <-waiting.Done():
	}
	return t.reader.other(t.appid, dead)
}

// waiting is within which a request waits. It leaves some of the request's time, so that the caller gets an answer or an
// error that says what was missing, and not a mere timeout.
func (t *Transport) waiting(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithTimeout(ctx, cmp.Or(t.Patience, defaultPatience))
	}
	left := time.Until(end)
	return context.WithTimeout(ctx, left-min(left/10, time.Second))
}

// send sends a request with a body and a token. The request itself stays as it is.
func (t *Transport) send(req *http.Request, body io.ReadCloser, token string) (*http.Response, error) {
	copied := struct {
		http.Request
		url url.URL
	}{*req, *req.URL} // in one piece: this is done for every call
	sent, u := &copied.Request, &copied.url
	sent.URL, sent.Body = u, body
	if u.RawQuery == "" {
		u.RawQuery = "access_token=" + url.QueryEscape(token)
	} else {
		u.RawQuery += "&access_token=" + url.QueryEscape(token)
	}
	resp, err := t.base().RoundTrip(sent)
	if err != nil {
		return nil, hideToken(err, token)
	}
	resp.Request = req
	hideInLocation(resp.Header, token)
	return resp, nil
}

// closeBody does what a RoundTripper owes a request that it does not send.
func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
