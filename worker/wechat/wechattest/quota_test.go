package wechattest

import (
	"net/http/httptest"
	"testing"
	"time"
)

func TestDailyQuotasEndWithTheDayOfShanghai(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		set  func(*Config)
		call func(*house, string) said
	}{
		"token":        {func(c *Config) { c.TokensPerDay = 3 }, func(h *house, _ string) said { return h.classic() }},
		"stable_token": {func(c *Config) { c.StablePerDay = 3 }, func(h *house, _ string) said { return h.stable(false) }},
		"getticket":    {func(c *Config) { c.TicketsPerDay = 3 }, func(h *house, token string) said { return h.ticket(token, "jsapi") }},
		"tickettocode": {func(c *Config) { c.CodesPerDay = 3 }, func(h *house, token string) said { return h.code(token, sampleOpenID, sampleTicket) }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, tt.set, func(c *Config) { c.TokenLife = 48 * time.Hour })
			// Of the other endpoint, so that it costs nothing of the quota in question.
			token := ""
			if name != "stable_token" {
				token = h.ok(h.stable(false)).AccessToken
			}
			for range 3 {
				h.ok(tt.call(h, token))
			}
			h.refused(tt.call(h, token), 45009, "reach max api daily quota limit")
			h.clock.Advance(12*time.Hour - 1)
			h.refused(tt.call(h, token), 45009, "daily")
			h.clock.Advance(1)
			h.ok(tt.call(h, token))
		})
	}
}

func TestMinuteQuotasEndWithTheMinute(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.StablePerMinute, c.CodesPerMinute = 2, 2 })
	token := h.ok(h.stable(false)).AccessToken
	h.ok(h.stable(false))
	h.refused(h.stable(false), 45011, "minute-quota")
	for range 2 {
		h.ok(h.code(token, sampleOpenID, sampleTicket))
	}
	h.refused(h.code(token, sampleOpenID, sampleTicket), 45011, "minute-quota")
	h.clock.Advance(time.Minute)
	h.ok(h.stable(false))
	h.ok(h.code(token, sampleOpenID, sampleTicket))
}

func TestAWrongSecretSpendsNoQuota(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.TokensPerDay = 1 })
	for range 3 {
		h.refused(h.classicOf(app, "wrong"), 40001, "")
	}
	h.ok(h.classic())
	h.refused(h.classic(), 45009, "")
}

func TestNegativeLimitIsNone(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.TokensPerDay, c.ForcesPerDay, c.ForceGap, c.Overlap = -1, -1, -1, -1 })
	old := h.ok(h.classic()).AccessToken
	for range 2001 {
		h.ok(h.classic())
	}
	h.judge(old, Dead)
	a := h.ok(h.stable(true)).AccessToken
	for range 30 {
		h.ok(h.stable(true))
	}
	h.judge(a, Dead)
}

func TestWhiteListNamesTheCallersIP(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.AllowIPs = []string{"198.51.100.1", "10.0.0.1/24", "2001:db8::/32"} })
	token := func(remote string) said {
		r := httptest.NewRequest("GET", "/cgi-bin/token?grant_type=client_credential&appid="+app+"&secret="+secret, nil)
		r.RemoteAddr = remote
		return record(h, r)
	}
	allowed := []string{"198.51.100.1:1", "[::ffff:198.51.100.1]:1", "10.0.0.200:1", "[2001:db8::7]:1"}
	var value string
	for _, remote := range allowed {
		value = h.ok(token(remote)).AccessToken
	}
	h.refused(token("203.0.113.9:4711"), 40164, "invalid ip 203.0.113.9 ipv6 ::ffff:203.0.113.9, not in whitelist rid: ")
	h.refused(token("[2001:db9::1]:4711"), 40164, "invalid ip 2001:db9::1 ipv6 2001:db9::1, not")
	h.refused(h.domainIP(value), 40164, "invalid ip 192.0.2.1 ") // httptest's address
}
