package kv

import (
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
)

// Ledger is what the fleet remembers of refreshing one credential. It is written by the worker that holds the
// credential's lease, and outlives workers, records and restarts. It carries no secret.
type Ledger struct {
	AppID string        `json:"appid"`
	Kind  messages.Kind `json:"kind"`

	// Generation is the highest that was given to a value of this key; ValueSHA256 (hex), FirstSeen and ExpiresAt are
	// those of that value. They are written before the value is published, so that no generation is ever given twice.
	Generation  uint64    `json:"generation,omitempty"`
	ValueSHA256 string    `json:"value_sha256,omitempty"`
	FirstSeen   time.Time `json:"first_seen,omitzero"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`

	// NextAttempt is when the scheduled refresh asks WeChat next.
	NextAttempt time.Time `json:"next_attempt,omitzero"`
	LastAttempt time.Time `json:"last_attempt,omitzero"`
	LastSuccess time.Time `json:"last_success,omitzero"`
	// Attempts counts the failed attempts since the last success. An attempt counts as failed until it has succeeded:
	// a worker that dies in the middle leaves it so.
	Attempts int `json:"attempts,omitempty"`

	// Day (2006-01-02, Asia/Shanghai) is the day that Calls (upstream calls for this credential) and Forced (refreshes
	// that a report caused) count.
	Day    string `json:"day,omitempty"`
	Calls  int    `json:"calls,omitempty"`
	Forced int    `json:"forced,omitempty"`
	// Pace is the leaky bucket of scheduled calls: the time at which all calls so far are paid for.
	Pace time.Time `json:"pace,omitzero"`

	// LastForced is when a report last caused a refresh.
	LastForced time.Time `json:"last_forced,omitzero"`
	// Probe is WeChat's last answer to whether a reported token lives.
	Probe *Probe `json:"probe,omitempty"`
	// HardForced counts the calls of Day with force_refresh, of which WeChat allows 20.
	HardForced int `json:"hard_forced,omitempty"`

	// Failure is the last failed attempt, nil after a success.
	Failure *Failure `json:"failure,omitempty"`

	// Conflicts counts the times that another system made the credential die.
	Conflicts    int       `json:"conflicts,omitempty"`
	LastConflict time.Time `json:"last_conflict,omitzero"`
	// Expired is the last generation that was told as expired.
	Expired uint64 `json:"expired,omitempty"`

	// Refused are fingerprints of the settings of the account that WeChat has refused since the last success, the latest
	// last: a refusal of a wrong secret does not hold back the right one.
	Refused []string `json:"refused,omitempty"`

	// Revision is the bucket's revision; 0: not stored yet. It is not part of the stored JSON.
	Revision uint64 `json:"-"`
}

// Probe is what WeChat said of a token that was reported as dead.
type Probe struct {
	At         time.Time `json:"at"`
	Generation uint64    `json:"generation"` // of the token that was asked about
	Verdict    string    `json:"verdict"`    // alive, dead or inconclusive
}

// IsEmpty says whether nothing is remembered.
func (l *Ledger) IsEmpty() bool {
	return l.Generation == 0 && l.Attempts == 0 && l.LastAttempt.IsZero()
}

// Failure is why an attempt failed, in words without secrets.
type Failure struct {
	At      time.Time `json:"at"`
	Class   string    `json:"class"`
	Message string    `json:"message"`
	Errcode int       `json:"errcode,omitempty"`
	RID     string    `json:"rid,omitempty"`
	Advice  string    `json:"advice,omitempty"`
}
