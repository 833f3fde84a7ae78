// Package kvtest is for tests of services that use a [kv.Reader]. It has a credential bucket in memory that
// behaves like the real one, without NATS, workers and WeChat: a test can publish values, let them expire or
// remove them, disconnect and reconnect NATS, recreate the bucket, and decide what happens to a reported value.
//
// Each method returns when every Reader of the bucket has seen the change, so a test does not have to wait. In
// a bubble of testing/synctest the bucket uses the time of the bubble.
//
// To test with real workers too, run them against package wechattest.
package kvtest
