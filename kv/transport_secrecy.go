package kv

import (
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// hideInLocation takes the token out of a redirect that repeats the query, as gateways do: followed, it would carry the
// token to another host, or into an error of http.Client. To WeChat it is added anew.
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

// shows reports whether a text contains a token, or something that calls itself one.
func shows(text, token string) bool {
	for _, form := range spellings(token) {
		if strings.Contains(text, form) {
			return true
		}
	}
	return tokenParameter.MatchString(text)
}

// spellings are the ways in which a token may be written. WeChat's own have one, for all characters of it are harmless.
func spellings(token string) []string {
	quoted := strconv.Quote(token)
	return []string{token, url.QueryEscape(token), quoted[1 : len(quoted)-1], url.PathEscape(token)}
}

// tokenParameter finds what is left of a URL that was escaped once more, or broken off.
var tokenParameter = regexp.MustCompile(`(?i)(access(?:_|%(?:25)*5f)token(?:=|%(?:25)*3d))[^&\s"'#]+`)

// hideToken makes an error of the base transport fit to be shown: *url.Error and the errors of others hold the URL.
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
	return &maskedError{text: text, timeout: errors.As(err, &t) && t.Timeout(), is: func(target error) bool { return errors.Is(err, target) }}
}

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

// maskedError stands for an error that shows a token: what it says, and what it is. errors.As does not reach the error
// itself, which has the token in a field.
type maskedError struct {
	text    string
	timeout bool
	is      func(error) bool
}

func (e *maskedError) Error() string        { return e.text }
func (e *maskedError) Is(target error) bool { return e.is(target) }

// Timeout is what http.Client and net.Error ask for.
func (e *maskedError) Timeout() bool { return e.timeout }

// Temporary completes net.Error.
func (e *maskedError) Temporary() bool { return e.timeout }
