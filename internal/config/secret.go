package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/internal/utf8text"
)

// maxSecret is many times the length of an AppSecret. A longer content means that the file is the wrong one.
const maxSecret = 1024

// looksLikeSecret matches paths that end with what has the form of an AppSecret.
var looksLikeSecret = regexp.MustCompile(`(^|[/\\])[0-9a-fA-F]{32}$`)

func readSecret(file string) (redact.Secret, error) {
	f, err := os.Open(file)
	if err != nil {
		if looksLikeSecret.MatchString(file) {
			return "", errors.New("there is no such file, and the name looks like a secret: " +
				"this must be the name of the file that holds the secret")
		}
		return "", fmt.Errorf("%s: %w", file, withoutPath(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	defer clear(b)
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, withoutPath(err))
	}
	text, err := utf8text.Decode(b, "this file")
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	s, err := checkSecret(redact.Secret(text))
	if err != nil {
		err = fmt.Errorf("%s: the content %w", file, err)
	}
	return s, err
}

// checkSecret returns the secret without the white space at its end, which editors and shells add. It refuses
// quotes, and all other characters that are not printable ASCII: WeChat would refuse such a secret too, but later
// and less clearly.
func checkSecret(secret redact.Secret) (redact.Secret, error) {
	s := strings.TrimRight(secret.Reveal(), atEnd)
	switch {
	case s == "":
		return "", errors.New("is empty: it must be the AppSecret")
	case len(s) > maxSecret:
		return "", fmt.Errorf("is longer than %d bytes: it must be the AppSecret and nothing else", maxSecret)
	case s != strings.Trim(s, quotes):
		return "", errors.New("has quotes: write the AppSecret without quotes")
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("has white space, a control character or a character beyond ASCII in it: " +
			"it must be the AppSecret and nothing else")
	}
	return redact.Secret(s), nil
}

// withoutPath removes the path from an error whose text names the path already.
func withoutPath(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}
