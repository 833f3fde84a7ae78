// Package kv is what a service imports to have the current credentials of WeChat accounts. It follows the
// credential bucket that wxkeeper's workers keep, so that the service never asks WeChat for a token. It links
// no server code.
//
//	reader, err := kv.NewReader(nc, kv.ReaderConfig{AppIDs: []string{appid}})
//	...
//	go reader.Run(ctx)
//	token := reader.Handle(appid, messages.AccessToken)
//	...
//	value, err := token.Value() // for each use, because the value changes
//
// A [Reader] holds the current credentials of one or many accounts in memory. There are three ways to use them.
// A [Handle] always has the current credential, and reading it costs about as much as reading a variable. A
// [Transport] for an http.Client adds the access_token to each call of WeChat's API, and replaces a token that
// WeChat refuses. A loop over [Reader.Changes] receives each new credential. [Reader.Health] is for health
// pages and metrics.
//
// The type of a credential is messages.Credential. Package kvtest has a bucket in memory for tests of services.
//
// # How a Reader receives changes
//
// A Reader of named accounts requests its credentials from the workers: at the start, every half minute, and when
// the server says that a record has changed. Its NATS user needs no right to ask JetStream. The other two feeds, for
// services that are trusted with more, read the bucket itself: see [Feed]. A Reader writes nothing to the bucket. A
// Transport reports refused tokens to the workers.
//
// # What happens on each failure
//
//   - NATS is not available: the Reader continues to return what has not expired, and does so after a restart
//     if it has a CacheFile. [Reader.Health] shows for how long no changes were received.
//   - All workers are dead: the Reader continues in the same way. Nothing new is published while they are. The
//     server removes each record when the credential expires.
//   - The bucket is deleted or recreated: the Reader keeps what it holds, and receives what the workers publish in
//     the new bucket.
//   - A record is forged: the Reader ignores it if it is not a record of its key, or has times or a generation that
//     no worker writes. Otherwise the next refresh replaces it.
//   - WeChat refuses a token before its end: a [Transport] reports it, once for all requests that were refused,
//     and repeats them with the next token. If the workers cannot help, the caller gets WeChat's answer, and
//     the report is not repeated for ten seconds, or for as long as the workers ask.
package kv
