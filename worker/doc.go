// Package worker is the heart of wxkeeper: a worker keeps the credentials of WeChat accounts fresh, publishes them
// into a JetStream KV bucket, and answers requests on NATS subjects. Any number of workers may run on one bucket.
// The words are those of docs/architecture.md#words.
//
// # The parts
//
//	memory ◀── refresher ◀── scheduler ◀── service
//	  ▲            │
//	  │            ▼
//	watches     policy (pure), store, WeChat
//
// memory.go is what this worker knows of each credential: it is fed by the watches of both buckets and by turns, and
// decides nothing. Package policy decides what is due and what an answer means for later. refresher.go and turn.go
// take the turns; report.go takes the turns for reports. scheduler.go waits until a credential is due, with one lane
// for healthy credentials and one for credentials that keep failing. service.go is the NATS micro service: resolver.go
// answers code.resolve, signer.go answers jssdk.sign and card.sign, lookup.go finds the credential that they need,
// status.go answers status. admission.go and rates.go admit the requests, so that one account leaves room for the
// others.
//
// # A turn
//
//	due? ── take the lease ── read record and ──── still due? ── write the ──── ask WeChat ── write the outcome
//	                │         ledger entry from      │          attempt down                 down, publish
//	                │         the leader             │                                       behind the lease
//	         held by another worker:          no: another worker
//	         the watch delivers its outcome   has done it
//
// # The states of a credential
//
//	         first value published               a refresh succeeds
//	missing ───────────────────────▶ fresh ◀─────────────────────────┐
//	                                 │ │                             │
//	             a refresh fails ┌───┘ └───┐ WeChat refuses the value│
//	                             ▼         ▼                         │
//	                          failing   refused  ────────────────────┤
//	                             │         │                         │
//	                             └────┬────┘ its life ends           │
//	                                  ▼                              │
//	                               expired ──────────────────────────┘
//
// The value is handed out in fresh, failing and refused, and never in expired. Nothing is deleted before it is
// replaced.
//
// # What a worker trusts, and for how long
//
//   - Its memory of a credential: to hand it out until its end, whatever happens to NATS.
//   - Its memory of the ledger: to decide when a turn is worth trying. Never to call WeChat: before a call, record and
//     ledger entry are read again from the leader, under the lease.
//   - Its lease: until four fifths of its TTL, counted from before it was requested. The call of WeChat is given up
//     before that.
//   - WeChat's expires_in: counted from before the request was sent.
//
// # What happens on each failure
//
//   - WeChat is busy, slow, or answers nonsense: the old value is handed out; attempts are 1 s to 1 min apart, as the
//     ledger entry says.
//   - WeChat refuses the secret, the IP address or the account: the old value is handed out; attempts are 10 min to 1 h
//     apart, and logged as an error with the advice; a changed secret is tried at once.
//   - The quota of the day is used up: one attempt an hour.
//   - The calls of some accounts hang: credentials that have failed twice in a row use the slow lane. Requests of one
//     account get three quarters of the places at most.
//   - The worker dies or freezes during a turn: the lease ends, and another worker takes the turn. A late publication
//     is refused.
//   - WeChat has answered and the value could not be published: this worker hands it out, and publishes it when it can.
//   - The lease was lost after a fetch of a classic token: two tokens were minted; one more refresh makes the published
//     token the newest.
//   - NATS is not available: nothing is fetched, because it could not be published; everything valid is handed out, and
//     codes are resolved.
//   - A turn is given up, because NATS is away, a bucket cannot be written, or the lease is held again and again: the
//     reason is kept in memory, and is the reason of the state; it is counted, and published when that is possible.
//   - WeChat has never issued a ticket to the account, and does not permit it: one attempt a day.
//   - The record or the bucket is lost: a worker that holds the value publishes it again, without a call of WeChat,
//     unless the ledger knows a newer value: then WeChat is asked. A worker that holds no value waits 8 s for the
//     others: its call would be wasted, and a call of the classic interface would kill the value of the others.
//   - The ledger is lost: a worker that remembers the entry writes it again.
//   - NATS is slow: a turn without enough time left for a call takes its attempt back, because WeChat has not failed.
//   - Another system kills the token: the first refused resolution or report shows it; WeChat is asked whether the
//     token is alive; the token is renewed at once, and the conflict is logged and published.
package worker
