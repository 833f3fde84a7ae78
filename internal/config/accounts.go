package config

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/internal/setting"
	"github.com/wxkeeper/wxkeeper/internal/utf8text"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
)

// entry is one account as it is written: an object of WECHAT_ACCOUNTS_FILE, or variables with a common
// prefix. A field that is null or missing takes its value from the variable for all accounts.
type entry struct {
	AppID      string        `json:"appid" env:"APPID" help:"AppID of the first of several accounts; the second has WECHAT_ACCOUNTS_1_APPID and so on, without a gap"`
	Secret     redact.Secret `json:"secret" env:"SECRET" help:"its AppSecret, or:"`
	SecretFile string        `json:"secret_file" env:"SECRET_FILE" help:"file that holds its AppSecret"` // relative to the directory of the accounts file
	Name       string        `json:"name" env:"NAME" help:"its name, shown in the status and in events"`
	TokenAPI   string        `json:"token_api" env:"TOKEN_API" help:"its token API; not set: the value of WECHAT_TOKEN_API"`
	Tickets    []string      `json:"tickets" env:"TICKETS" help:"its kinds of ticket; not set: the value of WECHAT_TICKETS"` // [] and ["none"]: no tickets
}

// ErrNoAccount is returned if no variable configures an account.
var ErrNoAccount = setting.Errorf("WECHAT_APPID", "no account is configured: set WECHAT_APPID and WECHAT_SECRET "+
	"(or WECHAT_SECRET_FILE); for several accounts set WECHAT_ACCOUNTS_0_APPID and WECHAT_ACCOUNTS_0_SECRET "+
	"(or WECHAT_ACCOUNTS_0_SECRET_FILE) and so on, or WECHAT_ACCOUNTS_FILE")

const accountsFile = "WECHAT_ACCOUNTS_FILE"

// Accounts returns the accounts of the variables and of WECHAT_ACCOUNTS_FILE. It reads the accounts file and
// the secret files at each call, so that a later call returns what has changed in them. Its error is
// [ErrNoAccount] if there is no account.
func (c *Config) Accounts() ([]worker.Account, error) {
	l := accountList{origins: map[string]string{}}
	if c.AppID != "" || c.Secret != "" || c.SecretFile != "" {
		only := entry{AppID: c.AppID, Secret: c.Secret, SecretFile: c.SecretFile}
		if err := c.addVariables(&l, "WECHAT_", only); err != nil {
			return nil, err
		}
	}
	for i, e := range c.Numbered {
		if err := c.addVariables(&l, numbered(i), e); err != nil {
			return nil, err
		}
	}
	if c.AccountsFile != "" {
		if err := c.addFile(&l); err != nil {
			return nil, setting.Errorf(accountsFile, "%s: %w", c.AccountsFile, err)
		}
	}
	if len(l.accounts) == 0 {
		return nil, ErrNoAccount
	}
	return l.accounts, nil
}

// accountList are the accounts that were read, each AppID once.
type accountList struct {
	accounts []worker.Account
	origins  map[string]string // where each AppID was read
}

// addVariables adds the account of the variables that begin with prefix.
func (c *Config) addVariables(l *accountList, prefix string, e entry) error {
	appid, secret, file := prefix+"APPID", prefix+"SECRET", prefix+"SECRET_FILE"
	switch {
	case e.AppID == "":
		return setting.Errorf(prefix+e.firstSet(), "%s is not set: set it to the AppID of this account", appid)
	case e.Secret != "" && e.SecretFile != "":
		return setting.Errorf(secret, "%s is set too: set one of them", file)
	case e.Secret == "" && e.SecretFile == "":
		return setting.Errorf(appid, "the account has no secret: set %s or %s", secret, file)
	}
	if field, err := c.addEntry(l, e, appid); err != nil {
		return setting.Errorf(prefix+strings.ToUpper(field), "%w", err)
	}
	return nil
}

// addEntry adds the account of an entry that has an AppID and one secret. Optional fields that e lacks come from the
// variables for all accounts. An error is about the returned field of e.
func (c *Config) addEntry(l *accountList, e entry, origin string) (field string, err error) {
	a := worker.Account{AppID: e.AppID, Name: e.Name, TokenAPI: cmp.Or(e.TokenAPI, c.TokenAPI)}
	if err := messages.CheckAppID(a.AppID); err != nil {
		switch {
		case errors.Is(err, messages.ErrAppSecret) && e.secretIsAppID():
			err = errors.New("the AppID and the AppSecret are swapped: set each to the value of the other")
		case inQuotes(a.AppID):
			err = errInQuotes
		}
		return "appid", err
	}
	if a.Secret, field, err = e.secret(); err != nil {
		return field, err
	}
	if _, err := utf8text.Decode([]byte(a.Name), "the name"); err != nil {
		return "name", err
	}
	if strings.ContainsFunc(a.Name, unicode.IsControl) || len(a.Name) > 128 {
		return "name", errors.New("it has a control character or more than 128 bytes")
	}
	if err := checkTokenAPI(a.TokenAPI); err != nil {
		return "token_api", err
	}
	tickets := c.Tickets
	if e.Tickets != nil {
		tickets = e.Tickets
	}
	if a.Tickets, err = ticketKinds(tickets); err != nil {
		return "tickets", err
	}
	if other, ok := l.origins[a.AppID]; ok {
		return "appid", fmt.Errorf("the AppID %s is also in %s: keep one of them", a.AppID, other)
	}
	l.accounts, l.origins[a.AppID] = append(l.accounts, a), origin
	return "", nil
}

// secret returns the AppSecret. An error is about the returned field of e.
func (e entry) secret() (secret redact.Secret, field string, err error) {
	if e.SecretFile != "" {
		secret, err = readSecret(e.SecretFile)
		return secret, "secret_file", err
	}
	if secret, err = checkSecret(e.Secret); err != nil {
		err = fmt.Errorf("the value %w", err)
	}
	return secret, "secret", err
}

// looksLikeAppID matches the AppIDs that WeChat issues.
var looksLikeAppID = regexp.MustCompile(`^wx[0-9a-f]{16}$`)

// secretIsAppID reports whether the secret of e looks like an AppID.
func (e entry) secretIsAppID() bool {
	secret, _, err := e.secret()
	return err == nil && looksLikeAppID.MatchString(secret.Reveal())
}

// kindOfTicket has the words of WECHAT_TICKETS.
var kindOfTicket = map[string]messages.Kind{"jsapi": messages.JSAPITicket, "wx_card": messages.WXCardTicket}

// ticketKinds returns the kinds of a list of tickets, each once; none for the list [None].
func ticketKinds(list []string) ([]messages.Kind, error) {
	list = trimAll(list)
	if slices.Contains(list, None) {
		if len(list) > 1 {
			return nil, errors.New("none and a kind of ticket contradict each other: set one of them")
		}
		return nil, nil
	}
	var kinds []messages.Kind
	for _, s := range list {
		kind, ok := kindOfTicket[s]
		if !ok {
			return nil, fmt.Errorf("%q is not a kind of ticket: write jsapi, wx_card, both with a comma, or none", s)
		}
		if !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	return kinds, nil
}

func checkTokenAPI(s string) error {
	if s != messages.SourceStableToken && s != messages.SourceToken {
		return fmt.Errorf("%q is not one of %s, %s", s, messages.SourceStableToken, messages.SourceToken)
	}
	return nil
}
