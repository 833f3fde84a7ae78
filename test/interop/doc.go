// Package interop tests a service that uses wxkeeper, once in each language: node in JavaScript, go in Go. Both are the same
// program. Here is its test (`make interop`): what the programs do with a real NATS server, a real worker and a
// simulated WeChat when these fail.
package interop
