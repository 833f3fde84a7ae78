package messages

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The headers that mark the reply of a NATS micro service as an error (NATS ADR-32).
const (
	HeaderErrorCode = "Nats-Service-Error-Code" // the number of the symbol
	HeaderError     = "Nats-Service-Error"      // the message, in one line
)

// Symbol is the name of an error. It does not change between versions.
type Symbol string

// The symbols of all errors, with the number of [Symbol.Code].
const (
	// InvalidRequest (400): the request is not JSON; a field is missing, has the wrong type or is too long; or
	// body and subject name different accounts.
	InvalidRequest Symbol = "invalid_request"
	// UnknownAccount (404): the workers do not keep this account.
	UnknownAccount Symbol = "unknown_account"
	// UnknownKind (404): there is no such kind of credential.
	UnknownKind Symbol = "unknown_kind"
	// NotConfigured (409): this kind is switched off for the account.
	NotConfigured Symbol = "not_configured"
	// Rejected (422): WeChat refused this request, and will refuse an equal one again.
	Rejected Symbol = "rejected"
	// Throttled (429): there were too many requests. See [Error].RetryAfterMS.
	Throttled Symbol = "throttled"
	// QuotaExhausted (429): WeChat's daily quota is used up. See [Error].RetryAfterMS.
	QuotaExhausted Symbol = "quota_exhausted"
	// Upstream (502): WeChat's answer cannot be used.
	Upstream Symbol = "upstream"
	// Overloaded (503): this worker has too many requests. Send the request again: another worker may take it.
	Overloaded Symbol = "overloaded"
	// NoCredential (503): there is no valid credential now.
	NoCredential Symbol = "no_credential"
	// ShuttingDown (503): this worker is stopping. Send the request again.
	ShuttingDown Symbol = "shutting_down"
	// UpstreamTimeout (504): WeChat did not answer in time.
	UpstreamTimeout Symbol = "upstream_timeout"
)

// Code is the number of a symbol, as HTTP uses them. It is 0 for an unknown symbol.
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

// Targets for errors.Is: errors.Is(err, ErrRejected) is true for every [Error] with the symbol [Rejected].
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

// Error is the body of an error reply. The reply also has the headers Nats-Service-Error-Code and
// Nats-Service-Error, and as every reply Wxkeeper-Reply.
//
// errors.Is compares an Error with ErrRejected and the like. errors.As gives access to its fields.
type Error struct {
	// Symbol is the name of the error, for programs: rejected, no_credential and so on.
	Symbol Symbol `json:"error"`
	// Message is the error in words, for people.
	Message string `json:"message"`
	// Errcode is WeChat's number of the error. It is left out if WeChat sent none.
	Errcode int `json:"errcode,omitempty"`
	// Errmsg is WeChat's text of the error. It is left out if WeChat sent none.
	Errmsg string `json:"errmsg,omitempty"`
	// RID is WeChat's identifier of the failed request, for questions to WeChat's support.
	RID string `json:"rid,omitempty"`
	// RetryAfterMS is how many milliseconds to wait before the next try. It is left out if that is not known.
	//
	// Use [Error.RetryAfter], which is bounded.
	RetryAfterMS int64 `json:"retry_after_ms,omitempty"`

	// HeaderCode is the number in the reply's header if Symbol is unknown to this version, else 0.
	HeaderCode int `json:"-"`
}

// Code is the number of the error, as HTTP uses them. It is also known for a symbol of a later version, which a
// program cannot know: try again on 429 and on 500 and above. It is 0 if the reply has no number.
func (e *Error) Code() int { return cmp.Or(e.Symbol.Code(), e.HeaderCode) }

// Errorf returns an error with this symbol and message.
func Errorf(s Symbol, format string, args ...any) *Error {
	return &Error{Symbol: s, Message: fmt.Sprintf(format, args...)}
}

// After sets how long to wait before the next try, rounded up to a millisecond, and returns e.
func (e *Error) After(d time.Duration) *Error {
	e.RetryAfterMS = max(1, int64((d+time.Millisecond-1)/time.Millisecond))
	return e
}

// maxRetryAfter is longer than any wait of a worker: a quota begins anew each day. Converted as it is, a larger number
// would overflow, and the caller would not wait at all.
const maxRetryAfter = 7 * 24 * time.Hour

// RetryAfter is how long to wait before the next try: RetryAfterMS, at most a week. It is 0 if that is not known.
func (e *Error) RetryAfter() time.Duration {
	return time.Duration(min(max(0, e.RetryAfterMS), maxRetryAfter.Milliseconds())) * time.Millisecond
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%d): %s", e.Symbol, e.Code(), e.Message)
	if d := e.RetryAfter(); d > 0 {
		fmt.Fprintf(&b, " (try again in %s)", d)
	}
	return b.String()
}

// Is reports whether target is an Error with the same symbol.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Symbol == e.Symbol
}

// Header returns the headers of the error's reply.
func (e *Error) Header() map[string][]string {
	return map[string][]string{
		HeaderReply: {ReplyVersion}, HeaderErrorCode: {strconv.Itoa(e.Code())}, HeaderError: {headerText(e.Message)},
	}
}

// headerText returns s as one line: a line break would end the header.
func headerText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// decodeError decodes an error reply. It returns nil if the reply is not an error.
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
