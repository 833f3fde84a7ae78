package wechattest

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"
)

// Account is one AppID with its AppSecret.
type Account struct {
	AppID  string `json:"appid"`
	Secret string `json:"secret"`
}

// Config configures a simulated WeChat. The zero value has WeChat's own numbers and no account.
//
// For the limits, 0 means the given number, and a negative number means no limit.
type Config struct {
	// Accounts exist from the start; AddAccount adds more.
	Accounts []Account

	// TokenLife and TicketLife are the expires_in of a new token and ticket: whole seconds, at least one. 0:
	// 7200 s.
	TokenLife, TicketLife time.Duration

	// Overlap is how long the old and the new value are both valid. It is at most half of TokenLife, so that
	// never more than two tokens are valid. 0: 5 minutes, but at most a third of TokenLife. Negative: no
	// overlap.
	Overlap time.Duration

	// ForceGap is the least time between two forced refreshes of a stable token; a forced call before that is
	// answered as a normal call. 0: 30 s. Negative: no gap.
	ForceGap time.Duration

	ForcesPerDay    int // forced refreshes of stable_token. 0: 20
	TokensPerDay    int // successes of token. 0: 2000
	StablePerMinute int // successes of stable_token, forced or not. 0: 10,000
	StablePerDay    int // successes of stable_token, forced or not. 0: 500,000
	TicketsPerDay   int // calls of getticket, both types together. 0: 10,000
	CodesPerDay     int // calls of tickettocode. 0: no limit
	CodesPerMinute  int // calls of tickettocode. 0: no limit

	// AllowIPs is the IP white list of every account at every endpoint: addresses or CIDRs. Empty: all IPs
	// may call.
	AllowIPs []string

	// Latency is added to every answer, in real time even if Now is set. The call takes effect before the latency
	// begins. 0: none.
	Latency time.Duration

	// AnyCode resolves every well-formed code_ticket (1 to 256 visible ASCII characters), for load tests. The
	// code in the reply is CodeOf(code_ticket).
	AnyCode bool

	// Now is the clock for lives, quotas and the Date header. nil: time.Now.
	Now func() time.Time
}

// WeChat's own numbers: docs/wechat-api.md#token, docs/wechat-api.md#stable_token. For getticket it is the
// lowest quota that a developer has reported (docs/wechat-api.md#getticket).
const (
	defaultLife            = 7200 * time.Second
	defaultOverlap         = 5 * time.Minute
	defaultForceGap        = 30 * time.Second
	defaultForcesPerDay    = 20
	defaultTokensPerDay    = 2000
	defaultStablePerMinute = 10_000
	defaultStablePerDay    = 500_000
	defaultTicketsPerDay   = 10_000
)

// Validate returns an error for every fault that makes New panic; each names its field.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	seen := make(map[string]bool, len(c.Accounts))
	for i, a := range c.Accounts {
		if err := a.validate(); err != nil {
			bad("Accounts[%d]: %w", i, err)
		} else if seen[a.AppID] {
			bad("Accounts[%d]: appid %q is listed twice", i, a.AppID)
		}
		seen[a.AppID] = true
	}
	life := func(name string, d time.Duration) {
		if d != 0 && (d < time.Second || d%time.Second != 0) {
			bad("%s: %v is not a whole number of seconds, at least 1s", name, d)
		}
	}
	life("TokenLife", c.TokenLife)
	life("TicketLife", c.TicketLife)
	if d := c.withDefaults(); d.Overlap > d.TokenLife/2 {
		bad("Overlap: %v is more than half of TokenLife %v", d.Overlap, d.TokenLife)
	}
	if c.Latency < 0 {
		bad("Latency: %v is negative", c.Latency)
	}
	if _, err := parseAllowIPs(c.AllowIPs); err != nil {
		bad("AllowIPs: %w", err)
	}
	return errors.Join(errs...)
}

// looksLikeSecret matches the form of an AppSecret. The simulation shows AppIDs in its counters and errors.
var looksLikeSecret = regexp.MustCompile(`^[0-9A-Fa-f]{32}$`)

func (a Account) validate() error {
	switch {
	case a.AppID == "":
		return errors.New("appid is empty")
	case looksLikeSecret.MatchString(a.AppID):
		return errors.New("appid looks like an AppSecret (32 hexadecimal digits) and not like an AppID")
	case a.AppID == UnknownAppID:
		return fmt.Errorf("appid %q is reserved", UnknownAppID)
	case a.Secret == "":
		return fmt.Errorf("secret of appid %q is empty", a.AppID)
	}
	return nil
}

// withDefaults fills in WeChat's numbers. In the result 0 is a duration of 0, and a limit of 0 or less is no limit.
func (c Config) withDefaults() Config {
	orDuration := func(d *time.Duration, def time.Duration) {
		switch {
		case *d == 0:
			*d = def
		case *d < 0:
			*d = 0
		}
	}
	orInt := func(n *int, def int) {
		if *n == 0 {
			*n = def
		}
	}
	orDuration(&c.TokenLife, defaultLife)
	orDuration(&c.TicketLife, defaultLife)
	orDuration(&c.Overlap, min(defaultOverlap, c.TokenLife/3))
	orDuration(&c.ForceGap, defaultForceGap)
	orInt(&c.ForcesPerDay, defaultForcesPerDay)
	orInt(&c.TokensPerDay, defaultTokensPerDay)
	orInt(&c.StablePerMinute, defaultStablePerMinute)
	orInt(&c.StablePerDay, defaultStablePerDay)
	orInt(&c.TicketsPerDay, defaultTicketsPerDay)
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// parseAllowIPs reads addresses and CIDRs, the two forms that WeChat's console accepts: "172.0.0.1/24", but not
// "172.0.0.*" (docs/wechat-api.md#ip-white-list).
func parseAllowIPs(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range list {
		var p netip.Prefix
		var err error
		if strings.Contains(s, "/") {
			p, err = netip.ParsePrefix(s)
		} else {
			var a netip.Addr
			if a, err = netip.ParseAddr(s); err == nil {
				a = a.Unmap()
				p = netip.PrefixFrom(a, a.BitLen())
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%q is neither an IP address nor a CIDR", s)
		}
		out = append(out, p)
	}
	return out, nil
}
