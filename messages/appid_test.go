package messages

import (
	"errors"
	"strings"
	"testing"
)

func TestAppSecretIsNoAppIDAndIsNotShown(t *testing.T) {
	t.Parallel()
	const secret = "0123456789abcdef0123456789abcdef"
	for _, s := range []string{
		secret, strings.ToUpper(secret), secret + "\n", " " + secret, "'" + secret + "'", "wx0123456789abcdef:" + secret,
		secret + "." + string(AccessToken), secret + secret + secret,
	} {
		err := CheckAppID(s)
		if !errors.Is(err, ErrAppSecret) || !errors.Is(err, ErrInvalidAppID) {
			t.Errorf("%q: %v is not ErrAppSecret and ErrInvalidAppID", s, err)
		}
		if err != nil && strings.Contains(strings.ToLower(err.Error()), secret[:8]) {
			t.Errorf("%q: the error shows it: %v", s, err)
		}
		c := Credential{AppID: s}
		if err := c.Validate(); !errors.Is(err, ErrAppSecret) || strings.Contains(strings.ToLower(err.Error()), secret[:8]) {
			t.Errorf("a record of %q: %v", s, err)
		}
	}
	for _, s := range []string{
		"wx0123456789abcdef", "wx1", secret[:31], secret + "0", "g" + secret[:31], secret + "-1", "wx" + secret,
		strings.Repeat("w", 32),
	} {
		if err := CheckAppID(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", "wx.1", "wx 1", secret[:31] + "."} {
		if err := CheckAppID(s); !errors.Is(err, ErrInvalidAppID) || errors.Is(err, ErrAppSecret) ||
			!strings.HasPrefix(err.Error(), `"`+s+`"`) {
			t.Errorf("%q: %v", s, err)
		}
	}
}
