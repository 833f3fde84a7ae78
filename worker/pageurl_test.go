package worker

import (
	"errors"
	"strings"
	"testing"

	"github.com/wxkeeper/wxkeeper/messages"
)

func TestURLIsSignedAsABrowserShowsIt(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		// What a browser shows is not changed.
		"https://shop.example.com/":                       "https://shop.example.com/",
		"https://shop.example.com/a//b/?c=/../d&e=\\":     "https://shop.example.com/a//b/?c=/../d&e=\\",
		"http://shop.example.com:8080/%E5%BA%97?q=%E5%BA": "http://shop.example.com:8080/%E5%BA%97?q=%E5%BA",
		"https://xn--fiq228c.example/{a}|b^`?'~!$":        "https://xn--fiq228c.example/{a}|b^`?'~!$",
		"https://shop.example.com/...?u=https://u@h:443":  "https://shop.example.com/...?u=https://u@h:443",
		"http://shop.example.com:443/":                    "http://shop.example.com:443/",
		"http://[2001:db8::1]:8080/":                      "http://[2001:db8::1]:8080/",
		// What programs build from parts is signed as a browser shows it.
		"https://shop.example.com":                 "https://shop.example.com/",
		"https://shop.example.com#/cart":           "https://shop.example.com/",
		"https://shop.example.com?id=1":            "https://shop.example.com/?id=1",
		"https://shop.example.com:443":             "https://shop.example.com/",
		"https://shop.example.com:443/a":           "https://shop.example.com/a",
		"http://shop.example.com:80?id=1":          "http://shop.example.com/?id=1",
		"https://shop.example.com:/a":              "https://shop.example.com/a",
		"https://shop.example.com:0443/a":          "https://shop.example.com/a",
		"https://shop.example.com:80/a":            "https://shop.example.com:80/a",
		"HTTPS://Shop.EXAMPLE.com/Path?Query#Hash": "https://shop.example.com/Path?Query",
		"http://[2001:DB8:0::1]:80":                "http://[2001:db8::1]/",
		"http://[::FFFF:192.0.2.1]/":               "http://[::ffff:c000:201]/",
		"http://192.0.2.1:80":                      "http://192.0.2.1/",
		"http://1.example.0x1g":                    "http://1.example.0x1g/",
	} {
		if got, err := signedURL(url); err != nil || got != want {
			t.Errorf("%s is signed as %q, %v, want %q", url, got, err, want)
		} else if again, err := signedURL(got); err != nil || again != got {
			t.Errorf("%s is signed as %q, %v", got, again, err)
		}
	}
}

func TestURLThatNoBrowserShowsIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"":                                  "url is missing",
		"#top":                              "url is missing",
		"shop.example.com/":                 "must begin with http://",
		"//shop.example.com/":               "must begin with http://",
		"ftp://shop.example.com/":           "must begin with http://",
		"https%3A%2F%2Fshop.example.com%2F": "not URL-encoded",
		"https:///path":                     "a host",
		"https://":                          "a host",
		"https://S3CRET:S3CRET@shop.example.com/": "user name",
		"https://S3CRET@shop.example.com":         "user name",
		"https://旗舰店.example/":                    "xn--",
		"https://shop.example.com/店":              "percent-encoded",
		"https://shop.example.com/?q=店":           "percent-encoded",
		"https://shop.example.com/a b":            "a space",
		"https://shop.example.com/\t":             "unprintable",
		`https://shop.example.com/"S3CRET"`:       "percent-encoded",
		"https://shop.example.com/<S3CRET>":       "percent-encoded",
		`https://shop.example.com\S3CRET`:         "backslash",
		`https://shop.example.com/a\b`:            "backslash",
		"https://shop.example.com/a/../b":         ". or ..",
		"https://shop.example.com/a/.":            ". or ..",
		"https://shop.example.com/a/%2E%2e/b":     ". or ..",
		"https://shop%2eexample.com/":             "the host",
		"https://shop.example.com:S3CRET/":        "the port",
		"https://shop.example.com:65536/":         "the port",
		"https://:443/":                           "the host",
		"https://127.1/":                          "an IP address as a browser shows it",
		"https://0x7f.0.0.0x1/":                   "an IP address as a browser shows it",
		"https://192.0.2.01/":                     "an IP address as a browser shows it",
		"https://192.0.2.1./":                     "an IP address as a browser shows it",
		"https://3221225985:8443/":                "an IP address as a browser shows it",
		"https://[S3CRET]/":                       "brackets",
		"https://[::1/":                           "brackets",
	} {
		_, err := signedURL(url)
		if !errors.Is(err, messages.ErrInvalidRequest) || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "S3CRET") {
			t.Errorf("%s: %v, want an error that contains %q and no part of the URL", url, err, want)
		}
	}
}
