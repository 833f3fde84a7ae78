// Package messages is the wire contract of wxkeeper's workers: subjects, the JSON of requests, replies, errors,
// events and stored credentials, and a thin typed client for Go.
//
// A service in another language needs a NATS client and this page. It sends the JSON of a request type to the
// subject of the request, and checks the reply for the header [HeaderErrorCode]: a reply with it is an [Error].
// [Schemas] has a JSON Schema of each message.
//
// Each request has two subjects:
//
//   - <prefix>.code.resolve, with the AppID in the body. It may be left out if the workers keep only one
//     account.
//   - <prefix>.code.resolve.<appid>, which a NATS permission can grant for one account. The body may leave the
//     AppID out; an AppID in the body that differs from the AppID in the subject is refused.
package messages

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// DefaultPrefix is the first token of every subject if nothing else is configured (WXKEEPER_SUBJECT_PREFIX).
const DefaultPrefix = "wechat"

// The subjects of the requests, without the prefix.
const (
	SubjectCodeResolve       = "code.resolve"       // ResolveCodeRequest
	SubjectCredentialGet     = "credential.get"     // GetCredentialRequest
	SubjectCredentialRefresh = "credential.refresh" // RefreshCredentialRequest
	SubjectJSSDKSign         = "jssdk.sign"         // SignJSSDKRequest
	SubjectCardSign          = "card.sign"          // SignCardRequest
	SubjectStatus            = "status"             // StatusRequest
)

// Subjects lists the subjects of all requests, without the prefix.
var Subjects = [...]string{
	SubjectCodeResolve, SubjectCredentialGet, SubjectCredentialRefresh, SubjectJSSDKSign, SubjectCardSign,
	SubjectStatus,
}

// The largest sizes of a request and of its fields, in bytes. WeChat documents a code_ticket as String256 and
// gives no size for an openid.
const (
	MaxRequest    = 64 << 10
	MaxOpenID     = 128
	MaxCodeTicket = 256
)

// ResolveCodeRequest asks for the marketing code of a code_ticket (POST /intp/marketcode/tickettocode).
//
// The reply is WeChat's own answer, see [Code].
type ResolveCodeRequest struct {
	// AppID is the account. It may be left out if the subject names it, or if the workers keep one account.
	AppID string `json:"appid,omitempty"`
	// OpenID is the openid of the user that scanned the code.
	OpenID string `json:"openid"`
	// CodeTicket is the code_ticket that WeChat gave the mini program for the scan.
	CodeTicket string `json:"code_ticket"`
}

// Code is WeChat's own answer to code.resolve: its field names and types are unchanged, and the reply keeps
// fields that are not listed here. The workers do not promise that a field is present: WeChat decides.
type Code struct {
	// Errcode is 0. A worker turns any other errcode into an error reply.
	Errcode int    `json:"errcode"`
	Errmsg  string `json:"errmsg"`
	// Code is the marketing code. It is a string because leading zeros count.
	Code             string `json:"code"`
	ApplicationID    uint64 `json:"application_id"`
	ISVApplicationID string `json:"isv_application_id"`
	ActivityName     string `json:"activity_name"`
	ProductBrand     string `json:"product_brand"`
	ProductTitle     string `json:"product_title"`
	ProductCode      string `json:"product_code"`
	WxaAppID         string `json:"wxa_appid"`
	WxaPath          string `json:"wxa_path"`
	// CodeStart is the first number of the range of codes, inclusive.
	CodeStart int64 `json:"code_start"`
	// CodeEnd is the last number of the range of codes, inclusive.
	CodeEnd int64 `json:"code_end"`
}

// RawCode is WeChat's answer to code.resolve, byte for byte; [Code] is its Go type.
type RawCode = json.RawMessage

// GetCredentialRequest asks for the current credential.
//
// The reply is [Credential].
type GetCredentialRequest struct {
	// AppID is the account. It may be left out if the subject names it, or if the workers keep one account.
	AppID string `json:"appid,omitempty"`
	// Kind is the kind of the credential. If it is left out, it is access_token.
	Kind Kind `json:"kind,omitempty"`
}

// RefreshCredentialRequest reports that WeChat refused a credential, and names the credential by its revision
// or by the SHA-256 of its value. A report with neither means "refresh the current credential now": an operator
// sends it.
//
// The reply is [Refreshed].
type RefreshCredentialRequest struct {
	// AppID is the account. It may be left out if the subject names it, or if the workers keep one account.
	AppID string `json:"appid,omitempty"`
	// Kind is the kind of the credential. If it is left out, it is access_token.
	Kind Kind `json:"kind,omitempty"`
	// Revision is the bucket's revision of the refused credential's record.
	Revision uint64 `json:"revision,omitempty"`
	// ValueSHA256 is the SHA-256 of the refused value, as 64 hexadecimal digits.
	ValueSHA256 string `json:"value_sha256,omitempty"`
	// SentAt is a time before the refused call was sent to WeChat, by the consumer's clock. WeChat's earlier words about
	// the value do not count against the report. If it is left out, or more than a minute ago, or in the future, it
	// is the time at which the report arrives.
	SentAt time.Time `json:"sent_at,omitzero"`
}

// ValueSHA256 is the hexadecimal SHA-256 of a value: a report names a value by it without showing the value.
func ValueSHA256(value string) string {
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:])
}

// Refreshed is the reply to credential.refresh. It describes the credential that is current after the report.
type Refreshed struct {
	AppID string `json:"appid"`
	Kind  Kind   `json:"kind"`
	// Revision is the bucket's revision of the current record.
	Revision uint64 `json:"revision"`
	// Generation is the number of the current value.
	Generation uint64 `json:"generation"`
	// ExpiresAt is the end of the current value's life.
	ExpiresAt time.Time `json:"expires_at"`
	// Refreshed is true if WeChat issued a new value because of this report, or of an equal report at the same
	// time.
	Refreshed bool `json:"refreshed"`
	// Reason is the outcome of the report: refreshed, not_current, alive or unchanged.
	Reason Reason `json:"reason"`
}

// Reason is the outcome of a report ([Refreshed]), or the reason for a worker's next step ([CredentialStatus]).
type Reason string

// The outcomes of a report, in [Refreshed].
const (
	ReasonRefreshed  Reason = "refreshed"   // WeChat refused the reported value and issued a new one
	ReasonNotCurrent Reason = "not_current" // the reported value is not the current one; use the current one
	ReasonAlive      Reason = "alive"       // WeChat was asked and accepts the reported value
	ReasonUnchanged  Reason = "unchanged"   // WeChat was asked for a new value and gave out the reported one again
)

// The reasons for which a worker waits, in [CredentialStatus].
const (
	ReasonFresh   Reason = "fresh"    // the next refresh is planned
	ReasonBackoff Reason = "backoff"  // the last attempt failed; the next one is planned
	ReasonRefused Reason = "refused"  // WeChat refuses the value, but the budget of reported refreshes is used up
	ReasonPaced   Reason = "paced"    // there were too many calls for this credential in a short time
	ReasonNoToken Reason = "no_token" // a ticket needs a valid access_token, and there is none
	ReasonOthers  Reason = "others"   // the bucket lost the record; another worker may hold it and publish it again
	// WeChat has never issued this kind of ticket to the account, and does not permit it; it is tried once a day
	ReasonNotPermitted Reason = "not_permitted"
)

// What keeps the answering worker from refreshing a credential that is due, in [CredentialStatus]. The worker tries
// again after some seconds.
const (
	ReasonDisconnected  Reason = "disconnected"   // the worker has no connection to NATS
	ReasonUnwritable    Reason = "unwritable"     // a bucket cannot be read or written
	ReasonLeaseHeld     Reason = "lease_held"     // other workers hold the lease again and again, without a result
	ReasonInternalError Reason = "internal_error" // the worker itself has failed: a fault of wxkeeper
)

// The reasons for which a worker refreshes a credential, in [CredentialStatus].
const (
	ReasonDue         Reason = "due"          // the planned time has come
	ReasonRetry       Reason = "retry"        // the wait after a failed attempt is over
	ReasonMissing     Reason = "missing"      // there is no record
	ReasonExpired     Reason = "expired"      // the last value has expired
	ReasonReported    Reason = "reported"     // a consumer reported the value, and WeChat refuses it
	ReasonUnpublished Reason = "unpublished"  // a worker obtained a value, or a longer life, and did not publish it
	ReasonNewSettings Reason = "new_settings" // the settings that WeChat refused have changed
	ReasonRefreshing  Reason = "refreshing"   // a refresh is running now
)

// The reasons for which a worker writes to a bucket without asking WeChat, in [CredentialStatus].
const (
	ReasonLost      Reason = "lost"      // the bucket lost the record: the worker publishes again what it holds
	ReasonForgotten Reason = "forgotten" // the bucket lost the ledger entry: the worker writes it again
)

// StatusRequest asks for the state of the credentials of one account, or of all accounts.
//
// The reply is [Status].
type StatusRequest struct {
	// AppID is the account. Without it, and on the subject without an AppID, the reply has all accounts.
	AppID string `json:"appid,omitempty"`
}

// Status is what one worker knows of the credentials. It contains no secret.
type Status struct {
	// Worker is the name of the worker that answers.
	Worker string `json:"worker"`
	// Version is the version of wxkeeper that the worker runs.
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
	// Accounts is the number of accounts that the worker keeps.
	Accounts int `json:"accounts"`
	// Summary is the number of credentials in each state, also of credentials that are not listed.
	Summary map[State]int `json:"summary"`
	// Credentials are ordered by state: those that need attention come first.
	Credentials []CredentialStatus `json:"credentials"`
	// Truncated is true if there are more credentials than fit into a reply: only the first are listed. Ask for
	// one account to see its credentials.
	Truncated bool `json:"truncated,omitempty"`
}

// State is the state of a credential.
type State string

// The states of a credential.
const (
	StateFresh   State = "fresh"   // valid, and the last refresh succeeded
	StateFailing State = "failing" // valid, but refreshing it fails
	StateRefused State = "refused" // not expired, but WeChat refuses it; a worker refreshes it as soon as limits allow
	StateExpired State = "expired" // the last value has expired, and there is no new one
	StateMissing State = "missing" // there has never been a value
	// WeChat has never issued this kind of ticket to the account, and says that the account may not have it
	StateNotPermitted State = "not_permitted"
)

// CredentialStatus is the state of one credential.
type CredentialStatus struct {
	AppID string `json:"appid"`
	// Name is the name of the account in the configuration.
	Name string `json:"name,omitempty"`
	Kind Kind   `json:"kind"`
	// State is fresh, failing, refused, expired, missing or not_permitted.
	State State `json:"state"`
	// Reason is why the worker waits (fresh, backoff, refused, paced, no_token, others, not_permitted), why it
	// refreshes the credential (due, retry, missing, expired, reported, unpublished, new_settings, refreshing), why
	// it writes to a bucket (lost, forgotten), or what keeps it from refreshing a credential that is due
	// (disconnected, unwritable, lease_held, internal_error).
	Reason Reason `json:"reason"`
	// Advice is what an operator should do.
	Advice string `json:"advice,omitempty"`
	// Source is the interface of WeChat that issued the value: token, stable_token or getticket.
	Source string `json:"source,omitempty"`
	// Generation is the number of the value.
	Generation uint64 `json:"generation,omitempty"`
	// Revision is the bucket's revision of the record.
	Revision uint64 `json:"revision,omitempty"`
	// ObtainedAt is the time before the request for the value was sent to WeChat.
	ObtainedAt time.Time `json:"obtained_at,omitzero"`
	// ExpiresAt is the end of the value's life.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// NextAttempt is when the worker's next step is planned. It is left out if the step has no planned time.
	NextAttempt time.Time `json:"next_attempt,omitzero"`
	// LastAttempt is when a worker last asked WeChat for this credential.
	LastAttempt time.Time `json:"last_attempt,omitzero"`
	// Attempts is the number of attempts since the last success. All have failed, except one that may be
	// running now.
	Attempts int `json:"attempts"`
	// CallsToday is the number of calls to WeChat for this credential since midnight in Asia/Shanghai.
	CallsToday int `json:"calls_today"`
	// Forced is the number of refreshes since midnight in Asia/Shanghai that a report caused.
	Forced int `json:"forced_today"`
	// Conflicts is how often WeChat refused a value long before its end, although no worker had replaced it.
	Conflicts int `json:"conflicts"`
	// LastConflict is the time of the last conflict.
	LastConflict time.Time `json:"last_conflict,omitzero"`
	// LastForged is when the answering worker last found that an entry of this credential in the buckets was not
	// stored by a worker. It is left out if it never did.
	LastForged time.Time `json:"last_forged,omitzero"`
	// HinderedSince is since when the answering worker could not refresh a credential that is due. It is left out
	// unless Reason is disconnected, unwritable, lease_held or internal_error.
	HinderedSince time.Time `json:"hindered_since,omitzero"`
	// Error is what keeps the answering worker from refreshing the credential, or else the error of the last failed
	// attempt. It is left out after a success.
	Error string `json:"error,omitempty"`
	// ErrorClass is the class of the error: it decides when a worker tries again. If something keeps the worker from
	// refreshing the credential, it is the Reason.
	ErrorClass string `json:"error_class,omitempty"`
	// Errcode is WeChat's number of the error. It is left out if WeChat sent none.
	Errcode int `json:"errcode,omitempty"`
	// RID is WeChat's identifier of the failed request, for questions to WeChat's support.
	RID string `json:"rid,omitempty"`
	// Worker is the name of the worker that published the record.
	Worker string `json:"worker,omitempty"`
}

// The names of events. The name is the last token of the event's subject.
const (
	EventRefreshed = "refreshed" // a worker published a new value
	EventFailed    = "failed"    // an attempt to refresh a credential failed, or a worker could make none
	EventRecovered = "recovered" // an attempt succeeded after failed ones
	EventExpired   = "expired"   // the last value has expired, and there is no new one
	EventForged    = "forged"    // an entry of the buckets was not stored by a worker; a worker replaces it
	EventConflict  = "conflict"  // WeChat refuses a value long before its end, and no worker replaced it
	EventThrottled = "throttled" // WeChat refuses a value, and the budget of reported refreshes is used up
)

// Event is published on <prefix>.event.<appid>.<kind>.<event>, as a plain core NATS message. It contains no
// secret.
type Event struct {
	// Event is the name of the event: refreshed, failed, recovered, expired, forged, conflict or throttled.
	Event string `json:"event"`
	AppID string `json:"appid"`
	// Name is the name of the account in the configuration.
	Name string    `json:"name,omitempty"`
	Kind Kind      `json:"kind"`
	Time time.Time `json:"time"`
	// Worker is the name of the worker that published the event.
	Worker string `json:"worker"`
	// Generation is the number of the value.
	Generation uint64 `json:"generation,omitempty"`
	// ExpiresAt is the end of the value's life.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// RetryAt is when a throttled credential is refreshed.
	RetryAt time.Time `json:"retry_at,omitzero"`
	// Attempts is the number of attempts in a row that failed.
	Attempts int `json:"attempts,omitempty"`
	// Class is the class of the error: it decides when a worker tries again. If no attempt could be made, it is
	// disconnected, unwritable, lease_held or internal_error.
	Class string `json:"class,omitempty"`
	// Message is the error, for people.
	Message string `json:"message,omitempty"`
	// Advice is what an operator should do.
	Advice string `json:"advice,omitempty"`
	// Errcode is WeChat's number of the error. It is left out if WeChat sent none.
	Errcode int `json:"errcode,omitempty"`
	// RID is WeChat's identifier of the failed request, for questions to WeChat's support.
	RID string `json:"rid,omitempty"`
}

// EventSubject is the subject of an event. appid, kind and event may be "*".
func EventSubject(prefix, appid string, kind Kind, event string) string {
	return prefix + ".event." + Key(appid, kind) + "." + event
}
