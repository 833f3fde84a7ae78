// Package kvtest is for tests of services that use a [kv.Reader]: a bucket in memory, without NATS, workers and WeChat,
// which behaves as the real one does. Values are published, expire, get lost; NATS is away and comes back; the bucket is
// made anew; a reported value is replaced.
//
// Each method returns when every Reader of the bucket has seen what it did: a test needs no waiting. In a bubble of
// testing/synctest it works with the time of the bubble.
//
// To test with the real workers too, run them against package wechattest.
package kvtest
