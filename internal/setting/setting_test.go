package setting_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/wxkeeper/wxkeeper/internal/setting"
)

func TestAppSecretInTheWrongVariableIsNotShown(t *testing.T) {
	t.Parallel()
	const secret = "0123456789abcdefABCDEF6789abcdef"
	for want, err := range map[string]error{
		`WECHAT_TOKEN_API: "***" is not one of stable_token, token`: setting.Errorf("WECHAT_TOKEN_API",
			"%q is not one of stable_token, token", secret),
		"WECHAT_ACCOUNTS_FILE: /run/***: file does not exist": setting.Errorf("WECHAT_ACCOUNTS_FILE", "/run/%s: %w",
			secret, fs.ErrNotExist),
		"WECHAT_APPID: wx0123456789abcdef is not kept": setting.Errorf("WECHAT_APPID", "wx0123456789abcdef is not kept"),
	} {
		if err.Error() != want {
			t.Errorf("the error is %q, want %q", err, want)
		}
	}
	if err := setting.Errorf("V", "%w", fs.ErrNotExist); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v has lost its cause", err)
	}
}
