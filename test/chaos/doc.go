// Command chaos lets a fleet of real processes live through what production does to it, and judges what consumers see.
//
// It starts three nats-server processes as a cluster, several `wxkeeper run` workers and several consumers, all on the
// loopback, and serves a simulated WeChat itself. A schedule that is drawn from a seed kills (-9), freezes (SIGSTOP),
// stops and restarts them, cuts servers off, loses keys and buckets, lets WeChat fail, hang and lie, and lets another
// system move tokens. Lives are 90 s instead of two hours; everything else is as in production.
//
// What is judged, all the time, against the simulation's own knowledge:
//
//   - no consumer holds a credential that WeChat refuses, except for a while after a foreign refresh (or where WeChat's
//     answers were lost twice in a row), which is measured;
//   - no consumer that had a credential is without one, except where JetStream did not answer, which is measured, or
//     WeChat failed, for most of the time in which the fleet renews ahead;
//   - no generation goes back, except where bucket and ledger were both lost;
//   - every request is answered, with the right code, within its asker's patience;
//   - WeChat is called no more often than lives and faults explain;
//   - at the end everything is fresh again, and no process has grown.
//
// What happens is printed as it happens: the timeline. With --seed and --for the same schedule comes again.
package main
