// Package redact keeps secrets out of what is printed, logged and returned as an error: [Secret] is a string that
// prints as ***, and [URLs] removes user names, passwords and tokens from URLs.
package redact

import (
	"regexp"
	"strings"
)

// userInfo matches the scheme, if there is one, and everything up to the last @.
var userInfo = regexp.MustCompile(`(?s)^(.*?://)?.*@`)

// URLs returns a comma-separated list of URLs in which *** replaces everything before the last @ of each URL.
// It works on the text and not on parsed URLs, because errors most often quote a URL that cannot be parsed.
func URLs(list string) string {
	var urls []string
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		// A part without a scheme may be the second half of a password that contains a comma: mask both halves.
		if n := len(urls); n > 0 && strings.Contains(part, "@") && !strings.Contains(part, "://") {
			urls[n-1] += "," + part
			continue
		}
		urls = append(urls, part)
	}
	for i, u := range urls {
		urls[i] = userInfo.ReplaceAllString(u, "${1}"+mask+"@")
	}
	return strings.Join(urls, ",")
}
