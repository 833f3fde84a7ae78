package wechat

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/loopback"
)

// DefaultURL is the base URL of the WeChat server API (docs/wechat-api.md#hosts).
const DefaultURL = "https://api.weixin.qq.com"

// DefaultTimeout is the Timeout of a [Config] that sets none.
const DefaultTimeout = 5 * time.Second

// Config configures a [Client]. The zero value works.
type Config struct {
	// URLs are base URLs in order of preference; empty means DefaultURL. When one host fails, the next one
	// serves. A path is used as a prefix; userinfo, query and fragment are refused. http:// beyond loopback
	// needs AllowInsecure.
	URLs []string
	// AllowInsecure permits http:// beyond loopback. Everybody on the network path can then read the AppSecret.
	AllowInsecure bool
	// Timeout limits one attempt, from the dial to the last byte of the body; 0 means 5 s.
	Timeout time.Duration
	// Proxy returns the proxy for the URL of a call, or nil for none; nil means no proxy. The environment is not read.
	Proxy func(*url.URL) (*url.URL, error)
	// Transport sends the requests; nil means a transport of the client's own, made for a few hundred
	// concurrent calls. Of an *http.Transport the client uses a clone, with the Proxy of that transport. Any other
	// Transport must call the hooks of net/http/httptrace, as *http.Transport does; otherwise every failed request
	// counts as sent. It must not send a request twice.
	Transport http.RoundTripper
	// OnCall runs after each attempt, in the goroutine that made the attempt. It must not block. nil means no
	// function.
	OnCall func(Call)
}

// Call is one attempt. It carries no secret.
type Call struct {
	Endpoint Endpoint
	Host     string // with the port, unless it is the default port of the scheme
	Duration time.Duration
	Date     time.Time // Date header of the answer: WeChat's clock, in whole seconds; zero without an answer or a Date
	Err      *Error    // nil if the attempt succeeded
}

// CheckURL parses a base URL and returns it without a trailing slash. Its errors show only the scheme and the host: a
// URL can contain a password, and a copied query can contain a secret.
func CheckURL(s string, allowInsecure bool) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("cannot be parsed: write for example " + DefaultURL)
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http", u.Opaque != "", u.Hostname() == "":
		return nil, errors.New("is not an http or https URL, for example " + DefaultURL)
	case u.User != nil, u.RawQuery != "", u.ForceQuery, strings.Contains(s, "#"):
		return nil, fmt.Errorf("has more than a host and a path: leave %s://%s", u.Scheme, u.Host)
	case u.Scheme == "http" && !allowInsecure && !loopback.Host(u.Hostname()):
		return nil, fmt.Errorf("is http://%s, which would send secrets over the network in the clear: write https://, "+
			"or set WECHAT_API_INSECURE=true", u.Host)
	}
	return &url.URL{
		Scheme: u.Scheme, Host: u.Host,
		Path: strings.TrimRight(u.Path, "/"), RawPath: strings.TrimRight(u.RawPath, "/"),
	}, nil
}

// newTransport returns a transport for a few hundred concurrent calls to one host.
func newTransport(timeout time.Duration) *http.Transport {
	// A host that silently drops packets must leave time for the next host within one timeout.
	connect := min(timeout/2, 2*time.Second)
	return &http.Transport{
		// Without this hook the error would quote the proxy's own words.
		OnProxyConnectResponse: checkProxyAnswer,
		DialContext:            (&net.Dialer{Timeout: connect, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    connect,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		// A dead HTTP/2 connection fails all calls on it, so pings detect it.
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 3 * time.Second},
		MaxIdleConnsPerHost: 512, // with the default of 2, nearly every concurrent call would dial again
		// Servers usually close an idle connection after 60 to 75 s. This is shorter, because a request on a
		// connection that the server is closing fails without showing whether it arrived.
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // see newRequest
	}
}
