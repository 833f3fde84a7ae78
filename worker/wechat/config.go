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
	// Transport sends the requests; nil means a transport of the client's own, made for a few hundred
	// concurrent calls. A custom Transport must call the hooks of net/http/httptrace, as *http.Transport
	// does; otherwise every failed request counts as sent. It must not send a request twice.
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

// baseURLs returns the checked URLs without a trailing slash. Errors name the field and show no userinfo and
// no query.
func (cfg *Config) baseURLs() ([]*url.URL, error) {
	urls := cfg.URLs
	if len(urls) == 0 {
		urls = []string{DefaultURL}
	}
	bases := make([]*url.URL, len(urls))
	for i, s := range urls {
		u, err := checkURL(s, cfg.AllowInsecure)
		if err != nil {
			return nil, fmt.Errorf("wechat: Config.URLs[%d]: %w", i, err)
		}
		bases[i] = u
	}
	return bases, nil
}

func checkURL(s string, allowInsecure bool) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil: // its text quotes the URL, which may hold a password
		return nil, errors.New("not a URL; an example is " + DefaultURL)
	case u.Scheme != "https" && u.Scheme != "http", u.Opaque != "", u.Hostname() == "":
		return nil, errors.New("not an https:// URL with a host; an example is " + DefaultURL)
	case u.User != nil:
		return nil, fmt.Errorf("the URL of %s must not contain a user or password", u.Host)
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return nil, fmt.Errorf("the URL of %s must not contain a query or fragment", u.Host)
	case u.Scheme == "http" && !allowInsecure && !loopback.Host(u.Hostname()):
		return nil, fmt.Errorf("http://%s would show the AppSecret to everybody on the network path: use https://, or set "+
			"AllowInsecure (WECHAT_API_INSECURE=true) if you trust the path", u.Host)
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
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: connect, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: connect,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:   true,
		// A dead HTTP/2 connection fails all calls on it, so pings detect it.
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 3 * time.Second},
		MaxIdleConnsPerHost: 512, // with the default of 2, nearly every concurrent call would dial again
		// Servers usually close an idle connection after 60 to 75 s. This is shorter, because a request on a
		// connection that the server is closing fails without showing whether it arrived.
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // bodies are small, and a decompression bomb is impossible
	}
}
