// Package messages is the wire contract of the request-reply subjects of wxkeeper's workers: the subjects, the JSON of
// requests, replies, errors and events, and a thin typed client. A service in another language needs nothing but this
// page: a NATS request with the JSON of a request type, and a look at the two error headers of the reply. The directory
// schemas has a JSON Schema of each.
//
// Each subject exists twice: <prefix>.code.resolve, with the account in the body (it may be left out where the worker
// has one account only), and <prefix>.code.resolve.<appid>, so that a NATS permission can grant one account alone.
package messages

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// DefaultPrefix is the first token of every subject where nothing else is configured.
const DefaultPrefix = "wechat"

// What follows the prefix in the subjects.
const (
	SubjectCodeResolve       = "code.resolve"
	SubjectCredentialGet     = "credential.get"
	SubjectCredentialRefresh = "credential.refresh"
	SubjectJSSDKSign         = "jssdk.sign"
	SubjectCardSign          = "card.sign"
	SubjectStatus            = "status"
)

// Subjects are all of them.
var Subjects = [...]string{
	SubjectCodeResolve, SubjectCredentialGet, SubjectCredentialRefresh, SubjectJSSDKSign, SubjectCardSign, SubjectStatus,
}

// Largest sizes of the fields of a request, in bytes. WeChat says String256 of a code_ticket and nothing of an openid.
const (
	MaxRequest    = 64 << 10
	MaxOpenID     = 128
	MaxCodeTicket = 256
)

// ResolveCodeRequest asks for the marketing code behind a code_ticket (POST /intp/marketcode/tickettocode). The reply is
// WeChat's own answer, see [Code].
type ResolveCodeRequest struct {
	AppID      string `json:"appid,omitempty"`
	OpenID     string `json:"openid"`
	CodeTicket string `json:"code_ticket"`
}

// Code is WeChat's answer to [ResolveCodeRequest], as tickettocode.txt has it. The reply on the wire keeps fields that this
// type does not know.
type Code struct {
	Errcode          int    `json:"errcode"`
	Errmsg           string `json:"errmsg"`
	Code             string `json:"code"` // a string: leading zeros count
	ApplicationID    uint64 `json:"application_id"`
	ISVApplicationID string `json:"isv_application_id"`
	ActivityName     string `json:"activity_name"`
	ProductBrand     string `json:"product_brand"`
	ProductTitle     string `json:"product_title"`
	ProductCode      string `json:"product_code"`
	WxaAppID         string `json:"wxa_appid"`
	WxaPath          string `json:"wxa_path"`
	CodeStart        int64  `json:"code_start"` // inclusive
	CodeEnd          int64  `json:"code_end"`   // inclusive
}

// GetCredentialRequest asks for the current credential. Kind is access_token where it is left out. The reply is [Credential].
type GetCredentialRequest struct {
	AppID string `json:"appid,omitempty"`
	Kind  Kind   `json:"kind,omitempty"`
}

// RefreshCredentialRequest reports that WeChat refused a credential: which one, by the revision of its record or by the hex
// SHA-256 of its value. With neither, the current one is meant. The reply is [Refreshed].
type RefreshCredentialRequest struct {
	AppID       string `json:"appid,omitempty"`
	Kind        Kind   `json:"kind,omitempty"`
	Revision    uint64 `json:"revision,omitempty"`
	ValueSHA256 string `json:"value_sha256,omitempty"`
}

// ValueSHA256 is how a report names a value without showing it: the hex SHA-256.
func ValueSHA256(value string) string {
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:])
}

// Refreshed tells which credential is the current one after a report.
type Refreshed struct {
	AppID      string    `json:"appid"`
	Kind       Kind      `json:"kind"`
	Revision   uint64    `json:"revision"`
	Generation uint64    `json:"generation"`
	ExpiresAt  time.Time `json:"expires_at"`
	Refreshed  bool      `json:"refreshed"` // true: this report, or one that came with it, made WeChat issue a new value
	Reason     string    `json:"reason"`    // one of the Reason constants
}

// Reasons of [Refreshed].
const (
	ReasonRefreshed  = "refreshed"   // the reported value was dead; WeChat issued a new one
	ReasonNotCurrent = "not_current" // the reported value is not the current one; use the current one
	ReasonAlive      = "alive"       // WeChat was asked and accepts the reported value
	ReasonUnchanged  = "unchanged"   // WeChat still gives out the reported value
)

// StatusRequest asks for the state of the credentials of one account, or of all. The reply is [Status].
type StatusRequest struct {
	AppID string `json:"appid,omitempty"`
}

// Status is what one worker knows of the credentials. It carries no secret.
type Status struct {
	Worker      string             `json:"worker"`
	Version     string             `json:"version"`
	Time        time.Time          `json:"time"`
	Accounts    int                `json:"accounts"`
	Summary     map[string]int     `json:"summary"` // state → number of credentials
	Credentials []CredentialStatus `json:"credentials"`
	// Truncated says that only the credentials most in need of attention are listed; ask for one account to see it.
	Truncated bool `json:"truncated,omitempty"`
}

// States of a credential.
const (
	StateFresh   = "fresh"   // valid, and the last refresh succeeded
	StateRefused = "refused" // its life is not over, but WeChat refuses it; it is renewed as soon as may be
	StateFailing = "failing" // valid, but refreshing it fails
	StateExpired = "expired" // the last value is dead, and none has replaced it
	StateMissing = "missing" // never obtained
)

// CredentialStatus is the state of one credential.
type CredentialStatus struct {
	AppID        string    `json:"appid"`
	Name         string    `json:"name,omitempty"`
	Kind         Kind      `json:"kind"`
	State        string    `json:"state"`
	Reason       string    `json:"reason"`           // what the worker does next, and why
	Advice       string    `json:"advice,omitempty"` // what an operator should do
	Source       string    `json:"source,omitempty"`
	Generation   uint64    `json:"generation,omitempty"`
	Revision     uint64    `json:"revision,omitempty"`
	ObtainedAt   time.Time `json:"obtained_at,omitzero"`
	ExpiresAt    time.Time `json:"expires_at,omitzero"`
	NextAttempt  time.Time `json:"next_attempt,omitzero"`
	LastAttempt  time.Time `json:"last_attempt,omitzero"`
	Attempts     int       `json:"attempts"`    // failed since the last success
	CallsToday   int       `json:"calls_today"` // upstream, of the day in Asia/Shanghai
	Forced       int       `json:"forced_today"`
	Conflicts    int       `json:"conflicts"` // times that WeChat refused it long before its end
	LastConflict time.Time `json:"last_conflict,omitzero"`
	Error        string    `json:"error,omitempty"`
	ErrorClass   string    `json:"error_class,omitempty"`
	Errcode      int       `json:"errcode,omitempty"`
	RID          string    `json:"rid,omitempty"`
	Worker       string    `json:"worker,omitempty"` // that published the value
}

// Events, the last token of their subject.
const (
	EventRefreshed = "refreshed"
	EventFailed    = "failed"
	EventRecovered = "recovered"
	EventExpired   = "expired"
	EventConflict  = "conflict"
)

// Event is published on <prefix>.event.<appid>.<kind>.<event>, as a plain core NATS message. It carries no secret.
type Event struct {
	Event      string    `json:"event"`
	AppID      string    `json:"appid"`
	Name       string    `json:"name,omitempty"`
	Kind       Kind      `json:"kind"`
	Time       time.Time `json:"time"`
	Worker     string    `json:"worker"`
	Generation uint64    `json:"generation,omitempty"`
	ExpiresAt  time.Time `json:"expires_at,omitzero"`
	Attempts   int       `json:"attempts,omitempty"`
	Class      string    `json:"class,omitempty"`
	Message    string    `json:"message,omitempty"`
	Advice     string    `json:"advice,omitempty"`
	Errcode    int       `json:"errcode,omitempty"`
	RID        string    `json:"rid,omitempty"`
}

// EventSubject is the subject of an event; "*" stands for any appid, kind or event.
func EventSubject(prefix, appid string, kind Kind, event string) string {
	return prefix + ".event." + Key(appid, kind) + "." + event
}

// RawCode is WeChat's answer as it came.
type RawCode = json.RawMessage
