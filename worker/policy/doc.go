// Package policy decides what happens to a credential and when: pure functions over the time, the record and
// the ledger entry. It has no clock, does no I/O and keeps no state, so that its tests run in virtual time and
// every decision can be explained.
//
// [Policy.Next] decides what a credential needs now. [Policy.Begin], [Undo], [Policy.Succeed] and [Policy.Fail]
// are the ledger entry before and after an attempt to refresh. [Answer] answers a report from what is
// remembered. [StateOf] is the state that status shows. The reason of a decision is a constant of package
// messages: status, logs and metrics show the same one.
//
// # What a decision trusts
//
//   - Times in the ledger entry, unless a worker whose clock was ahead wrote them: they are then ignored.
//   - The generations: each new value has a higher one, because the ledger entry is written before the value is
//     published.
//   - That another worker may hold what this worker lacks: a lost record is left to the others for some
//     seconds.
package policy
