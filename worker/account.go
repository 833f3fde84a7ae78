package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/redact"
	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/policy"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// Secret is an AppSecret. It prints as *** however it is printed or logged; Reveal returns it.
type Secret = redact.Secret

// DefaultTokenAPI is the TokenAPI of an [Account] that names none.
const DefaultTokenAPI = messages.SourceStableToken

// Account is one AppID with its AppSecret, and the credentials that workers keep for it.
type Account struct {
	AppID  string
	Secret Secret
	Name   string // for people; may be empty
	// TokenAPI is messages.SourceStableToken or messages.SourceToken; "" means DefaultTokenAPI.
	TokenAPI string
	// Tickets are the kinds of ticket that are kept; nil means none.
	Tickets []messages.Kind

	// keys are the keys of the account's entries in the buckets: of this secret, and of the one before, so that
	// a new AppSecret does not make everything that is stored look forged.
	keys    []seal.Key
	changed time.Time // when this secret replaced the one before; zero: there was none
	// a ticket that WeChat does not permit is tried at once if its last attempt was before this time
	retryBefore time.Time
}

// oldKeyFor is for how long the key of the AppSecret before is accepted. Until then what it has sealed has expired, or
// was written again. An AppSecret is often changed because others know it: they could make seals with its key.
const oldKeyFor = 3 * time.Hour

// String describes the account without its secret.
func (a Account) String() string {
	return fmt.Sprintf("%s (%s, %s, tickets %v)", a.AppID, a.Name, a.TokenAPI, a.Tickets)
}

// Format prints String for every verb. Without it fmt would print the secret of an *Account in a list with verbs like
// %s: it formats such a pointer without calling the methods of the fields.
func (a Account) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.String()) }

func (a *Account) validate() error {
	if err := messages.CheckAppID(a.AppID); err != nil {
		return err
	}
	switch {
	case a.Secret == "":
		return fmt.Errorf("account %s has no secret", a.AppID)
	case a.TokenAPI != messages.SourceStableToken && a.TokenAPI != messages.SourceToken:
		return fmt.Errorf("account %s: unknown token API %q: use %s or %s", a.AppID,
			a.TokenAPI, messages.SourceStableToken, messages.SourceToken)
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

// TicketType is the type of a kind of ticket in WeChat's interface.
func TicketType(k messages.Kind) wechat.TicketType {
	if k == messages.WXCardTicket {
		return wechat.TicketWXCard
	}
	return wechat.TicketJSAPI
}

// rule is how credentials of the kind are refreshed for the account.
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

// fingerprint identifies the settings of an account in the ledger: workers see that a secret or token API has
// changed. 64 bits of a hash over a secret of 128 random bits do not reveal the secret.
func (a *Account) fingerprint() string {
	text := make([]byte, 0, len(a.AppID)+len(a.Secret)+len(a.TokenAPI)+2)
	defer func() { clear(text) }() // each plan needs the fingerprint: the memory was full of copies of the secret
	text = append(append(text, a.AppID...), 0)
	text = append(append(text, a.Secret.Reveal()...), 0)
	text = append(text, a.TokenAPI...)
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// replace makes a the successor of the account before: it also accepts the key of the secret before. If a setting has
// changed, tickets that WeChat did not permit are tried again.
func (a *Account) replace(before *Account, now time.Time) {
	if before.fingerprint() == a.fingerprint() && slices.Equal(before.Tickets, a.Tickets) {
		a.retryBefore = before.retryBefore
	}
	if before.Secret == a.Secret {
		a.keys, a.changed = before.keys, before.changed
		return
	}
	a.keys, a.changed = append(a.keys, before.keys[0]), now
}

// accounts are the accounts of a worker. The list can be replaced while the worker runs; an Account never changes.
type accounts struct {
	m     atomic.Pointer[map[string]*Account]
	clock func() time.Time // nil is time.Now
}

func (as *accounts) now() time.Time {
	if as.clock == nil {
		return time.Now()
	}
	return as.clock()
}

// set replaces the accounts. If the list is invalid, set changes nothing and returns an error.
func (as *accounts) set(list []Account) error {
	if len(list) == 0 {
		return errors.New("no account: set WECHAT_APPID and WECHAT_SECRET, or WECHAT_ACCOUNTS_FILE")
	}
	m := make(map[string]*Account, len(list))
	now := as.now()
	retryBefore := now
	if as.m.Load() == nil { // at the start: not for each worker of a fleet that is restarted
		retryBefore = now.Add(-policy.PermanentMin)
	}
	for i := range list {
		a := list[i]
		if a.TokenAPI == "" {
			a.TokenAPI = DefaultTokenAPI
		}
		if err := a.validate(); err != nil {
			return err
		}
		if m[a.AppID] != nil {
			return fmt.Errorf("account %s is in the list twice", a.AppID)
		}
		a.keys, a.retryBefore = []seal.Key{seal.New(a.AppID, a.Secret.Reveal())}, retryBefore
		if before := as.get(a.AppID); before != nil {
			a.replace(before, now)
		}
		m[a.AppID] = &a
	}
	as.m.Store(&m)
	return nil
}

// get returns an account, or nil.
func (as *accounts) get(appid string) *Account {
	if m := as.m.Load(); m != nil {
		return (*m)[appid]
	}
	return nil
}

// keys are the keys of an account's entries in the buckets; none if the account is not kept.
func (as *accounts) keys(appid string) []seal.Key {
	a := as.get(appid)
	switch {
	case a == nil:
		return nil
	case as.now().Sub(a.changed) > oldKeyFor:
		return a.keys[:1]
	default:
		return a.keys
	}
}

func (as *accounts) len() int { return len(*as.m.Load()) }

// all returns the accounts by AppID. The caller must not change the map.
func (as *accounts) all() map[string]*Account { return *as.m.Load() }

// only returns the account of a worker that has exactly one account, and nil for any other worker.
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
