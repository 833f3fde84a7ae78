package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/internal/setting"
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
		if err := c.addVariables(&l, "WECHAT_",
			entry{AppID: c.AppID, Secret: c.Secret, SecretFile: c.SecretFile}); err != nil {
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

func (l *accountList) add(a worker.Account, origin string) error {
	if other, ok := l.origins[a.AppID]; ok {
		return fmt.Errorf("the AppID %s is also in %s: keep one of them", a.AppID, other)
	}
	l.accounts, l.origins[a.AppID] = append(l.accounts, a), origin
	return nil
}

// addVariables adds the account of the variables that begin with prefix.
func (c *Config) addVariables(l *accountList, prefix string, e entry) (err error) {
	appid, secret, file := prefix+"APPID", prefix+"SECRET", prefix+"SECRET_FILE"
	switch {
	case e.AppID == "":
		return setting.Errorf(prefix+e.firstSet(), "%s is not set: set it to the AppID of this account", appid)
	case e.Secret != "" && e.SecretFile != "":
		return setting.Errorf(secret, "%s is set too: set one of them", file)
	case e.Secret == "" && e.SecretFile == "":
		return setting.Errorf(appid, "the account has no secret: set %s or %s", secret, file)
	}
	if err := messages.CheckAppID(e.AppID); err != nil {
		return setting.Errorf(appid, "%w", err)
	}
	a := worker.Account{AppID: e.AppID}
	if e.SecretFile != "" {
		if a.Secret, err = readSecret(e.SecretFile); err != nil {
			return setting.Errorf(file, "%w", err)
		}
	} else if a.Secret, err = checkSecret(e.Secret); err != nil {
		return setting.Errorf(secret, "the value %w", err)
	}
	if field, err := c.fill(&a, e); err != nil {
		return setting.Errorf(prefix+strings.ToUpper(field), "%w", err)
	}
	if err := l.add(a, appid); err != nil {
		return setting.Errorf(appid, "%w", err)
	}
	return nil
}

// fill sets the optional fields of a: from e, or else from the variables for all accounts. An error is about the
// returned field of e.
func (c *Config) fill(a *worker.Account, e entry) (field string, err error) {
	if strings.ContainsFunc(e.Name, unicode.IsControl) || len(e.Name) > 128 {
		return "name", errors.New("it has a control character or more than 128 bytes")
	}
	a.Name, a.TokenAPI = e.Name, c.TokenAPI
	if e.TokenAPI != "" {
		if err := checkTokenAPI(e.TokenAPI); err != nil {
			return "token_api", err
		}
		a.TokenAPI = e.TokenAPI
	}
	tickets := c.Tickets
	if e.Tickets != nil {
		tickets = e.Tickets
	}
	if a.Tickets, err = ticketKinds(tickets); err != nil {
		return "tickets", err
	}
	return "", nil
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
