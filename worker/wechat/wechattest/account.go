package wechattest

import (
	"fmt"
	"slices"
	"sync"
)

// account is what the simulation stores for one AppID.
type account struct {
	appid string
	stats *accountStats

	mu      sync.Mutex // guards all fields below; never locked during I/O
	secret  string
	removed bool

	classic, stable tokenSeries
	lastForce       int64 // 0: never
	tickets         [len(ticketKinds)]*credential

	tokensDay, stableMinute, stableDay, forcesDay quota
	ticketsDay, codesMinute, codesDay             quota
}

// AddAccount adds an account. If the account exists, it gets the new secret and keeps its tokens, quotas and
// counters. AddAccount panics if a field is empty.
func (s *Simulator) AddAccount(a Account) {
	if err := a.validate(); err != nil {
		panic("wechattest: AddAccount: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.accounts[a.AppID]; known != nil {
		known.setSecret(a.Secret)
		return
	}
	c := &s.cfg
	s.accounts[a.AppID] = &account{
		appid:        a.AppID,
		secret:       a.Secret,
		stats:        s.stats.of(a.AppID, true),
		tokensDay:    perDay(c.TokensPerDay),
		stableMinute: perMinute(c.StablePerMinute),
		stableDay:    perDay(c.StablePerDay),
		forcesDay:    perDay(c.ForcesPerDay),
		ticketsDay:   perDay(c.TicketsPerDay),
		codesMinute:  perMinute(c.CodesPerMinute),
		codesDay:     perDay(c.CodesPerDay),
	}
}

// RemoveAccount removes an account: WeChat then refuses it with 40013, and all its tokens and tickets end.
// Its counters remain. An account that does not exist is ignored.
func (s *Simulator) RemoveAccount(appid string) { s.removeAccount(appid) }

func (s *Simulator) removeAccount(appid string) bool {
	s.mu.Lock()
	a := s.accounts[appid]
	delete(s.accounts, appid)
	s.mu.Unlock()
	if a == nil {
		return false
	}
	s.codes.forget(appid)

	a.mu.Lock()
	defer a.mu.Unlock()
	a.removed = true // a call that found the account before the delete issues nothing any more
	now := s.now()
	for _, c := range slices.Concat([]*credential{a.classic.current, a.stable.current}, a.tickets[:]) {
		if c != nil {
			c.shorten(now)
			s.issued.retire(c, now)
		}
	}
	for _, c := range slices.Concat(a.classic.older, a.stable.older) {
		c.shorten(now)
	}
	return true
}

// SetSecret resets the AppSecret: the old AppSecret is wrong at once, and valid tokens stay valid. SetSecret
// panics if the account does not exist or the secret is empty.
func (s *Simulator) SetSecret(appid, secret string) {
	if secret == "" {
		panic("wechattest: SetSecret: secret is empty")
	}
	if !s.setSecret(appid, secret) {
		panic(fmt.Sprintf("wechattest: SetSecret: no account %q", appid))
	}
}

func (s *Simulator) setSecret(appid, secret string) bool {
	a := s.account(appid)
	if a != nil {
		a.setSecret(secret)
	}
	return a != nil
}

func (a *account) setSecret(secret string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.secret = secret
}

// account returns nil if the account does not exist.
func (s *Simulator) account(appid string) *account {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.accounts[appid]
}

// appIDs returns the sorted AppIDs of the accounts.
func (s *Simulator) appIDs() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ids := make([]string, 0, len(s.accounts))
	for id := range s.accounts {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
