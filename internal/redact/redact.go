// Package redact takes user names, passwords and tokens out of URLs before they are shown.
package redact

import "strings"

// URLs returns a comma-separated list of URLs without what stands before the last @ of each. It works on the text, not on
// the parsed URL: what is shown most often is the URL that cannot be parsed.
func URLs(list string) string {
	var urls []string
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		// What has no scheme may be the second half of a password with a comma in it: mask it with the first half.
		if n := len(urls); n > 0 && strings.Contains(part, "@") && !strings.Contains(part, "://") {
			urls[n-1] += "," + part
			continue
		}
		urls = append(urls, part)
	}
	for i, u := range urls {
		urls[i] = one(u)
	}
	return strings.Join(urls, ",")
}

func one(s string) string {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return s
	}
	scheme := ""
	if i := strings.Index(s, "://"); i >= 0 && i < at {
		scheme = s[:i+3]
	}
	return scheme + "***@" + s[at+1:]
}
