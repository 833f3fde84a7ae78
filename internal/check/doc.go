// Package check says in words what is wrong with an installation before production does: the environment, NATS, the
// permissions of the NATS user, the buckets, each account at WeChat, the clock, and other systems that refresh the same
// accounts. A check gives [Finding]s. One that fails stops only those that cannot be made without it.
//
// # What it does to a running system
//
// Nothing that anybody notices:
//
//   - Every subject that a worker needs is tried in a way that has no effect: a subscription, outside the queue group, ends
//     at once; a request to JetStream is one that it must refuse, or only reads; a write says that it is for another stream,
//     so that the server refuses it. See permissions.go.
//   - A lease of an account that does not exist, [probeAppID], is taken and given back, and a consumer of it made and
//     removed. No key of a credential is written.
//   - WeChat is asked once for each account, for the stable token in its normal mode: that mints nothing while the current
//     one has more than five minutes left, and does not touch a classic token (wechat-api.md 1.2). What it returns is
//     compared and thrown away: publishing is for workers that hold the lease, and a second publisher would be the very
//     thing that the lease is against. Where the account uses the classic interface, the token of the bucket is asked about.
//   - There are at most [Config.CallsPerSecond] calls of WeChat a second.
package check
