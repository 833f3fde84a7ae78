package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/http/httpproxy"

	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// lowerToo are the variables that are also read in lower case, as by most programs.
var lowerToo = [...]string{"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"}

// readLower puts the lower-case forms of lowerToo into their places.
func readLower(set map[string]string) error {
	for _, name := range lowerToo {
		lower := strings.ToLower(name)
		switch upper, value := set[name], set[lower]; {
		case value == "" || upper == value:
		case upper != "":
			return setting.Errorf(name+", "+lower, "they differ, and programs disagree about which one counts: set one of them")
		default:
			set[name] = value
		}
	}
	return nil
}

// checkNetwork checks the variables of the network path. Go's own reader of them ignores a proxy that it cannot parse:
// calls would then leave by an address that is not on the white list. It ignores a file of certificates that it cannot
// read, too.
func (c *Config) checkNetwork() error {
	for _, v := range []struct {
		name  string
		value *string
	}{{"HTTPS_PROXY", &c.HTTPSProxy}, {"HTTP_PROXY", &c.HTTPProxy}} {
		if err := checkProxy(*v.value); err != nil {
			return setting.Errorf(v.name, "%w; write for example http://10.0.0.1:3128", err)
		}
		*v.value = strings.TrimSpace(*v.value)
	}
	for entry := range strings.SplitSeq(c.NoProxy, ",") {
		if err := checkNoProxy(strings.TrimSpace(entry)); err != nil {
			return setting.Errorf("NO_PROXY", "%w; write hosts, domains, IPs or networks, with commas between them, for "+
				"example localhost,.example.com,10.0.0.0/8", err)
		}
	}
	if !readsCertificates {
		return nil
	}
	if err := checkCertFile(c.CertFile); err != nil {
		return setting.Errorf("SSL_CERT_FILE", "%w", err)
	}
	if err := checkCertDirs(c.CertDir); err != nil {
		return setting.Errorf("SSL_CERT_DIR", "%w", err)
	}
	return nil
}

// checkProxy checks the URL of a proxy. Its errors show nothing of it, because it may contain a password.
func checkProxy(s string) error {
	if s = strings.TrimSpace(s); s == "" {
		return nil
	}
	if !strings.Contains(s, "://") { // as Go does: a proxy may lack its scheme
		s = "http://" + s
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("this is not the URL of a proxy (special characters of a password are written as %XX)")
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" && u.Scheme != "socks5h":
		return errors.New("the scheme of a proxy is http, https, socks5 or socks5h")
	case !isHost(u.Hostname()):
		return errors.New("it names no host")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, strings.Contains(s, "#"):
		return errors.New("a proxy has no path, query or fragment (a PAC file is not read)")
	}
	if _, port, err := net.SplitHostPort(u.Host); err == nil && !isPort(port) {
		return errors.New("its port is not a number from 1 to 65535")
	}
	return nil
}

// isHost reports whether s can be the name or the address of a host.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return strings.Trim(s, ".") != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._", r)
	})
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// checkNoProxy checks an entry of NO_PROXY. Go ignores what it does not understand, and calls would take the proxy.
func checkNoProxy(entry string) error {
	if entry == "" || entry == "*" {
		return nil
	}
	wrong := fmt.Errorf("%q is not an entry", entry)
	if strings.Contains(entry, "@") { // a URL with a password, in the wrong variable
		wrong = errors.New("this is not a list of hosts")
	}
	if strings.Contains(entry, "/") {
		if _, _, err := net.ParseCIDR(entry); err != nil {
			return wrong
		}
		return nil
	}
	host := entry
	if h, port, err := net.SplitHostPort(entry); err == nil {
		if !isPort(port) {
			return wrong
		}
		host = h
	}
	if !isHost(strings.TrimPrefix(strings.Trim(host, "[]"), "*.")) {
		return wrong
	}
	return nil
}

// proxyFunc returns the proxy for a URL, as HTTPS_PROXY, HTTP_PROXY and NO_PROXY say; nil if there is none.
func (c *Config) proxyFunc() func(*url.URL) (*url.URL, error) {
	if c.HTTPSProxy == "" && c.HTTPProxy == "" {
		return nil
	}
	return (&httpproxy.Config{HTTPSProxy: c.HTTPSProxy, HTTPProxy: c.HTTPProxy, NoProxy: c.NoProxy}).ProxyFunc()
}

// Route is the way that the calls of one URL of WECHAT_API_URL take.
type Route struct {
	Host     string
	Proxy    string // without its user and password; empty: directly
	Variable string // HTTPS_PROXY or HTTP_PROXY, which the scheme of the URL selects; also if the variable is not set
	Excepted bool   // the variable is set, and NO_PROXY, or a rule of Go for this machine, excepts the host
}

// Routes returns the ways of the calls of WeChat, in the order of WECHAT_API_URL; nil if no proxy is configured.
func (c *Config) Routes() (routes []Route) {
	proxy := c.proxyFunc()
	if proxy == nil {
		return nil
	}
	for _, s := range c.APIURLs {
		u, err := url.Parse(s)
		if err != nil {
			continue // a loaded Config has none
		}
		r := Route{Host: u.Host, Variable: "HTTPS_PROXY"}
		value := c.HTTPSProxy
		if u.Scheme == "http" {
			r.Variable, value = "HTTP_PROXY", c.HTTPProxy
		}
		if p, err := proxy(u); err == nil && p != nil {
			r.Proxy = redact.URLs(p.String())
		}
		r.Excepted = value != "" && r.Proxy == ""
		routes = append(routes, r)
	}
	return routes
}
