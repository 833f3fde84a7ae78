package wechattest

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Account is one AppID with its AppSecret.
type Account struct {
	AppID  string `json:"appid"`
	Secret string `json:"secret"`
}

// Config says how the simulated WeChat behaves. The zero value has WeChat's own
// numbers and knows no account.
//
// In the limits, 0 means the number given and a negative one means no limit.
type Config struct {
	// Accounts that exist from the start; AddAccount adds more.
	Accounts []Account

	// TokenLife and TicketLife are what a new token or ticket says in
	// expires_in, so whole seconds, at least one. 0: 7200 s.
	TokenLife, TicketLife time.Duration

	// Overlap is how long the old and the new value are both good. At most half
	// of TokenLife, so that never more than two are. 0: 5 minutes, at most a
	// third of TokenLife. Negative: none.
	Overlap time.Duration

	// ForceGap is the least time between two forced refreshes of a stable token;
	// a sooner one is answered as a normal call. 0: 30 s. Negative: none.
	ForceGap time.Duration

	ForcesPerDay    int // forced refreshes of stable_token. 0: 20
	TokensPerDay    int // successes of token. 0: 2000
	StablePerMinute int // successes of stable_token, forced or not. 0: 10,000
	StablePerDay    int // the same in a day. 0: 500,000
	TicketsPerDay   int // calls of getticket, both types together. 0: 10,000
	CodesPerDay     int // calls of tickettocode. 0: no limit
	CodesPerMinute  int // the same in a minute. 0: no limit

	// AllowIPs is the IP white list, addresses or CIDRs, of every account and
	// every endpoint. Empty: everyone may call.
	AllowIPs []string

	// Latency is added to every answer, in real time whatever Now says. The call
	// has taken effect before it is waited for. 0: none.
	Latency time.Duration

	// AnyCode resolves every well-formed code_ticket (1 to 256 visible ASCII
	// characters), for load tests. The code in the reply is CodeOf(code_ticket).
	AnyCode bool

	// Now is the clock of lives, of quotas and of the Date header. nil: time.Now.
	Now func() time.Time
}

// WeChat's own numbers: seeds getaccesstoken and getticket for the lives and the
// overlap, the page of getStableAccessToken for forced mode and its rates, the
// quota page of a new official account for token, the lowest limit that a
// developer reported for getticket.
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

// Validate reports everything that New would panic about, each by the name of
// its field.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	seen := make(map[string]bool, len(c.Accounts))
	for i, a := range c.Accounts {
		if err := a.validate(); err != nil {
			bad("Accounts[%d]: %w", i, err)
		} else if seen[a.AppID] {
			bad("Accounts[%d]: appid %q stands there twice", i, a.AppID)
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

func (a Account) validate() error {
	switch {
	case a.AppID == "":
		return errors.New("appid is empty")
	case a.AppID == UnknownAppID:
		return fmt.Errorf("appid %q is reserved", UnknownAppID)
	case a.Secret == "":
		return fmt.Errorf("secret of appid %q is empty", a.AppID)
	}
	return nil
}

// withDefaults fills in WeChat's numbers. Afterwards a duration is what it says
// and a limit of 0 or less is no limit.
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

// parseAllowIPs reads addresses and CIDRs, the two forms that WeChat's console
// accepts ("172.0.0.1/24" yes, "172.0.0.*" no).
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
