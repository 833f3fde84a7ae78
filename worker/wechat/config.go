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

// DefaultURL is the base URL of the WeChat server API (getaccesstoken.txt).
const DefaultURL = "https://api.weixin.qq.com"

// DefaultTimeout is the Timeout of a [Config] that sets none.
const DefaultTimeout = 5 * time.Second

// Config is what a [Client] is made of. The zero value works.
type Config struct {
	// URLs are base URLs in order of preference; empty means DefaultURL. The next one serves when one fails. A path is
	// kept as a prefix; userinfo, query and fragment are refused. http:// beyond loopback needs AllowInsecure.
	URLs []string
	// AllowInsecure permits http:// beyond loopback, where everybody on the way reads the AppSecret.
	AllowInsecure bool
	// Timeout is how long one attempt may last, from the dial to the last byte of the body; 0 means 5 s.
	Timeout time.Duration
	// Transport carries the requests; nil means a transport of the client's own, made for a few hundred calls at a time.
	// Another one must report to net/http/httptrace, as *http.Transport does; without that every failed request counts as
	// sent. It must not send a request twice.
	Transport http.RoundTripper
	// OnCall is told after every attempt, in the goroutine that made it. It must not block. nil means nobody is told.
	OnCall func(Call)
}

// Call is one attempt. It carries no secret.
type Call struct {
	Endpoint Endpoint
	Host     string // with the port if it is not the usual one
	Duration time.Duration
	Date     time.Time // of the answer: WeChat's clock, in whole seconds; zero where no answer came, or none with a date
	Err      *Error    // nil if it succeeded
}

// baseURLs are the checked URLs without a trailing slash. Errors name the field and show no userinfo and no query.
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
		return nil, errors.New("not a URL; right would be " + DefaultURL)
	case u.Scheme != "https" && u.Scheme != "http", u.Opaque != "", u.Hostname() == "":
		return nil, errors.New("not an https:// URL with a host; right would be " + DefaultURL)
	case u.User != nil:
		return nil, fmt.Errorf("the URL of %s must not contain a user or password", u.Host)
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return nil, fmt.Errorf("the URL of %s must not contain a query or fragment", u.Host)
	case u.Scheme == "http" && !allowInsecure && !loopback.Host(u.Hostname()):
		return nil, fmt.Errorf("http://%s would show the AppSecret to everybody on the way: use https://, or set AllowInsecure "+
			"(WECHAT_API_INSECURE=true) if the way is trusted", u.Host)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/"), RawPath: strings.TrimRight(u.RawPath, "/")}, nil
}

// newTransport is made for a few hundred calls at a time to one host.
func newTransport(timeout time.Duration) *http.Transport {
	// A host that swallows packets must leave time for the next one within one timeout.
	connect := min(timeout/2, 2*time.Second)
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: connect, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: connect,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:   true,
		// A dead HTTP/2 connection takes every call with it, so it is looked after.
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 3 * time.Second},
		MaxIdleConnsPerHost: 512, // the default of 2 would dial anew for nearly every concurrent call
		// Shorter than the 60 to 75 s after which servers usually hang up: a request must not meet a connection that
		// the server is just closing, because nobody could tell whether it arrived.
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // bodies are small, and so no bomb can be unpacked
	}
}
