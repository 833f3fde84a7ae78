// Package check finds what is wrong with an installation before production does. It checks the environment,
// NATS, the permissions of the NATS user, the buckets, each account at WeChat, the clock, and whether another
// system refreshes the same accounts. The result is a list of [Finding]s. A check that fails stops only the
// checks that depend on it.
//
// # What it does to a running system
//
// Nobody notices a check:
//
//   - Every subject that a worker needs is tried in a way that has no effect. A subscription is outside the
//     queue group and ends at once; a request to JetStream only reads, or JetStream must refuse it; a write is
//     addressed to another stream, so that the server refuses it. See permissions.go.
//   - A lease of an account that does not exist, [trialAppID], is taken and given back, and a consumer of the
//     account's key is created and deleted. No key of a credential is written.
//   - WeChat is asked once for each account, for the stable token in its normal mode. That issues no new token
//     while the current one has more than five minutes left, and does not affect a classic token
//     (docs/wechat-api.md). The returned token is compared and dropped: only the worker that holds the lease
//     may publish. For an account with the classic interface, WeChat is also asked whether the token of the
//     bucket is alive.
//   - WeChat is called at most 20 times a second.
package check
