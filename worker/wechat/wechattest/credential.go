package wechattest

import (
	"crypto/rand"
	"encoding/base64"
	"sync"
	"sync/atomic"
	"time"
)

// The kinds of credential, for Validity.
const (
	KindAccessToken  = "access_token"
	KindJSAPITicket  = "jsapi_ticket"
	KindWXCardTicket = "wx_card_ticket"
)

// credential is one value that was issued. Its end can only move to an earlier time; it is read without a lock.
type credential struct {
	account *account
	kind    string
	value   string
	lifeEnd int64        // the end that it was issued with
	end     atomic.Int64 // the actual end, which a successor makes earlier
	revoked atomic.Bool
}

func newCredential(a *account, kind, value string, end int64) *credential {
	c := &credential{account: a, kind: kind, value: value, lifeEnd: end}
	c.end.Store(end)
	return c
}

// shorten moves the end to t unless it is earlier. The caller has locked the account.
func (c *credential) shorten(t int64) {
	if c.end.Load() > t {
		c.end.Store(t)
	}
}

// validity returns whether WeChat accepts the credential now. A credential that ended early is dead (40001)
// until its life is over, and expired (42001) after that.
func (c *credential) validity(now int64) Validity {
	switch {
	case now >= c.lifeEnd:
		return Expired
	case c.revoked.Load() || now >= c.end.Load():
		return Dead
	}
	return Valid
}

// rest returns the remaining life that it was issued with.
func (c *credential) rest(now int64) time.Duration { return time.Duration(c.lifeEnd - now) }

// remembered is how many replaced values the registry keeps at least, so that a late caller gets 40001 or
// 42001 and not
// 40014. It limits the memory of a long run.
const remembered = 20_000

// registry finds a credential by its value.
type registry struct {
	mu      sync.RWMutex
	byValue map[string]*credential
	retired []*credential // replaced, oldest first
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

// retire records that c has a successor, so that the registry may drop it later. A valid credential is never
// dropped, so the list can be longer than remembered for one overlap.
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

// newToken returns a token of WeChat's form: two digits, an underscore, 136 characters in all.
func newToken() string { return "97_" + randomText(133) }

// newTicket returns a ticket of 86 characters, as in WeChat's signature examples.
func newTicket() string { return randomText(86) }

// randomText returns n characters of A-Za-z0-9_-.
func randomText(n int) string {
	b := make([]byte, base64.RawURLEncoding.DecodedLen(n)+1)
	_, _ = rand.Read(b) // never fails, see its documentation
	return base64.RawURLEncoding.EncodeToString(b)[:n]
}
