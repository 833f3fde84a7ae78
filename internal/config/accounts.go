package config

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode"
)

// Account is one account of WeChat that a worker serves.
type Account struct {
	AppID    string
	Secret   string   `json:"-"` // slog's JSON handler would show it in a list of accounts
	Name     string   // for people; may be empty
	TokenAPI string   // stable_token or token
	Tickets  []string // of jsapi and wx_card; empty: none is kept
}

// String shows everything but the secret, as do GoString and LogValue.
func (a Account) String() string {
	return fmt.Sprintf("{appid:%s name:%q token_api:%s tickets:%s}", a.AppID, a.Name, a.TokenAPI, strings.Join(a.Tickets, ","))
}

// GoString is String: %#v shows no secret either.
func (a Account) GoString() string { return "config.Account" + a.String() }

// LogValue has what String has.
func (a Account) LogValue() slog.Value {
	return slog.GroupValue(slog.String("appid", a.AppID), slog.String("name", a.Name),
		slog.String("token_api", a.TokenAPI), slog.String("tickets", strings.Join(a.Tickets, ",")))
}

// Accounts reads the account of the environment and those of WECHAT_ACCOUNTS_FILE, with the files they name. It may be
// called again to learn what has changed in the files.
func (c *Config) Accounts() ([]Account, error) {
	var all []Account
	places := map[string]string{} // where each AppID was read
	if c.AppID != "" || c.Secret != "" || c.SecretFile != "" {
		a, err := c.single()
		if err != nil {
			return nil, err
		}
		all, places[a.AppID] = append(all, a), "WECHAT_APPID"
	}
	if c.AccountsFile != "" {
		entries, err := readAccounts(c.AccountsFile)
		if err != nil {
			return nil, fmt.Errorf("WECHAT_ACCOUNTS_FILE: %s: %w", c.AccountsFile, err)
		}
		for i, e := range entries {
			place := fmt.Sprintf("account %d of WECHAT_ACCOUNTS_FILE", i+1)
			a, err := c.account(e)
			if err != nil {
				return nil, fmt.Errorf("WECHAT_ACCOUNTS_FILE: %s: account %d: %w", c.AccountsFile, i+1, err)
			}
			if other, ok := places[a.AppID]; ok {
				return nil, fmt.Errorf("WECHAT_ACCOUNTS_FILE: %s: account %d: the appid %s is also that of %s: keep one of them", c.AccountsFile, i+1, a.AppID, other)
			}
			all, places[a.AppID] = append(all, a), place
		}
	}
	if len(all) == 0 {
		if c.AccountsFile != "" {
			return nil, fmt.Errorf("WECHAT_ACCOUNTS_FILE: %s: the array has no account, for example [{\"appid\": \"wx…\", \"secret_file\": \"wx….secret\"}]", c.AccountsFile)
		}
		return nil, errors.New("WECHAT_APPID: no account is configured: set WECHAT_APPID and WECHAT_SECRET (or WECHAT_SECRET_FILE), or WECHAT_ACCOUNTS_FILE")
	}
	return all, nil
}

// single is the account of the environment.
func (c *Config) single() (Account, error) {
	switch {
	case c.AppID == "":
		name := "WECHAT_SECRET"
		if c.Secret == "" {
			name = "WECHAT_SECRET_FILE"
		}
		return Account{}, fmt.Errorf("%s: WECHAT_APPID is not set: a secret needs its AppID", name)
	case c.Secret != "" && c.SecretFile != "":
		return Account{}, errors.New("WECHAT_SECRET: WECHAT_SECRET_FILE is set too: set one of them")
	case c.Secret == "" && c.SecretFile == "":
		return Account{}, errors.New("WECHAT_APPID: it has no secret: set WECHAT_SECRET or WECHAT_SECRET_FILE")
	}
	if err := checkAppID(c.AppID); err != nil {
		return Account{}, fmt.Errorf("WECHAT_APPID: %w", err)
	}
	a := Account{AppID: c.AppID, TokenAPI: c.TokenAPI, Tickets: c.Tickets}
	var err error
	if c.SecretFile != "" {
		if a.Secret, err = readSecret(c.SecretFile); err != nil {
			return Account{}, fmt.Errorf("WECHAT_SECRET_FILE: %w", err)
		}
		return a, nil
	}
	if a.Secret, err = checkSecret(c.Secret); err != nil {
		return Account{}, fmt.Errorf("WECHAT_SECRET: the value %w", err)
	}
	return a, nil
}

// checkAppID refuses what cannot be one token of a NATS subject and of a key of the bucket.
func checkAppID(s string) error {
	if token.MatchString(s) {
		return nil
	}
	why := "it must be 1 to 64 letters, digits, _ and -"
	switch i := strings.IndexFunc(s, func(r rune) bool { return r == '.' || r == '*' || r == '>' || unicode.IsSpace(r) }); {
	case s == "":
		return errors.New("the appid is missing")
	case i < 0:
	case unicode.IsSpace([]rune(s[i:])[0]):
		why = "it has white space; " + why
	default:
		why = fmt.Sprintf("it has a %q, which has a meaning of its own in NATS subjects; %s", s[i], why)
	}
	return fmt.Errorf("%q cannot be an AppID: %s", s, why)
}
