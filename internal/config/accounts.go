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

// entry is one account as it is written: in WECHAT_ACCOUNTS_FILE, or in variables of a common prefix. What is null or not
// there is taken from the variables that are for all accounts.
type entry struct {
	AppID      string   `json:"appid" env:"APPID" help:"AppID of the first of several accounts; the second has WECHAT_ACCOUNTS_1_APPID and so on, without a gap"`
	Secret     hidden   `json:"secret" env:"SECRET" secret:"true" help:"its AppSecret, or:"`
	SecretFile string   `json:"secret_file" env:"SECRET_FILE" help:"file that holds its AppSecret"` // relative to the folder of the accounts file
	Name       string   `json:"name" env:"NAME" help:"its name, for people"`
	TokenAPI   string   `json:"token_api" env:"TOKEN_API" help:"its WECHAT_TOKEN_API; not set: that one's value"`
	Tickets    []string `json:"tickets" env:"TICKETS" help:"its WECHAT_TICKETS; not set: that one's value"` // [] and ["none"] keep none
}

// ErrNoAccount is returned where no variable speaks of an account.
var ErrNoAccount = errors.New("WECHAT_APPID: no account is configured: set WECHAT_APPID and WECHAT_SECRET (or WECHAT_SECRET_FILE); for several accounts WECHAT_ACCOUNTS_0_APPID and WECHAT_ACCOUNTS_0_SECRET (or WECHAT_ACCOUNTS_0_SECRET_FILE) and so on, or WECHAT_ACCOUNTS_FILE")

// Accounts reads the accounts of the environment and those of WECHAT_ACCOUNTS_FILE, with the files they name. It may be
// called again to learn what has changed in the files. [ErrNoAccount] where there is none.
func (c *Config) Accounts() ([]Account, error) {
	var all []Account
	places := map[string]string{} // where each AppID was read
	add := func(a Account, place string) error {
		if other, ok := places[a.AppID]; ok {
			return fmt.Errorf("the appid %s is also that of %s: keep one of them", a.AppID, other)
		}
		all, places[a.AppID] = append(all, a), place
		return nil
	}
	addOf := func(prefix string, e entry) error {
		a, err := c.ofVariables(prefix, e)
		if err != nil {
			return err
		}
		if err := add(a, prefix+"APPID"); err != nil {
			return fmt.Errorf("%sAPPID: %w", prefix, err)
		}
		return nil
	}
	if c.AppID != "" || c.Secret != "" || c.SecretFile != "" {
		if err := addOf("WECHAT_", entry{AppID: c.AppID, Secret: hidden(c.Secret), SecretFile: c.SecretFile}); err != nil {
			return nil, err
		}
	}
	for i, e := range c.Numbered {
		if err := addOf(numbered(i), e); err != nil {
			return nil, err
		}
	}
	if c.AccountsFile != "" {
		entries, err := readAccounts(c.AccountsFile)
		if err != nil {
			return nil, fmt.Errorf("WECHAT_ACCOUNTS_FILE: %s: %w", c.AccountsFile, err)
		}
		for i, e := range entries {
			a, err := c.ofFile(e)
			if err == nil {
				err = add(a, fmt.Sprintf("account %d of WECHAT_ACCOUNTS_FILE", i+1))
			}
			if err != nil {
				return nil, fmt.Errorf("WECHAT_ACCOUNTS_FILE: %s: account %d: %w", c.AccountsFile, i+1, err)
			}
		}
	}
	if len(all) == 0 {
		if c.AccountsFile != "" {
			return nil, fmt.Errorf("WECHAT_ACCOUNTS_FILE: %s: the array has no account, for example [{\"appid\": \"wx…\", \"secret_file\": \"wx….secret\"}]", c.AccountsFile)
		}
		return nil, ErrNoAccount
	}
	return all, nil
}

// ofVariables is the account of the variables that begin with prefix.
func (c *Config) ofVariables(prefix string, e entry) (Account, error) {
	var err error
	a := Account{AppID: e.AppID}
	appid, secret, file := prefix+"APPID", prefix+"SECRET", prefix+"SECRET_FILE"
	switch {
	case e.AppID == "":
		return Account{}, fmt.Errorf("%s: %s is not set: it needs its AppID", prefix+e.firstSet(), appid)
	case e.Secret != "" && e.SecretFile != "":
		return Account{}, fmt.Errorf("%s: %s is set too: set one of them", secret, file)
	case e.Secret == "" && e.SecretFile == "":
		return Account{}, fmt.Errorf("%s: it has no secret: set %s or %s", appid, secret, file)
	}
	if err := checkAppID(e.AppID); err != nil {
		return Account{}, fmt.Errorf("%s: %w", appid, err)
	}
	if e.SecretFile != "" {
		if a.Secret, err = readSecret(e.SecretFile); err != nil {
			return Account{}, fmt.Errorf("%s: %w", file, err)
		}
	} else if a.Secret, err = checkSecret(string(e.Secret)); err != nil {
		return Account{}, fmt.Errorf("%s: the value %w", secret, err)
	}
	if field, err := c.choices(&a, e); err != nil {
		return Account{}, fmt.Errorf("%s%s: %w", prefix, strings.ToUpper(field), err)
	}
	return a, nil
}

// choices gives a what e chooses, and where it does not, what the variables for all accounts do. An error is of field.
func (c *Config) choices(a *Account, e entry) (field string, err error) {
	a.Name, a.TokenAPI, a.Tickets = e.Name, c.TokenAPI, c.Tickets
	if strings.ContainsFunc(e.Name, unicode.IsControl) || len(e.Name) > 128 {
		return "name", errors.New("it has a control character or more than 128 bytes")
	}
	if e.TokenAPI != "" {
		if err := checkTokenAPI(e.TokenAPI); err != nil {
			return "token_api", err
		}
		a.TokenAPI = e.TokenAPI
	}
	if e.Tickets != nil {
		if a.Tickets, err = tickets(e.Tickets); err != nil {
			return "tickets", err
		}
	}
	return "", nil
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
