// Package natsconn connects to NATS the way this project needs it: for ever patient with a server that is away, at once
// clear about a configuration that cannot work, and loud about what NATS tells only asynchronously (a permission that is
// missing, messages that were dropped).
//
// The connection buffers nothing while it is down: a write that returned an error must not be sent later.
package natsconn
