package worker

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/wxkeeper/wxkeeper/messages"
)

// signedURL returns what WeChat signs of a page's URL: location.href.split('#')[0], as the browser of the page shows
// it. Programs that do not ask the browser build the URL from its parts. What every browser then shows differently,
// is signed as a browser shows it: scheme and host in lower case, without the default port, with a path. What cannot
// be in location.href is refused with the reason, because WeChat would only answer "invalid signature". Everything
// else is signed byte for byte: a browser may leave characters alone that net/url would encode, and the other way
// round. Errors do not show the URL.
//
// See docs/architecture.md#signed-url and https://url.spec.whatwg.org/#url-serializing.
func signedURL(url string) (string, error) {
	url, _, _ = strings.Cut(url, "#")
	if url == "" {
		return "", messages.Errorf(messages.InvalidRequest, "url is missing")
	}
	scheme, rest, found := strings.Cut(url, "://")
	scheme = strings.ToLower(scheme)
	if !found || scheme != "http" && scheme != "https" || rest == "" || strings.ContainsAny(rest[:1], "/?") {
		return "", messages.Errorf(messages.InvalidRequest,
			"url must begin with http:// or https:// and a host, as location.href does, not URL-encoded")
	}
	if err := checkText("url", url, messages.MaxURL); err != nil {
		return "", err
	}
	end := len(rest)
	if i := strings.IndexAny(rest, "/?\\"); i >= 0 {
		end = i
	}
	host, err := shownHost(scheme, rest[:end])
	if err != nil {
		return "", err
	}
	path := rest[end:]
	if err := checkPath(path); err != nil {
		return "", err
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // only a query, or nothing
	}
	return scheme + "://" + host + path, nil
}

// defaultPorts are the ports that browsers do not show.
var defaultPorts = map[string]uint64{"http": 80, "https": 443}

// shownHost returns the host and the port of a URL as a browser shows them.
func shownHost(scheme, s string) (string, error) {
	refused := func(format string, args ...any) (string, error) {
		return "", messages.Errorf(messages.InvalidRequest, format, args...)
	}
	if strings.Contains(s, "@") {
		return refused("url has a user name before its host, which location.href does not have")
	}
	host, port, colon := s, "", strings.LastIndexByte(s, ':')
	if colon > strings.LastIndexByte(s, ']') {
		host, port = s[:colon], s[colon+1:]
	}
	host = strings.ToLower(host)
	if !isASCII(host) {
		return refused("the host of url has characters beyond ASCII: location.href has it in the form xn--…")
	}
	if ip, ok := strings.CutPrefix(host, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(ip, "]"))
		if err != nil || !strings.HasSuffix(ip, "]") || addr.Zone() != "" {
			return refused("the host of url is not an IP address in brackets")
		}
		shown := addr.String()
		if addr.Is4In6() { // a browser has no dots in it
			b := addr.As16()
			shown = fmt.Sprintf("::ffff:%x:%x", uint(b[12])<<8|uint(b[13]), uint(b[14])<<8|uint(b[15]))
		}
		host = "[" + shown + "]"
	} else if host == "" || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
		return refused("the host of url has a character that no host in location.href has")
	} else if _, err := netip.ParseAddr(host); err != nil && endsInNumber(host) {
		return refused("the host of url ends in a number, and is not an IP address as a browser shows it: four numbers, " +
			"for example 192.0.2.1")
	}
	if port == "" {
		return host, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return refused("the port of url is not a number from 0 to 65535")
	}
	if n == defaultPorts[scheme] {
		return host, nil
	}
	return host + ":" + strconv.FormatUint(n, 10), nil
}

// endsInNumber reports whether a browser takes a host for an IPv4 address, which it shows as four decimal numbers:
// https://url.spec.whatwg.org/#ends-in-a-number-checker.
func endsInNumber(host string) bool {
	last := strings.TrimSuffix(host, ".")
	last = last[strings.LastIndexByte(last, '.')+1:]
	if last != "" && strings.Trim(last, "0123456789") == "" {
		return true
	}
	hex, ok := strings.CutPrefix(last, "0x")
	return ok && strings.Trim(hex, "0123456789abcdef") == ""
}

// checkPath refuses a path and query that a browser would show differently.
func checkPath(s string) error {
	path, _, _ := strings.Cut(s, "?")
	switch {
	case !isASCII(s):
		return messages.Errorf(messages.InvalidRequest, "url has characters beyond ASCII: location.href has them "+
			"percent-encoded, for example %%E5%%BA%%97; send location.href as it is, not decoded")
	case strings.ContainsAny(s, `"<>`):
		return messages.Errorf(messages.InvalidRequest, `url has one of " < >: location.href has them percent-encoded`)
	case strings.Contains(path, `\`):
		return messages.Errorf(messages.InvalidRequest, `the path of url has a backslash: location.href has / in its place`)
	case slices.ContainsFunc(strings.Split(path, "/"), isDots):
		return messages.Errorf(messages.InvalidRequest,
			"the path of url has a segment . or .., which a browser resolves: location.href does not have it")
	}
	return nil
}

// isDots reports whether a segment of a path is . or .., which may be percent-encoded.
func isDots(segment string) bool {
	segment = strings.ReplaceAll(strings.ToLower(segment), "%2e", ".")
	return segment == "." || segment == ".."
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}
