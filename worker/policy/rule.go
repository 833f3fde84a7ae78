package policy

import (
	"time"
)

// Rule is how one kind of credential is renewed (docs/architecture.md#refresh-8).
type Rule uint8

const (
	// Classic is GET /cgi-bin/token. Each call mints a new token, and the old one stays valid for 5 minutes. WeChat
	// is asked when Policy.RefreshBefore is left of the token's life.
	Classic Rule = iota
	// Stable is POST /cgi-bin/stable_token. It repeats the token until its last 5 minutes, then issues a new
	// one, and both are valid. WeChat is asked in those 5 minutes.
	Stable
	// Ticket is GET /cgi-bin/ticket/getticket. It repeats the ticket with a constant expires_in, so WeChat is
	// asked regularly, and a value that WeChat still issues is still valid.
	Ticket
)

// Times and limits. docs/wechat-api.md has the source of each number that WeChat's documents do not give.
const (
	stableWindow   = 5 * time.Minute  // the last part of a token's life, in which stable_token issues a new token
	ticketInterval = 15 * time.Minute // between two calls for a ticket
	// lifeTolerance is by how much the ends of one value in two answers may differ: expires_in is in whole seconds
	lifeTolerance = 2 * time.Second

	// MinGap is the least time between two scheduled calls for one credential. The budget
	// scheduledCalls limits them further.
	MinGap = time.Second

	// RetryMin and retryMax limit the backoff after a failure that passes by itself: 1 s, doubled up to a minute.
	RetryMin = time.Second
	retryMax = time.Minute
	// spentMin and spentMax limit the backoff after a classic token was probably minted and cannot be read.
	spentMin = time.Minute
	spentMax = 10 * time.Minute
	// overlapUsed is how much is used of the 5 minutes in which WeChat accepts the token before.
	overlapUsed  = 4 * time.Minute
	unknownMin   = time.Minute // after an unknown errcode
	unknownMax   = 30 * time.Minute
	PermanentMin = 10 * time.Minute // after a failure that an operator must fix
	permanentMax = time.Hour
	// notPermittedWait is the wait after WeChat has refused a kind of ticket that it has never issued to the account:
	// many accounts may never have it.
	notPermittedWait = 24 * time.Hour
	// QuotaWait is the wait after the quota of the day is used up. It is not documented when WeChat's day begins,
	// so ask rarely.
	QuotaWait = time.Hour
	// saneFuture limits the wait that a ledger entry may ask for: 24 h is the longest wait in the table of
	// errcodes. Entries beyond it were written by a worker with a wrong clock.
	saneFuture = 26 * time.Hour
	// clockTolerance is by how much the clocks of two workers may differ before times that the worker ahead has
	// written are ignored.
	clockTolerance = time.Minute

	// othersPublish is how long a worker that holds no value waits for another worker to publish the value that
	// the ledger entry knows: workers check the bucket every 5 s.
	othersPublish = 8 * time.Second
	// othersFinish is how long the worker that has obtained a value is left to publish it.
	othersFinish = 2 * time.Second

	// probeValid is for how long the verdict dead, or inconclusive, answers further reports: WeChat sometimes refuses
	// a new token and accepts it a moment later.
	probeValid = 10 * time.Second
)

// dailyQuota is the quota of a day that WeChat gives a new account for the interface of a rule
// (docs/wechat-api.md#quotas). A test account has less.
func (r Rule) dailyQuota() int {
	switch r {
	case Classic:
		return 2000
	case Stable:
		return 500_000
	default:
		return 10_000
	}
}

// shanghai is the time zone in which WeChat's days begin. China has had no other offset since 1991.
var shanghai = time.FixedZone("Asia/Shanghai", 8*60*60)

func day(now time.Time) string { return now.In(shanghai).Format(time.DateOnly) }
