package wechat

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// ridPattern finds the request id at the end of an errmsg, which WeChat's support asks for
// (docs/wechat-api.md#answers).
var ridPattern = regexp.MustCompile(`[\s,;.]*\brid:?\s*([0-9a-fA-F]{6,12}-[0-9a-fA-F]{6,12}-[0-9a-fA-F]{6,12})\b`)

// splitRID separates an errmsg from its rid.
func splitRID(errmsg string) (rest, rid string) {
	m := ridPattern.FindStringSubmatchIndex(errmsg)
	if m == nil {
		return errmsg, ""
	}
	rid = errmsg[m[2]:m[3]]
	return strings.TrimSpace(errmsg[:m[0]] + errmsg[m[1]:]), rid
}

var ipWord = regexp.MustCompile(`[0-9A-Za-z.:]+`)

// findIPs returns each address in an errmsg once. `invalid ip 8.149.1.2 ipv6 ::ffff:8.149.1.2, not in
// whitelist` contains one address in two forms (docs/wechat-api.md#ip-white-list).
func findIPs(errmsg string) []string {
	var ips []string
	for _, w := range ipWord.FindAllString(errmsg, -1) {
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

// parseIP reads an address, also with a port, with a full stop behind it, or with a label before it
// ("ip:8.149.1.2").
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

// nameIPs returns words for the caller's IP: the addresses in errmsg, or a description if it has none.
func nameIPs(errmsg string) string {
	if ips := findIPs(errmsg); len(ips) > 0 {
		return strings.Join(ips, " and ")
	}
	return "the public IP of this machine (WeChat did not name it)"
}

// printable turns foreign text into one line that cannot manipulate a terminal or a log reader: it is valid
// UTF-8, each run of white space becomes one space, and control and invisible formatting characters are
// removed.
func printable(s string) string {
	visible := strings.Map(func(r rune) rune {
		if !unicode.IsSpace(r) && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return strings.Join(strings.Fields(visible), " ")
}

// clip cuts s, which is valid UTF-8, to at most n bytes, at the end of a character.
func clip(s string, n int) string { return strings.ToValidUTF8(s[:min(len(s), n)], "") }
