package kv

import (
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// hideInLocation removes the token from a redirect that repeats the query, as gateways do. Otherwise an
// http.Client would send the token to another host, or show it in an error. The Transport adds the token
// again to a redirected request to WeChat.
func hideInLocation(h http.Header, token string) {
	locations := h["Location"]
	for i, l := range locations {
		if !shows(l, token) {
			continue
		}
		locations[i] = ""
		u, err := url.Parse(l)
		if err != nil {
			continue
		}
		var kept []string
		for pair := range strings.SplitSeq(u.RawQuery, "&") {
			if !isToken(pair) {
				kept = append(kept, pair)
			}
		}
		u.RawQuery = strings.Join(kept, "&")
		if l = u.String(); !shows(l, token) {
			locations[i] = l
		}
	}
}

// shows reports whether a text contains a token, or a parameter with the name of a token.
func shows(text, token string) bool {
	for _, form := range spellings(token) {
		if strings.Contains(text, form) {
			return true
		}
	}
	return tokenParameter.MatchString(text)
}

// spellings are the forms in which a token may appear. They are equal for WeChat's tokens, which need no
// escapes.
func spellings(token string) []string {
	quoted := strconv.Quote(token)
	return []string{token, url.QueryEscape(token), quoted[1 : len(quoted)-1], url.PathEscape(token)}
}

// tokenParameter finds the token in a URL that was escaped once more, or truncated.
var tokenParameter = regexp.MustCompile(`(?i)(access(?:_|%(?:25)*5f)token(?:=|%(?:25)*3d))[^&\s"'#]+`)

// hideToken removes the token from an error of the base transport: *url.Error and other errors contain the URL.
func hideToken(err error, token string) error {
	if !chainShows(err, token) {
		return err
	}
	text := err.Error()
	for _, form := range spellings(token) {
		text = strings.ReplaceAll(text, form, "[masked]")
	}
	text = tokenParameter.ReplaceAllString(text, "$1[masked]")
	var t interface{ Timeout() bool }
	return &maskedError{
		text: text, timeout: errors.As(err, &t) && t.Timeout(),
		is: func(target error) bool { return errors.Is(err, target) },
	}
}

// chainShows reports whether an error, or an error that it wraps, shows a token.
func chainShows(err error, token string) bool {
	if err == nil {
		return false
	}
	if shows(err.Error(), token) {
		return true
	}
	switch e := err.(type) { //nolint:errorlint // it walks the chain itself
	case interface{ Unwrap() error }:
		return chainShows(e.Unwrap(), token)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if chainShows(inner, token) {
				return true
			}
		}
	}
	return false
}

// maskedError replaces an error that shows a token. It has the error's text without the token, and errors.Is
// matches what the error matches. errors.As does not reach the error, because a field of it has the token.
type maskedError struct {
	text    string
	timeout bool
	is      func(error) bool
}

func (e *maskedError) Error() string        { return e.text }
func (e *maskedError) Is(target error) bool { return e.is(target) }

// Timeout is a method of net.Error. http.Client calls it.
func (e *maskedError) Timeout() bool { return e.timeout }

// Temporary is a method of net.Error.
func (e *maskedError) Temporary() bool { return e.timeout }
