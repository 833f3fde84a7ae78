package messages

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The headers by which a NATS micro service marks a reply as an error (ADR-32).
const (
	HeaderErrorCode = "Nats-Service-Error-Code"
	HeaderError     = "Nats-Service-Error"
)

// Symbol is the name of an error, stable across versions.
type Symbol string

// The symbols of all errors. The comment says the code, and when.
const (
	InvalidRequest  Symbol = "invalid_request"  // 400: not JSON, a missing, mistyped or overlong field, appid of body and subject differ
	UnknownAccount  Symbol = "unknown_account"  // 404
	UnknownKind     Symbol = "unknown_kind"     // 404
	NotConfigured   Symbol = "not_configured"   // 409: the kind is switched off for this account
	Rejected        Symbol = "rejected"         // 422: WeChat refused this request for good
	Throttled       Symbol = "throttled"        // 429: asked too often; RetryAfterMS
	QuotaExhausted  Symbol = "quota_exhausted"  // 429: WeChat's quota of the day; RetryAfterMS
	Upstream        Symbol = "upstream"         // 502: WeChat answered with what nobody can use
	Overloaded      Symbol = "overloaded"       // 503: this worker is full; ask again, another may take it
	NoCredential    Symbol = "no_credential"    // 503: there is no living credential now
	ShuttingDown    Symbol = "shutting_down"    // 503: this worker is stopping; ask again
	UpstreamTimeout Symbol = "upstream_timeout" // 504: WeChat did not answer in time
)

// Code is the HTTP-like number of a symbol, 0 for an unknown one.
func (s Symbol) Code() int {
	switch s {
	case InvalidRequest:
		return 400
	case UnknownAccount, UnknownKind:
		return 404
	case NotConfigured:
		return 409
	case Rejected:
		return 422
	case Throttled, QuotaExhausted:
		return 429
	case Upstream:
		return 502
	case Overloaded, NoCredential, ShuttingDown:
		return 503
	case UpstreamTimeout:
		return 504
	default:
		return 0
	}
}

// What errors.Is asks for: errors.Is(err, ErrRejected) holds for every [Error] with the symbol Rejected.
var (
	ErrInvalidRequest  error = &Error{Symbol: InvalidRequest}
	ErrUnknownAccount  error = &Error{Symbol: UnknownAccount}
	ErrUnknownKind     error = &Error{Symbol: UnknownKind}
	ErrNotConfigured   error = &Error{Symbol: NotConfigured}
	ErrRejected        error = &Error{Symbol: Rejected}
	ErrThrottled       error = &Error{Symbol: Throttled}
	ErrQuotaExhausted  error = &Error{Symbol: QuotaExhausted}
	ErrUpstream        error = &Error{Symbol: Upstream}
	ErrOverloaded      error = &Error{Symbol: Overloaded}
	ErrNoCredential    error = &Error{Symbol: NoCredential}
	ErrShuttingDown    error = &Error{Symbol: ShuttingDown}
	ErrUpstreamTimeout error = &Error{Symbol: UpstreamTimeout}
)

// Error is the body of an error reply, which has the headers Nats-Service-Error-Code and Nats-Service-Error too.
//
// errors.Is compares it with the errors above; errors.As gives the rest: WeChat's own words, and when to ask again.
type Error struct {
	Symbol  Symbol `json:"error"`   // what the program decides on: rejected, no_credential, …
	Message string `json:"message"` // for people
	// Errcode, Errmsg and RID are WeChat's own words; not there, or 0: WeChat said none.
	Errcode int    `json:"errcode,omitempty"`
	Errmsg  string `json:"errmsg,omitempty"`
	RID     string `json:"rid,omitempty"`
	// RetryAfterMS is when it makes sense to ask again, in milliseconds; not there, or 0: not known.
	RetryAfterMS int64 `json:"retry_after_ms,omitempty"`

	// HeaderCode is the number in the header, where the symbol is of another version and not known here; else 0.
	HeaderCode int `json:"-"`
}

// Code is the HTTP-like number of the error, also where a worker of another version uses a symbol that is not known here:
// then decide by it (429 and from 500 on, ask again). 0: not known.
func (e *Error) Code() int { return cmp.Or(e.Symbol.Code(), e.HeaderCode) }

// Errorf makes an error.
func Errorf(s Symbol, format string, args ...any) *Error {
	return &Error{Symbol: s, Message: fmt.Sprintf(format, args...)}
}

// After sets when it makes sense to ask again, rounded up to a millisecond, and returns e.
func (e *Error) After(d time.Duration) *Error {
	e.RetryAfterMS = max(1, int64((d+time.Millisecond-1)/time.Millisecond))
	return e
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%d): %s", e.Symbol, e.Code(), e.Message)
	if e.RetryAfterMS > 0 {
		fmt.Fprintf(&b, " (try again in %s)", time.Duration(e.RetryAfterMS)*time.Millisecond)
	}
	return b.String()
}

// Is reports whether target is an Error of the same symbol.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Symbol == e.Symbol
}

// Header are the headers of the error's reply.
func (e *Error) Header() map[string][]string {
	return map[string][]string{HeaderErrorCode: {strconv.Itoa(e.Code())}, HeaderError: {headerText(e.Message)}}
}

// headerText makes a text fit for one line of a header.
func headerText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// decodeError reads an error reply; nil when the reply is none.
func decodeError(header map[string][]string, body []byte) *Error {
	codes := header[HeaderErrorCode]
	if len(codes) == 0 {
		return nil
	}
	e := new(Error)
	if json.Unmarshal(body, e) != nil || e.Symbol == "" {
		*e = Error{Symbol: Symbol("code_" + codes[0])}
		if text := header[HeaderError]; len(text) > 0 {
			e.Message = text[0]
		}
	}
	if e.Symbol.Code() == 0 {
		e.HeaderCode, _ = strconv.Atoi(codes[0])
	}
	return e
}
