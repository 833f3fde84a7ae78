package wechattest

import (
	"crypto/rand"
	"encoding/base64"
	"sync"
	"sync/atomic"
	"time"
)

// Kinds of credential, in the words of Judge.
const (
	KindAccessToken  = "access_token"
	KindJSAPITicket  = "jsapi_ticket"
	KindWXCardTicket = "wx_card_ticket"
)

// credential is one value that was issued. Its end may come nearer but never go
// further away; it is read without a lock.
type credential struct {
	account *account
	kind    string
	value   string
	lifeEnd int64        // the end it was issued with
	end     atomic.Int64 // the end it really has: a successor brings it nearer
	revoked atomic.Bool
}

func newCredential(a *account, kind, value string, end int64) *credential {
	c := &credential{account: a, kind: kind, value: value, lifeEnd: end}
	c.end.Store(end)
	return c
}

// shorten makes the end at most t. The caller holds the account's lock.
func (c *credential) shorten(t int64) {
	if c.end.Load() > t {
		c.end.Store(t)
	}
}

func (c *credential) kill(now int64) { c.shorten(now) }

// verdict is what WeChat would say of it now. One that was killed is dead (40001)
// until its own life is over, from then on it is expired (42001).
func (c *credential) verdict(now int64) Verdict {
	switch {
	case now >= c.lifeEnd:
		return Expired
	case c.revoked.Load() || now >= c.end.Load():
		return Dead
	}
	return Valid
}

// rest is the life it has left, by what it was issued with.
func (c *credential) rest(now int64) time.Duration { return time.Duration(c.lifeEnd - now) }

// remembered is how many superseded values are known at least, so that a late
// caller is told 40001 or 42001 and not 40014. It bounds the memory of a long run.
const remembered = 20_000

// registry finds what was issued by its value.
type registry struct {
	mu      sync.RWMutex
	byValue map[string]*credential
	retired []*credential // superseded, oldest first
}

func (r *registry) find(value string) *credential {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byValue[value]
}

func (r *registry) add(c *credential) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byValue == nil {
		r.byValue = make(map[string]*credential)
	}
	r.byValue[c.value] = c
}

// retire says that c has a successor, so that it may be forgotten some time. One
// that still lives is never forgotten, so for one overlap the list may be longer.
func (r *registry) retire(c *credential, now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retired = append(r.retired, c)
	for len(r.retired) > remembered && now >= r.retired[0].end.Load() {
		delete(r.byValue, r.retired[0].value)
		r.retired[0] = nil
		r.retired = r.retired[1:]
	}
}

// newToken looks like WeChat's: two digits, an underscore, 136 characters in all.
func newToken() string { return "97_" + randomText(133) }

// newTicket has the 86 characters of the tickets in WeChat's signature examples.
func newTicket() string { return randomText(86) }

// randomText is n characters of A-Za-z0-9_-.
func randomText(n int) string {
	b := make([]byte, base64.RawURLEncoding.DecodedLen(n)+1)
	_, _ = rand.Read(b) // never fails, see its documentation
	return base64.RawURLEncoding.EncodeToString(b)[:n]
}
