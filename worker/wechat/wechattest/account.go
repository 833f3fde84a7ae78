package wechattest

import (
	"fmt"
	"slices"
	"sync"
)

// account is what WeChat knows of one AppID.
type account struct {
	appid string
	stats *accountStats

	mu      sync.Mutex // guards all below; held for a decision, never for I/O
	secret  string
	removed bool

	classic, stable line
	lastForce       int64 // 0: never
	tickets         [len(ticketKinds)]*credential

	tokensDay, stableMinute, stableDay, forcesDay quota
	ticketsDay, codesMinute, codesDay             quota
}

// AddAccount makes an account known. One that is known keeps its tokens, quotas
// and counters and gets the new secret. It panics if a field is empty.
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

// RemoveAccount makes an account unknown (40013) and kills what was issued to
// it. Its counters stay. Unknown already: nothing happens.
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
	a.removed = true // a call that found the account before the delete mints nothing more
	now := s.now()
	for _, c := range slices.Concat([]*credential{a.classic.current, a.stable.current}, a.tickets[:]) {
		if c != nil {
			c.kill(now)
			s.issued.retire(c, now)
		}
	}
	for _, c := range slices.Concat(a.classic.older, a.stable.older) {
		c.kill(now)
	}
	return true
}

// SetSecret resets the AppSecret: the old one is wrong at once, living tokens
// live on. It panics if the account is unknown or the secret empty.
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

// account returns nil for an unknown one.
func (s *Simulator) account(appid string) *account {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.accounts[appid]
}

// appIDs are those of the known accounts, sorted.
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
