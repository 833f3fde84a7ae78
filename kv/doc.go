// Package kv is what a service imports to have the current credentials of WeChat accounts: it follows the credential bucket
// that wxkeeper's workers keep, so that the service never asks WeChat for a token. It links no server code.
//
// A [Reader] holds the current credentials of one or many accounts in memory. Read them through a [Handle], which costs about
// as much as reading a variable; give an http.Client a [Transport], which adds the access_token to each call of WeChat and
// replaces a token that WeChat refuses; or range over [Reader.Changes]. [Reader.Health] is for health pages and metrics.
// Package kvtest has a bucket for tests without NATS. The types of the records are in package messages.
//
// A Reader receives changes of the bucket in one of two ways: by a watch, or, with ReaderConfig.Direct, by direct gets and the
// messages that the bucket republishes, for NATS users with few permissions. With a watch it creates and removes its own
// JetStream consumers. It never writes to the bucket; a Transport reports refused tokens to the workers.
//
// # What happens on each failure
//
//   - NATS is not available: the Reader continues to hand out what has not expired, also after a restart if it has a CacheFile.
//     [Reader.Health] says for how long no changes were received.
//   - Every worker is dead: the same. When the life of a credential ends, its record is removed by the server.
//   - The bucket is deleted or recreated: the Reader keeps what it holds, and notices it with a watch within half a minute,
//     with direct gets within half a minute or at the next publication.
//   - WeChat refuses a token before its end: [Transport] reports it, once for all requests that meet it, and continues with
//     the next token. If the workers cannot help, the caller gets WeChat's answer, and the report is not repeated for ten
//     seconds, or for as long as the workers say.
package kv
