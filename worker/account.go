package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
)

// Account is one AppID with its AppSecret, and what is to be kept for it.
type Account struct {
	AppID  string
	Secret string
	Name   string // for people; may be empty
	// TokenAPI is kv.SourceStableToken (also for "") or kv.SourceToken.
	TokenAPI string
	// Tickets are the kinds of ticket to keep; nil: none.
	Tickets []messages.Kind
}

// String shows everything but the secret.
func (a Account) String() string {
	return fmt.Sprintf("%s (%s, %s, tickets %v)", a.AppID, a.Name, a.TokenAPI, a.Tickets)
}

// GoString is String, so that %#v shows no secret either.
func (a Account) GoString() string { return a.String() }

// LogValue is what slog writes of an account.
func (a Account) LogValue() slog.Value { return slog.StringValue(a.AppID) }

func (a *Account) validate() error {
	if err := messages.CheckAppID(a.AppID); err != nil {
		return err
	}
	switch {
	case a.Secret == "":
		return fmt.Errorf("account %s has no secret", a.AppID)
	case a.TokenAPI != messages.SourceStableToken && a.TokenAPI != messages.SourceToken:
		return fmt.Errorf("account %s: unknown token API %q: %s and %s exist", a.AppID, a.TokenAPI, messages.SourceStableToken, messages.SourceToken)
	}
	for _, k := range a.Tickets {
		if k != messages.JSAPITicket && k != messages.WXCardTicket {
			return fmt.Errorf("account %s: %q is not a kind of ticket", a.AppID, k)
		}
	}
	return nil
}

// kinds are the kinds of credential that are kept for the account.
func (a *Account) kinds() []messages.Kind {
	return append([]messages.Kind{messages.AccessToken}, a.Tickets...)
}

func (a *Account) keeps(k messages.Kind) bool { return slices.Contains(a.kinds(), k) }

// rule is how the kind is renewed for the account.
func (a *Account) rule(k messages.Kind) policy.Rule {
	switch {
	case k != messages.AccessToken:
		return policy.Ticket
	case a.TokenAPI == messages.SourceToken:
		return policy.Classic
	default:
		return policy.Stable
	}
}

// fingerprint tells settings of an account apart in the ledger, without giving them away: 64 bits of a hash over a
// secret of 128 random bits.
func (a *Account) fingerprint() string {
	sum := sha256.Sum256([]byte(a.AppID + "\x00" + a.Secret + "\x00" + a.TokenAPI))
	return hex.EncodeToString(sum[:8])
}

// accounts are the accounts of a worker. They can be exchanged while it runs; an Account itself never changes.
type accounts struct {
	m atomic.Pointer[map[string]*Account]
}

// set exchanges the accounts. Where the list makes no sense it changes nothing.
func (as *accounts) set(list []Account) error {
	if len(list) == 0 {
		return errors.New("no account: set WECHAT_APPID and WECHAT_SECRET, or WECHAT_ACCOUNTS_FILE")
	}
	m := make(map[string]*Account, len(list))
	for i := range list {
		a := list[i]
		if a.TokenAPI == "" {
			a.TokenAPI = messages.SourceStableToken
		}
		if err := a.validate(); err != nil {
			return err
		}
		if m[a.AppID] != nil {
			return fmt.Errorf("account %s is there twice", a.AppID)
		}
		m[a.AppID] = &a
	}
	as.m.Store(&m)
	return nil
}

func (as *accounts) get(appid string) *Account { return (*as.m.Load())[appid] }

func (as *accounts) len() int { return len(*as.m.Load()) }

// all are the accounts by AppID. The map must not be changed.
func (as *accounts) all() map[string]*Account { return *as.m.Load() }

// only is the account of a worker that has a single one, or nil.
func (as *accounts) only() *Account {
	m := *as.m.Load()
	if len(m) != 1 {
		return nil
	}
	for _, a := range m {
		return a
	}
	return nil
}
