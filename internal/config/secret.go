package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
)

// maxSecret is many times the length of an AppSecret. It tells the wrong file from the right one.
const maxSecret = 1024

// looksLikeSecret is the form of an AppSecret.
var looksLikeSecret = regexp.MustCompile(`(^|[/\\])[0-9a-fA-F]{32}$`)

// hidden is a secret that is not shown however what holds it is printed.
type hidden string

func (hidden) String() string               { return "***" }
func (hidden) GoString() string             { return "***" }
func (hidden) MarshalText() ([]byte, error) { return []byte("***"), nil }

func readSecret(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		if looksLikeSecret.MatchString(file) {
			return "", errors.New("there is no such file, and the name looks like a secret: this must be the name of the file that holds the secret")
		}
		return "", fmt.Errorf("%s: %w", file, withoutPath(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, withoutPath(err))
	}
	s, err := checkSecret(string(b))
	if err != nil {
		return "", fmt.Errorf("%s: the content %w", file, err)
	}
	return s, nil
}

// checkSecret returns s without the white space at its end, which is what editors and shells put there. Anything else that
// is not a printable ASCII character would be a wrong secret: WeChat would say so much later, and less clearly.
func checkSecret(s string) (string, error) {
	s = strings.TrimRight(s, " \r\n")
	switch {
	case s == "":
		return "", errors.New("is empty: it must be the AppSecret")
	case len(s) > maxSecret:
		return "", fmt.Errorf("is longer than %d bytes: it must be the AppSecret and nothing else", maxSecret)
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("has white space, a control character or one beyond ASCII in it: it must be the AppSecret and nothing else")
	}
	return s, nil
}

// withoutPath takes the path out of an error whose text names it already.
func withoutPath(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
