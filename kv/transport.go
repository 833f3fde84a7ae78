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

// wechatHosts are the hosts of WeChat's server API (docs/wechat-api.md#hosts): the default, the backup, and
// the hosts of regions.
var wechatHosts = []string{
	"api.weixin.qq.com", "api2.weixin.qq.com", "sh.api.weixin.qq.com", "sz.api.weixin.qq.com", "hk.api.weixin.qq.com",
}

// defaultPatience is how long a request without a deadline waits for a token.
const defaultPatience = 5 * time.Second

// Transport is an [http.RoundTripper] that adds the access_token of one account to each call of WeChat's API:
//
//	client := &http.Client{Transport: reader.Transport(appid), Timeout: 5 * time.Second}
//
// While there is no valid token, a request waits for one until shortly before its deadline. If none arrives,
// its error is [ErrNotFound] or [ErrExpired].
//
// If WeChat answers that the token is dead (errcode 40001, 42001 or 40014), the Transport reports that to the
// workers, once for all requests that were refused, waits for the new token until shortly before the request's
// deadline, and sends the request again, with up to five tokens. The body must allow that: the request has no body,
// or a GetBody, which http.NewRequest sets for a bytes.Reader, bytes.Buffer and strings.Reader. If no new token
// arrives, or the body cannot be sent again, the caller gets WeChat's answer.
//
// It sends these requests unchanged, without the token:
//   - requests to other hosts,
//   - requests to which another host has redirected an http.Client, because that host would act in the
//     account's name,
//   - requests with an access_token of their own in the URL,
//   - requests to /sns/, whose tokens belong to users.
//
// On WeChat's hosts it refuses plain http:// beyond loopback, and the interfaces that issue tokens
// (/cgi-bin/token, /cgi-bin/stable_token): a service that fetches a token for itself kills the token of all
// other services.
//
// The token is not visible in the caller's requests, in Response.Request, in redirects and in errors. It is
// visible to what is below the Transport: a Base that logs or traces and, with HTTP/2, the
// httptrace.ClientTrace of the caller. Put logging and tracing around the Transport.
//
// Answers are returned as they arrive. The Transport only examines a JSON object within the first 16 KiB, and
// nothing if the caller has requested an encoding (gzip) itself. It logs nothing. It is safe for concurrent
// use. Its fields must not be changed after its first use. All Transports of one Reader share their reports.
// The zero value does not work.
type Transport struct {
	// Base sends the requests; nil is http.DefaultTransport.
	Base http.RoundTripper
	// Hosts are the hosts that get the token, as host or host:port; without a port, the default port of the
	// scheme. nil: the hosts of WeChat's API.
	Hosts []string
	// Patience is how long a request without a deadline waits for a token, and after a refusal for a new
	// token; 0 is 5 s.
	Patience time.Duration

	reader  *Reader
	appid   string
	current *Handle
}

// Transport makes a Transport for one account, with its fields at their zero values. It need not be closed.
// If there can be no credential of the account (see [Reader.Handle]), requests that need a token return at
// once an [ErrNotFound] that says why.
func (r *Reader) Transport(appid string) *Transport {
	return &Transport{reader: r, appid: appid, current: r.Handle(appid, messages.AccessToken)}
}

var errNoReader = errors.New("kv: the Transport has no Reader: make it with Reader.Transport")

// RoundTrip sends one request, or two if WeChat refuses the token of the first. http.Client calls it.
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
	if hasOwnToken(req.URL) || t.isRedirected(req) {
		return t.base().RoundTrip(req)
	}
	token, err := t.token(req.Context())
	if err != nil {
		closeBody(req)
		return nil, err
	}
	body := req.Body
	for tried := 1; ; tried++ {
		sentAt := time.Now()
		resp, err := t.send(req, body, token)
		if err != nil || tried == maxTokens || !isDeadToken(resp) {
			return resp, err
		}
		other, ok := t.replace(req, token, sentAt)
		if !ok {
			return resp, nil
		}
		if body != nil && body != http.NoBody {
			if body, err = req.GetBody(); err != nil {
				return resp, nil //nolint:nilerr // the caller gets WeChat's answer
			}
		}
		resp.Body.Close()
		token = other
	}
}

// maxTokens is how many tokens are tried for a request, each after WeChat has refused the one before: another system
// may kill a new token at once.
const maxTokens = 5

// CloseIdleConnections closes the idle connections of Base. http.Client.CloseIdleConnections calls it.
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

// isListed reports whether a URL belongs to one of the hosts.
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

// isRedirected reports whether another host took part in redirecting an http.Client to this request. A later
// redirect by WeChat itself does not change that: another host has chosen what is called.
func (t *Transport) isRedirected(req *http.Request) bool {
	for from := req.Response; from != nil; from = from.Request.Response {
		if from.Request == nil || !t.isListed(from.Request.URL) {
			return true
		}
	}
	return false
}

// isHost reports whether u belongs to an entry of Hosts. The Host header of the request does not count,
// because the URL decides where the request is sent.
func isHost(u *url.URL, entry string) bool {
	e := url.URL{Host: entry}
	if !strings.EqualFold(u.Hostname(), e.Hostname()) {
		return false
	}
	port := "443"
	if u.Scheme == "http" {
		port = "80"
	}
	return cmp.Or(u.Port(), port) == cmp.Or(e.Port(), port)
}

// hasOwnToken reports whether a URL has an access_token, even an empty one, or a path whose tokens belong to
// users.
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

// refuse returns why a request must not be sent, or nil.
func refuse(u *url.URL) error {
	if u.Scheme != "https" && !loopback.Host(u.Hostname()) {
		return fmt.Errorf("kv: plain http to %s is refused: it would send the access_token unencrypted", u.Host)
	}
	switch p := path.Clean(u.Path); p {
	case "/cgi-bin/token", "/cgi-bin/stable_token":
		return fmt.Errorf("kv: %s is refused: a service that fetches a token for itself kills the token of all other "+
			"services; read the token from the Reader, or use a client without this Transport", p)
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
	c, err := t.current.current() // once more: the token may have arrived when the patience ended
	if err == nil {
		return c.Value, nil
	}
	if why := t.reader.Health().Error; why != "" {
		err = fmt.Errorf("%w (changes of the bucket are not received: %s)", err, why)
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", err, ctx.Err())
	}
	return "", fmt.Errorf("kv: no access_token for the request: %w", err)
}

// replace reports a refused token, and returns another token as soon as there is one. ok is false if none
// arrives in time, or the request cannot be sent again. sentAt is the time before the refused call was sent.
func (t *Transport) replace(req *http.Request, refused string, sentAt time.Time) (token string, ok bool) {
	canRepeat := req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
	if token, ok = t.reader.otherToken(t.appid, refused); ok {
		return token, canRepeat
	}
	waiting, cancel := t.waiting(req.Context())
	defer cancel()
	for {
		report := t.reader.startReport(t.appid, refused, sentAt)
		if !canRepeat {
			return "", false
		}
		select {
		case <-report.done:
		case <-waiting.Done():
			return t.reader.otherToken(t.appid, refused)
		}
		if token, ok = t.reader.otherToken(t.appid, refused); ok || report.covers(time.Now(), sentAt) {
			return token, ok
		}
	}
}

// waiting limits how long a request waits for a token. It leaves a part of the request's time, so that the
// caller gets WeChat's answer or an error that says what is missing, and not only a timeout.
func (t *Transport) waiting(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithTimeout(ctx, cmp.Or(t.Patience, defaultPatience))
	}
	left := time.Until(end)
	return context.WithTimeout(ctx, left-min(left/10, time.Second))
}

// send sends a request with a body and a token. It does not change the request itself.
func (t *Transport) send(req *http.Request, body io.ReadCloser, token string) (*http.Response, error) {
	copied := struct {
		http.Request
		url url.URL
	}{*req, *req.URL} // one allocation, because every call does this
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

// closeBody closes the body of a request that is not sent, as an http.RoundTripper must.
func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
