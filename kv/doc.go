// Package kv is the credential bucket of wxkeeper: what stands in it, how workers write it, how services read it.
//
// # Words
//
// A [Credential] is one value that WeChat issues to an account and that dies: an access_token, a jsapi_ticket or a
// wx_card_ticket (its [Kind]). It stands in a JetStream KV bucket under the key <appid>.<kind>. A revision is the
// number that the bucket gives to each write; a generation is the number of a value: it grows by one at each new value
// of a key, for ever. A [Lease] is the right to refresh one credential, for seconds; it stands in the same bucket under
// lease.<appid>.<kind>, so that the server itself can refuse the publication of a worker whose lease has gone.
// The [Ledger] of a credential is what the fleet remembers of refreshing it; it stands in a bucket of its own.
//
// # Who uses what
//
// Services use [Reader]: it follows the bucket and always has the current credentials in memory. It links no server
// code and writes nothing to NATS. It hears of the bucket in one of two ways: by a watch, or, with ReaderConfig.Direct, by direct
// gets and the messages that the bucket republishes, for NATS users that may do almost nothing. Services read through a
// [Handle], which costs about as much as a variable; give an http.Client a [Transport], which puts the token into each call
// and heals the one that WeChat refuses; or loop over [Reader.Changes]. Package kvtest has a bucket for their tests.
//
// Workers use [Store]: it makes and verifies the buckets, reads from the stream's leader (a plain KV get may be stale
// on a replicated bucket), takes leases, and publishes behind their fence.
//
// # What happens on each failure
//
//   - NATS away: Reader goes on handing out what has not expired, also after a restart where it has a CacheFile, and
//     [Reader.Health] says for how long it has heard nothing; Store returns errors; nothing is buffered to be written
//     later (a worker's connection must be made with nats.ReconnectBufSize(-1)).
//   - A worker dies with a lease: the server ends the lease after its TTL.
//   - A worker freezes with a lease: its late publication is refused with [ErrLeaseLost], because the publication says
//     "only while the last message on my lease's subject is mine".
//   - A publication's answer is lost: Store reads the record back from the leader, and publishes again if it is not there.
//   - Every worker is dead: the record ends itself, by the server's clock, when the credential's life is over.
//   - The bucket is deleted, or made anew: the feed notices and starts over, a watch within seconds, direct gets within half
//     a minute or with the next publication; Reader keeps what it holds.
//   - WeChat refuses a token before its end: [Transport] reports it, once for all that meet it, and goes on with the next.
//     Where the workers cannot help, the caller gets WeChat's answer, and the outcome of the report stands for ten seconds,
//     or as long as the workers say.
package kv
