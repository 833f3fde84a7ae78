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
		call func(*fixture, string) response
	}{
		"token": {
			func(c *Config) { c.TokensPerDay = 3 },
			func(fx *fixture, _ string) response { return fx.classic() },
		},
		"stable_token": {
			func(c *Config) { c.StablePerDay = 3 },
			func(fx *fixture, _ string) response { return fx.stable(false) },
		},
		"getticket": {
			func(c *Config) { c.TicketsPerDay = 3 },
			func(fx *fixture, token string) response { return fx.ticket(token, "jsapi") },
		},
		"tickettocode": {
			func(c *Config) { c.CodesPerDay = 3 },
			func(fx *fixture, token string) response { return fx.code(token, sampleOpenID, sampleTicket) },
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, tt.set, func(c *Config) { c.TokenLife = 48 * time.Hour })
			// The token comes from the other token endpoint, so that it does not use the quota of this test.
			token := ""
			if name != "stable_token" {
				token = fx.ok(fx.stable(false)).AccessToken
			}
			for range 3 {
				fx.ok(tt.call(fx, token))
			}
			fx.refused(tt.call(fx, token), 45009, "reach max api daily quota limit")
			fx.clock.Advance(12*time.Hour - 1)
			fx.refused(tt.call(fx, token), 45009, "daily")
			fx.clock.Advance(1)
			fx.ok(tt.call(fx, token))
		})
	}
}

func TestMinuteQuotasEndWithTheMinute(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *Config) { c.StablePerMinute, c.CodesPerMinute = 2, 2 })
	token := fx.ok(fx.stable(false)).AccessToken
	fx.ok(fx.stable(false))
	fx.refused(fx.stable(false), 45011, "minute-quota")
	for range 2 {
		fx.ok(fx.code(token, sampleOpenID, sampleTicket))
	}
	fx.refused(fx.code(token, sampleOpenID, sampleTicket), 45011, "minute-quota")
	fx.clock.Advance(time.Minute)
	fx.ok(fx.stable(false))
	fx.ok(fx.code(token, sampleOpenID, sampleTicket))
}

func TestAWrongSecretUsesNoQuota(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *Config) { c.TokensPerDay = 1 })
	for range 3 {
		fx.refused(fx.classicOf(app, "wrong"), 40001, "")
	}
	fx.ok(fx.classic())
	fx.refused(fx.classic(), 45009, "")
}

func TestANegativeLimitIsNoLimit(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *Config) { c.TokensPerDay, c.ForcesPerDay, c.ForceGap, c.Overlap = -1, -1, -1, -1 })
	old := fx.ok(fx.classic()).AccessToken
	for range 2001 {
		fx.ok(fx.classic())
	}
	fx.checkValidity(old, Dead)
	a := fx.ok(fx.stable(true)).AccessToken
	for range 30 {
		fx.ok(fx.stable(true))
	}
	fx.checkValidity(a, Dead)
}

func TestWhiteListNamesTheCallersIP(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *Config) { c.AllowIPs = []string{"198.51.100.1", "10.0.0.1/24", "2001:db8::/32"} })
	token := func(remote string) response {
		r := httptest.NewRequest("GET", "/cgi-bin/token?grant_type=client_credential&appid="+app+"&secret="+secret, nil)
		r.RemoteAddr = remote
		return record(fx, r)
	}
	allowed := []string{"198.51.100.1:1", "[::ffff:198.51.100.1]:1", "10.0.0.200:1", "[2001:db8::7]:1"}
	var value string
	for _, remote := range allowed {
		value = fx.ok(token(remote)).AccessToken
	}
	fx.refused(token("203.0.113.9:4711"), 40164,
		"invalid ip 203.0.113.9 ipv6 ::ffff:203.0.113.9, not in whitelist rid: ")
	fx.refused(token("[2001:db9::1]:4711"), 40164, "invalid ip 2001:db9::1 ipv6 2001:db9::1, not")
	fx.refused(fx.domainIP(value), 40164, "invalid ip 192.0.2.1 ") // httptest's address
}
