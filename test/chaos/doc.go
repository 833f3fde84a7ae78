//go:build unix

// Command chaos runs a fleet of real processes under the faults of production, and checks what consumers see.
//
// It starts three nats-server processes as a cluster, several `wxkeeper run` workers and several consumers, all
// on the loopback, and serves a simulated WeChat itself. A schedule drawn from a seed kills (-9), freezes
// (SIGSTOP), stops and restarts them, disconnects servers, deletes keys and buckets, makes WeChat fail, hang and
// give wrong answers, and lets another system replace tokens. Tokens and tickets live for 90 s instead of two
// hours; everything else is as in production.
//
// Chaos compares what consumers see with the simulation, all the time. These are the rules; a violation of one of
// them fails the run:
//
//   - No consumer holds a credential that WeChat refuses. Exceptions, whose durations are measured: another system
//     replaced the token a moment ago, or WeChat's answers were lost twice in a row.
//   - No consumer that had a credential is without one. Exceptions: for most of the time in which the fleet renews
//     ahead, JetStream did not answer (which is measured) or WeChat failed.
//   - No generation goes back, unless bucket and ledger were both lost.
//   - Every request is answered, with the right code, before its consumer gives up.
//   - WeChat is called no more often than the lives of credentials and the faults explain.
//   - At the end every credential is fresh again, and no process has grown.
//
// Chaos prints each event when it happens: the timeline. The same --seed and --for give the same schedule. It
// needs the signals of Unix, and is not built on other systems.
package main
