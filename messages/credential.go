package messages

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
)

// DefaultBucket is the name of the credential bucket if nothing else is configured (WXKEEPER_BUCKET).
const DefaultBucket = "wechat"

// Kind is the kind of a credential.
type Kind string

// The kinds of credential that WeChat issues to an account.
const (
	AccessToken  Kind = "access_token"
	JSAPITicket  Kind = "jsapi_ticket"
	WXCardTicket Kind = "wx_card_ticket"
)

// Kinds lists all kinds, in the order in which they are shown.
var Kinds = [...]Kind{AccessToken, JSAPITicket, WXCardTicket}

// Valid reports whether k is one of [Kinds].
func (k Kind) Valid() bool { return slices.Contains(Kinds[:], k) }

// The interfaces of WeChat that issue credentials, as [Credential].Source names them.
const (
	SourceToken       = "token"        // GET /cgi-bin/token
	SourceStableToken = "stable_token" // POST /cgi-bin/stable_token
	SourceGetTicket   = "getticket"    // GET /cgi-bin/ticket/getticket
)

// MaxValueSize is the longest value that is published, in bytes. WeChat asks consumers to reserve 512
// (docs/wechat-api.md#token).
const MaxValueSize = 2048

// MaxLife is the longest life of a credential that is published. It limits the damage of a wrong date: a record
// with a wrong, distant end would outlive every correct one. WeChat's credentials live for two hours.
const MaxLife = 31 * 24 * time.Hour

// MaxGeneration is the highest generation that is published: the highest integer that JSON keeps exact in every
// language. A generation grows by one with each value, so only a forged record can be near it.
const MaxGeneration = 1<<53 - 1

// MaxAhead is how far obtained_at may be ahead of the clock of who reads a record: the clocks of two machines may
// differ. A record of a later time would count as newer than every correct one until that time.
const MaxAhead = time.Hour

// The times of a record must fit into int64 nanoseconds since 1970, because kv.Handle compares them in that
// form.
var earliest, latest = time.Unix(0, 0), time.Unix(0, math.MaxInt64)

// Credential is one record of the credential bucket, and the reply to credential.get. Its times are UTC and
// have millisecond precision.
//
// fmt and slog never show the Value of a Credential, whatever the verb. JSON is the wire format and contains
// the value: do not log the JSON of a Credential, and do not log a slice, map or struct of Credentials with
// slog's JSON handler.
type Credential struct {
	AppID string `json:"appid"`
	Kind  Kind   `json:"kind"`
	// Value is the secret: the access_token or the ticket.
	Value string `json:"value"`
	// ObtainedAt is the time before the request to WeChat was sent. For a ticket it is the time at which the
	// value was first seen, because WeChat repeats a ticket with a constant expires_in.
	ObtainedAt time.Time `json:"obtained_at"`
	// ExpiresAt is the end of the credential's life. From then on the value is not handed out.
	ExpiresAt time.Time `json:"expires_at"`
	// RefreshAt is when a worker plans to ask WeChat next.
	RefreshAt time.Time `json:"refresh_at"`
	// Generation is the number of the value: it grows by one with each new value of the key. The first is 1.
	Generation uint64 `json:"generation"`
	// Source is the interface of WeChat that issued the value: token, stable_token or getticket.
	Source string `json:"source"`
	// Worker is the name of the worker that published the record.
	Worker string `json:"worker"`
	// Revision is the bucket's revision of the record. The record in the bucket does not contain it.
	Revision uint64 `json:"revision,omitempty"`
}

// Valid reports whether the credential may be handed out at now.
func (c *Credential) Valid(now time.Time) bool { return now.Before(c.ExpiresAt) }

// Life is the time from ObtainedAt to ExpiresAt.
func (c *Credential) Life() time.Duration { return c.ExpiresAt.Sub(c.ObtainedAt) }

// String describes the credential without its value.
func (c Credential) String() string {
	expires := "never" // the zero value, which is no credential
	if !c.ExpiresAt.IsZero() {
		expires = c.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s.%s generation %d revision %d expires %s", c.AppID, c.Kind, c.Generation, c.Revision, expires)
}

// Format prints String for every verb, so that no verb shows the value (fmt calls no method for %p, and for %w
// outside of Errorf; go vet refuses both).
func (c Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue is what slog logs: the credential without its value.
func (c Credential) LogValue() slog.Value {
	return slog.GroupValue(slog.String("appid", c.AppID), slog.String("kind", string(c.Kind)),
		slog.Uint64("generation", c.Generation), slog.Uint64("revision", c.Revision),
		slog.Time("expires_at", c.ExpiresAt))
}

// ErrInvalidCredential is returned for a credential that must be neither published nor handed out.
var ErrInvalidCredential = errors.New("invalid credential")

// Validate checks a record. Its error wraps [ErrInvalidCredential] and does not show the value.
func (c *Credential) Validate() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalidCredential, fmt.Sprintf(format, args...))
	}
	if err := CheckAppID(c.AppID); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidCredential, err)
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
		return fail("its life is %s, at most %s are allowed", c.Life(), MaxLife)
	}
	switch {
	case c.Generation == 0:
		return fail("the generation is 0")
	case c.Generation > MaxGeneration:
		return fail("the generation is %d, at most %d is allowed", c.Generation, uint64(MaxGeneration))
	}
	return nil
}

// ValidateAt checks a record that was read at now: [Credential.Validate], and that it was not obtained later than
// [MaxAhead] after now. Its error wraps [ErrInvalidCredential] and does not show the value.
func (c *Credential) ValidateAt(now time.Time) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if ahead := c.ObtainedAt.Sub(now); ahead > MaxAhead {
		return fmt.Errorf("%w: %s: obtained_at is %s ahead of the clock here, at most %s are allowed",
			ErrInvalidCredential, Key(c.AppID, c.Kind), ahead.Round(time.Second), MaxAhead)
	}
	return nil
}

// AppIDPattern matches what [CheckAppID] accepts.
const AppIDPattern = `^[A-Za-z0-9_-]{1,64}$`

var appIDPattern = regexp.MustCompile(AppIDPattern)

// ErrInvalidAppID is returned for a string that cannot be an AppID.
var ErrInvalidAppID = errors.New("not an AppID: 1 to 64 of A-Z a-z 0-9 _ - are allowed")

// ErrAppSecret is returned for a string in the place of an AppID that looks like an AppSecret: 32 hexadecimal digits.
// An AppID becomes a part of subjects, keys and logs, where an AppSecret must not be. errors.Is(ErrAppSecret,
// ErrInvalidAppID) is true.
var ErrAppSecret error = appSecretError{}

type appSecretError struct{}

func (appSecretError) Error() string {
	return "this looks like an AppSecret (32 hexadecimal digits) and not like an AppID"
}

func (appSecretError) Is(target error) bool { return target == ErrInvalidAppID }

var appSecretPattern = regexp.MustCompile(`[0-9A-Fa-f]{32}`)

// CheckAppID checks that appid can be one token of a NATS subject and of a key of the bucket, and that it does not
// look like an AppSecret. Its error wraps [ErrInvalidAppID] and shows appid, or it is [ErrAppSecret] and does not.
func CheckAppID(appid string) error {
	secret := appSecretPattern.FindString(appid)
	switch valid := appIDPattern.MatchString(appid); {
	case valid && secret != appid:
		return nil
	case secret != "": // also with a space or a line break beside it
		return ErrAppSecret
	default:
		return fmt.Errorf("%.80q is %w", appid, ErrInvalidAppID)
	}
}

// Key is the key of a credential in the credential bucket and in the ledger: <appid>.<kind>.
func Key(appid string, kind Kind) string { return appid + "." + string(kind) }

// ParseKey is the inverse of [Key]. ok is false if key is not the key of a credential; the key of a lease is
// not.
func ParseKey(key string) (appid string, kind Kind, ok bool) {
	appid, k, ok := strings.Cut(key, ".")
	return appid, Kind(k), ok && Kind(k).Valid()
}

// PublishedSubject is the subject on which the server republishes each change of a record, as a core NATS
// message with the record as its data. appid and kind may be "*".
func PublishedSubject(prefix, appid string, kind Kind) string {
	return prefix + ".published." + Key(appid, kind)
}
