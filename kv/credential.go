package kv

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"strings"
	"time"
)

// Kind is the kind of a credential.
type Kind string

// The kinds of credential that WeChat issues to an account.
const (
	AccessToken  Kind = "access_token"
	JSAPITicket  Kind = "jsapi_ticket"
	WXCardTicket Kind = "wx_card_ticket"
)

// Kinds are all kinds, in the order in which they are shown.
var Kinds = [...]Kind{AccessToken, JSAPITicket, WXCardTicket}

// Valid reports whether k is one of [Kinds].
func (k Kind) Valid() bool { return k.index() >= 0 }

// index is the place of k in Kinds, or -1.
func (k Kind) index() int {
	switch k {
	case AccessToken:
		return 0
	case JSAPITicket:
		return 1
	case WXCardTicket:
		return 2
	default:
		return -1
	}
}

// Where a credential came from: the names of the interfaces of WeChat.
const (
	SourceToken       = "token"        // GET /cgi-bin/token
	SourceStableToken = "stable_token" // POST /cgi-bin/stable_token
	SourceGetTicket   = "getticket"    // GET /cgi-bin/ticket/getticket
)

// MaxValueSize is the longest credential that is published, in bytes. WeChat asks for room for 512 (getaccesstoken.txt).
const MaxValueSize = 2048

// MaxLife is the longest life of a credential that is published: a mistake in a date must not outlive every true value.
// Today's live for two hours, and of WeChat a worker believes 30 days.
const MaxLife = 31 * 24 * time.Hour

// A time in nanoseconds, as handles compare it, is one of these years; another would turn up as one of them.
var earliest, latest = time.Unix(0, 0), time.Unix(0, math.MaxInt64)

// Credential is one record of the bucket. Times have millisecond precision and are UTC.
//
// A Credential that is printed, logged or formatted never shows its Value.
type Credential struct {
	AppID string `json:"appid"`
	Kind  Kind   `json:"kind"`
	Value string `json:"value"`
	// ObtainedAt is taken before the request was sent. For a ticket it is the first sight of the value, because
	// WeChat repeats a ticket with a constant expires_in.
	ObtainedAt time.Time `json:"obtained_at"`
	// ExpiresAt ends the life; from then on nobody hands the value out.
	ExpiresAt time.Time `json:"expires_at"`
	// RefreshAt is when a worker asks WeChat next.
	RefreshAt time.Time `json:"refresh_at"`
	// Generation grows by one at each new value of the key, for ever; 1 is the first.
	Generation uint64 `json:"generation"`
	// Source is SourceToken, SourceStableToken or SourceGetTicket.
	Source string `json:"source"`
	// Worker is the name of the worker that published the record.
	Worker string `json:"worker"`

	// Revision is the bucket's revision of the record; 0 while it is not stored. It is not part of the stored JSON.
	Revision uint64 `json:"-"`
}

// Valid reports whether the credential may be handed out at now.
func (c *Credential) Valid(now time.Time) bool { return now.Before(c.ExpiresAt) }

// Life is how long the credential lives from the time it was obtained.
func (c *Credential) Life() time.Duration { return c.ExpiresAt.Sub(c.ObtainedAt) }

// String shows everything but the value.
func (c Credential) String() string {
	return fmt.Sprintf("%s.%s generation %d revision %d expires %s", c.AppID, c.Kind, c.Generation, c.Revision,
		c.ExpiresAt.UTC().Format(time.RFC3339))
}

// GoString is String, so that %#v shows no value either.
func (c Credential) GoString() string { return c.String() }

// LogValue is what slog writes of a credential.
func (c Credential) LogValue() slog.Value {
	return slog.GroupValue(slog.String("appid", c.AppID), slog.String("kind", string(c.Kind)),
		slog.Uint64("generation", c.Generation), slog.Uint64("revision", c.Revision), slog.Time("expires_at", c.ExpiresAt))
}

// ErrInvalid is returned for a credential that must not be published or handed out.
var ErrInvalid = errors.New("kv: invalid credential")

// Validate says what is wrong with a record, without showing its value: [ErrInvalid], or nil.
func (c *Credential) Validate() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if err := CheckAppID(c.AppID); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !c.Kind.Valid() {
		return fail("unknown kind %.64q", string(c.Kind))
	}
	switch n := len(c.Value); {
	case n == 0:
		return fail("the value is empty")
	case n > MaxValueSize:
		return fail("the value has %d bytes, at most %d are allowed", n, MaxValueSize)
	}
	for i := range len(c.Value) {
		if b := c.Value[i]; b <= ' ' || b > '~' {
			return fail("the value has an unprintable byte at %d", i)
		}
	}
	if !c.ExpiresAt.After(c.ObtainedAt) {
		return fail("expires_at is not after obtained_at")
	}
	if c.ObtainedAt.Before(earliest) || c.ExpiresAt.After(latest) {
		return fail("its times are not between 1970 and 2262")
	}
	if c.Life() > MaxLife {
		return fail("it lives for %s, at most %s are allowed", c.Life(), MaxLife)
	}
	if c.Generation == 0 {
		return fail("the generation is 0")
	}
	return nil
}

var appIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// ErrAppID is returned for a string that cannot be an AppID here.
var ErrAppID = errors.New("not an AppID: 1 to 64 of A-Z a-z 0-9 _ - are allowed")

// CheckAppID says whether appid can be one token of a NATS subject and of a KV key: [ErrAppID], or nil.
func CheckAppID(appid string) error {
	if !appIDPattern.MatchString(appid) {
		return fmt.Errorf("%.80q is %w", appid, ErrAppID)
	}
	return nil
}

// Key is the key of a credential in its bucket, and in the ledger.
func Key(appid string, kind Kind) string { return appid + "." + string(kind) }

// leaseKey is the key of the lease of a credential: three tokens, so that who watches *.* does not see leases.
func leaseKey(appid string, kind Kind) string { return "lease." + Key(appid, kind) }

// splitKey is the inverse of Key.
func splitKey(key string) (appid string, kind Kind, ok bool) {
	appid, k, ok := strings.Cut(key, ".")
	return appid, Kind(k), ok && Kind(k).Valid()
}
