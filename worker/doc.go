// Package worker is the heart of wxkeeper: a worker keeps the credentials of WeChat accounts fresh, publishes them into
// a JetStream KV bucket, and answers requests on NATS subjects. Any number of workers may run on one bucket.
//
// # Words
//
// An account is one AppID with its AppSecret. A credential is one value that WeChat issues to an account and that dies;
// its kind is access_token, jsapi_ticket or wx_card_ticket. Upstream is the WeChat server API. A turn is the work on one
// credential while its lease is held. The ledger is what the fleet remembers of a credential's refreshes. A report is
// the word of a consumer that WeChat refused a credential.
//
// # A turn
//
//	due? ── take the lease ── read record and ledger at the leader ── still due? ── write the attempt down ── ask WeChat
//	                │                                                     │                                       │
//	         held by another:                                     done already:                         write the outcome down,
//	         its outcome comes by the watch                       nothing to do                         publish behind the lease
//
// policy.go decides what is due, plan.go what an answer means for later: pure functions over (now, record, ledger).
// scheduler.go waits for it, with a queue and slots for what is well and others for what fails again and again.
// refresher.go takes the turns, report.go those for reports. resolver.go answers code.resolve, signer.go jssdk.sign and
// card.sign; lookup.go finds token and ticket for them. service.go is the NATS micro service in front of them.
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
// The value is handed out in fresh, failing and refused, and never in expired. Nothing is deleted before it is replaced.
//
// # What a worker trusts, and for how long
//
//   - Its memory (the Reader): for serving. A credential is handed out until its own end, whatever happens to NATS.
//   - Its memory of the ledger: for deciding when a turn is worth trying. Never for calling WeChat: before a call, record
//     and ledger are read again at the leader, under the lease.
//   - Its lease: until four fifths of its TTL, counted from before it was asked for. The upstream call is given up before.
//   - WeChat's expires_in: counted from before the request was sent.
//
// # What happens on each failure
//
//   - WeChat is busy, slow, or answers nonsense: the old value is served; tries are spaced 1 s to 1 min, in the ledger.
//   - WeChat refuses the secret, the IP, the account: the same, spaced 10 min to 1 h, told loudly with the advice; a
//     changed secret is tried at once.
//   - The day's quota is gone: one try an hour.
//   - The calls of some accounts hang: what has failed twice in a row has turns of its own, so nothing else waits for them.
//   - The worker dies or freezes in a turn: the lease ends; another takes the turn. Its late publication is refused.
//   - The answer came and could not be published: this worker serves it, and publishes it when it can.
//   - The lease was lost after a classic fetch: two tokens were minted; one more refresh makes the published one the newest.
//   - NATS is away: nothing is fetched (it could not be published); everything valid is served; resolutions go on.
//   - The record or the bucket is lost: the value in memory is published again, without a call, unless the ledger knows of
//     a newer one: then WeChat is asked. A worker that has none leaves the others 8 s to publish theirs: its own call would
//     be wasted, and a classic one would kill their token.
//   - The ledger is lost: who remembers it writes it again.
//   - NATS is slow: a turn without enough time left for a call takes its attempt back. WeChat has not failed.
//   - Another system kills the token: the first refused resolution or report shows it; WeChat is asked; the token is
//     renewed at once, and the conflict is told.
package worker
