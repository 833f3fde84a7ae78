// Package natsconn connects to NATS in the way that wxkeeper needs:
//
//   - It waits for a server that is away, without a time limit.
//   - It returns an error at once for a configuration that cannot work.
//   - It logs what NATS reports only asynchronously: a missing permission, dropped messages.
//   - It buffers nothing while the connection is down: a write that has returned an error must not be sent later.
package natsconn
