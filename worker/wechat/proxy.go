package wechat

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A proxy receives a user and a password with each request or connection, and may quote them in its answer. Before a
// proxy has opened the tunnel to WeChat, none of its words are kept. An answer that a proxy may have given in the
// place of WeChat (only with http://) is treated like an answer of WeChat.

// withoutVariable is proxy with an error that does not quote the proxy's URL: it may contain a password.
func withoutVariable(proxy func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(r *http.Request) (*url.URL, error) {
		u, err := proxy(r)
		if err != nil {
			return nil, &proxyError{text: "HTTPS_PROXY or HTTP_PROXY is not the URL of a proxy, for example " +
				"http://10.0.0.1:3128"}
		}
		return u, nil
	}
}

// checkProxyAnswer is a hook of http.Transport. It refuses what the transport would refuse, in our own words.
func checkProxyAnswer(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	text := fmt.Sprintf("the proxy refused the connection with HTTP %d", answer.StatusCode)
	if status := http.StatusText(answer.StatusCode); status != "" {
		text += " (" + status + ")"
	}
	return &proxyError{text: text}
}

// proxyError is an error about the proxy in our own words.
type proxyError struct {
	text  string
	cause error // an error of the network; nil: none
}

func (e *proxyError) Error() string { return e.text }
func (e *proxyError) Unwrap() error { return e.cause }

// usesProxy reports whether r is sent through a proxy.
func (c *Client) usesProxy(r *http.Request) bool {
	t, ok := c.transport.(*http.Transport)
	if !ok || t.Proxy == nil {
		return false
	}
	u, err := t.Proxy(r)
	return u != nil || err != nil
}

// aboutProxy returns err, with which a request through a proxy ended before there was a connection. If err is not
// certainly an error of the network or of TLS, it may quote the proxy's answer to CONNECT, and is replaced. An error of
// reaching the proxy says so, because its name or address is not WeChat's.
func aboutProxy(err error) error {
	var network net.Error // a dial, a lookup, a timeout, or SOCKS, whose errors are numbers
	op, isOp := errors.AsType[*net.OpError](err)
	_, ours := errors.AsType[*proxyError](err)
	switch {
	case ours:
		return err
	case isOp && (op.Op == "proxyconnect" || op.Op == "socks connect"):
		inner := op.Err
		return &proxyError{"the proxy cannot be reached: " + inner.Error(), inner}
	case errors.As(err, &network), isTLS(err), errors.Is(err, http.ErrSchemeMismatch),
		strings.HasPrefix(err.Error(), "tls: "),
		slices.ContainsFunc(sentinels[:], func(s error) bool { return errors.Is(err, s) }):
		return err
	}
	return &proxyError{text: "the proxy gave an answer that cannot be used"}
}

// adviceOfProxy returns the advice for err of aboutProxy.
func adviceOfProxy(err error) string {
	if _, ok := errors.AsType[*proxyError](err); ok {
		return adviceProxy
	}
	return ""
}

// proxyForms returns the forms in which a text may quote the credentials of the proxies for these URLs.
func proxyForms(t http.RoundTripper, bases []*url.URL) (forms []string) {
	transport, ok := t.(*http.Transport)
	if !ok || transport.Proxy == nil {
		return nil
	}
	for _, base := range bases {
		proxy, err := transport.Proxy(&http.Request{Method: http.MethodGet, URL: base, Host: base.Host})
		if err != nil || proxy == nil || proxy.User == nil {
			continue
		}
		password, _ := proxy.User.Password()
		for _, part := range []string{proxy.User.Username(), password} {
			if len(part) >= shortestSecret {
				forms = append(forms, spellings(part)...)
			}
		}
		// Together even short parts are long enough to be hidden.
		pair := proxy.User.Username() + ":" + password
		whole := []string{pair, proxy.User.String()}
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			whole = append(whole, encoding.EncodeToString([]byte(pair)),
				encoding.WithPadding(base64.NoPadding).EncodeToString([]byte(pair)))
		}
		for _, s := range whole {
			forms = append(forms, escapes(s)...)
		}
	}
	forms = slices.DeleteFunc(forms, func(s string) bool { return len(s) < shortestPart })
	slices.Sort(forms)
	return slices.Compact(forms)
}
