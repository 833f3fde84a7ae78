package config

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// atEnd is the white space that editors and shells add at the end of a secret. It is removed.
const atEnd = " \r\n"

// quotes are what people and word processors put around a value: "…", '…', “…”, ‘…’, 「…」 and so on.
const quotes = "\"'`“”„‟‘’‚‛「」『』＂＇«»"

var errInQuotes = errors.New("the value is in quotes, which would be a part of it: write it without quotes " +
	"(docker run --env-file keeps quotes)")

// inQuotes reports whether a value begins and ends with a quote.
func inQuotes(s string) bool {
	first, n := utf8.DecodeRuneInString(s)
	last, m := utf8.DecodeLastRuneInString(s)
	return n+m <= len(s) && strings.ContainsRune(quotes, first) && strings.ContainsRune(quotes, last)
}

// tidy takes a byte order mark off the values of the variables: they are often read from files. It refuses a value in
// quotes: nobody means them, and as a part of a password nobody looks for them. Only the name of an account may have
// quotes.
func tidy(set map[string]string) error {
	defaults := Defaults()
	known := map[string]bool{}
	for _, v := range defaults.variables() {
		known[v.name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if !known[name] && !ofNumbered.MatchString(name) {
			continue
		}
		set[name] = strings.TrimPrefix(set[name], "\ufeff")
		// An AppSecret is checked when the accounts are read: verbs that have no account do not need it.
		if strings.HasSuffix(name, "_NAME") || strings.HasSuffix(name, "_SECRET") {
			continue
		}
		if inQuotes(strings.TrimSpace(set[name])) {
			return setting.Errorf(name, "%w", errInQuotes)
		}
	}
	return nil
}

// checkPassword returns a password or token for NATS without the white space at its end. It refuses white space before
// it and control characters, which nobody has meant. Blanks and characters beyond ASCII may be in a password.
func checkPassword(secret redact.Secret) (redact.Secret, error) {
	s := strings.TrimRight(secret.Reveal(), atEnd)
	switch {
	case s == "" && secret != "":
		return "", errors.New("is empty: it has white space only")
	case s != strings.TrimLeftFunc(s, unicode.IsSpace), strings.ContainsFunc(s, unicode.IsControl):
		return "", errors.New("begins with white space, or has a control character in it")
	}
	return redact.Secret(s), nil
}
