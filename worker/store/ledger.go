package store

import (
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/wechat"
)

// Ledger is the ledger entry of one credential: what the fleet remembers of refreshing it. It is written by the
// worker that holds the credential's lease, and outlives workers, records and restarts. It contains no secret.
type Ledger struct {
	AppID string        `json:"appid"`
	Kind  messages.Kind `json:"kind"`

	// Generation is the highest generation that was given to a value of this key. ValueSHA256 (hexadecimal),
	// FirstSeen and ExpiresAt describe that value. They are written before the value is published, so that no
	// generation is given twice.
	Generation  uint64    `json:"generation,omitempty"`
	ValueSHA256 string    `json:"value_sha256,omitempty"`
	FirstSeen   time.Time `json:"first_seen,omitzero"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`

	// NextAttempt is when the scheduled refresh asks WeChat next.
	NextAttempt time.Time `json:"next_attempt,omitzero"`
	LastAttempt time.Time `json:"last_attempt,omitzero"`
	LastSuccess time.Time `json:"last_success,omitzero"`
	// Attempts counts the failed attempts since the last success. An attempt counts as failed until it has
	// succeeded: if its worker dies during the call, it stays counted.
	Attempts int `json:"attempts,omitempty"`

	// Day (2006-01-02, Asia/Shanghai) is the day of Calls (calls of WeChat for this credential), Forced
	// (refreshes that reports caused) and HardForced.
	Day    string `json:"day,omitempty"`
	Calls  int    `json:"calls,omitempty"`
	Forced int    `json:"forced,omitempty"`
	// Pace is the level of the leaky bucket of scheduled calls, as a time: with each call it advances by a
	// fixed step, and a call may be made while it is not too far in the future.
	Pace time.Time `json:"pace,omitzero"`

	// LastForced is when a report last caused a refresh. ForcedPace is the budget of such refreshes, as a time: it
	// advances by a fixed step with each of them, and one more is allowed while it is not too far in the future.
	LastForced time.Time `json:"last_forced,omitzero"`
	ForcedPace time.Time `json:"forced_pace,omitzero"`
	// ThrottledAt is when operators were last told that a dead value has to wait for the budget.
	ThrottledAt time.Time `json:"throttled_at,omitzero"`
	// Probe is WeChat's last verdict about a reported token, ProbePace the budget of such questions.
	Probe     *Probe    `json:"probe,omitempty"`
	ProbePace time.Time `json:"probe_pace,omitzero"`
	// HardForced counts the calls with force_refresh, of which WeChat allows 20 a day. LastHardForced is when the
	// last one was made, HardPace their budget.
	HardForced     int       `json:"hard_forced,omitempty"`
	LastHardForced time.Time `json:"last_hard_forced,omitzero"`
	HardPace       time.Time `json:"hard_pace,omitzero"`

	// Failure is the last failed attempt, nil after a success.
	Failure *Failure `json:"failure,omitempty"`

	// NotPermitted: WeChat has said that the account may not have this kind of ticket. It has no meaning once a ticket
	// was issued. Later failures of another kind, which may pass, do not change it.
	NotPermitted bool `json:"not_permitted,omitempty"`

	// Conflicts counts the times that another system replaced the credential.
	Conflicts    int       `json:"conflicts,omitempty"`
	LastConflict time.Time `json:"last_conflict,omitzero"`
	// Expired is the last generation for which the event "expired" was published.
	Expired uint64 `json:"expired,omitempty"`

	// Refused are fingerprints of the account's settings that WeChat has refused since the last success, the
	// latest last, so that the refusal of a wrong secret does not delay the use of the right one.
	Refused []string `json:"refused,omitempty"`

	// Revision is the bucket's revision of the entry; 0: it is not stored yet. It is not part of the stored
	// JSON.
	Revision uint64 `json:"-"`
}

// Verdict is WeChat's answer to a probe.
type Verdict string

// The verdicts.
const (
	Alive        Verdict = "alive"
	Dead         Verdict = "dead"
	Inconclusive Verdict = "inconclusive" // WeChat did not answer, or neither accepted nor refused the token
)

// Probe is WeChat's answer to the question whether a reported token is alive.
type Probe struct {
	// At is the time before WeChat was asked.
	At         time.Time `json:"at"`
	Generation uint64    `json:"generation"` // of the token
	Verdict    Verdict   `json:"verdict"`
}

// IsEmpty reports whether the entry remembers nothing.
func (l *Ledger) IsEmpty() bool {
	return l.Generation == 0 && l.Attempts == 0 && l.LastAttempt.IsZero()
}

// Failure is why an attempt failed. It contains no secret.
type Failure struct {
	At      time.Time    `json:"at"`
	Class   wechat.Class `json:"class"`
	Message string       `json:"message"`
	Errcode int          `json:"errcode,omitempty"`
	RID     string       `json:"rid,omitempty"`
	Advice  string       `json:"advice,omitempty"`
}
