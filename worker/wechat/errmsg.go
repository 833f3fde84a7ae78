package wechat

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// ridPattern is the request id at the end of an errmsg, by which WeChat's support finds the call (wechat-api.md 1.5).
var ridPattern = regexp.MustCompile(`[\s,;.]*\brid:?\s*([0-9a-fA-F]{6,12}-[0-9a-fA-F]{6,12}-[0-9a-fA-F]{6,12})\b`)

// splitRID takes the rid out of an errmsg.
func splitRID(errmsg string) (rest, rid string) {
	m := ridPattern.FindStringSubmatchIndex(errmsg)
	if m == nil {
		return errmsg, ""
	}
	rid = errmsg[m[2]:m[3]]
	return strings.TrimSpace(errmsg[:m[0]] + errmsg[m[1]:]), rid
}

// findIPs are the addresses that an errmsg names, each once: `invalid ip 8.149.1.2 ipv6 ::ffff:8.149.1.2, not in
// whitelist` (wechat-api.md 1.7) names one, in two forms.
func findIPs(errmsg string) []string {
	words := strings.FieldsFunc(errmsg, func(r rune) bool {
		return r != '.' && r != ':' && !('0' <= r && r <= '9') && !('a' <= r && r <= 'z') && !('A' <= r && r <= 'Z')
	})
	var ips []string
	for _, w := range words {
		ip, ok := parseIP(w)
		if !ok || ip.IsUnspecified() {
			continue
		}
		if s := ip.String(); !slices.Contains(ips, s) {
			ips = append(ips, s)
		}
	}
	return ips
}

// parseIP reads an address, also one with a port, at the end of a sentence, or after a label ("ip:8.149.1.2").
func parseIP(word string) (netip.Addr, bool) {
	word = strings.TrimRight(word, ".")
	_, value, _ := strings.Cut(word, ":")
	for _, s := range []string{word, strings.TrimRight(word, ":"), value} {
		if ip, err := netip.ParseAddr(s); err == nil {
			return ip.Unmap(), true
		}
	}
	ap, err := netip.ParseAddrPort(word)
	return ap.Addr().Unmap(), err == nil
}

// nameIPs names the caller's IP as well as errmsg lets it.
func nameIPs(errmsg string) string {
	if ips := findIPs(errmsg); len(ips) > 0 {
		return strings.Join(ips, " and ")
	}
	return "the public IP of this machine (WeChat did not name it)"
}

// printable makes one line of foreign text that no terminal and no log reader can be tricked with: valid UTF-8, runs of
// white space made one space, control and invisible formatting characters removed.
func printable(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	space := false
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		switch {
		case unicode.IsSpace(r):
			space = b.Len() > 0
			continue
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			continue
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	return b.String()
}

// clip cuts s to at most n bytes, between two characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
