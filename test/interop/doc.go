// Package interop tests the two examples: a service that uses wxkeeper, in JavaScript (examples/node) and in Go
// (examples/go). Both are the same program, so both pass the same tests (`make interop`): with a real NATS
// server, a real worker and a simulated WeChat, which fail one after another.
package interop
