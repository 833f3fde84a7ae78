package worker

import (
	"github.com/wxkeeper/wxkeeper/messages"
)

// What can be forged: the parts of the buckets that workers seal.
const (
	entryRecord = "record"
	entryLedger = "ledger"
	entryLease  = "lease"
)

// forgedAdvice is the advice for a forged entry.
const forgedAdvice = "Find out which NATS user writes to the bucket, and remove its permission (docs/security.md)."

// forged reports that an entry of the buckets was not stored by a worker: an event, a metric, a line of the log and
// the status show it. The caller replaces the entry. It does not block.
func (r *refresher) forged(appid string, kind messages.Kind, entry string) {
	a := r.accounts.get(appid)
	if a == nil {
		return // removed meanwhile
	}
	r.memory.noteForged(messages.Key(appid, kind))
	r.metrics.forged.WithLabelValues(entry).Inc()
	r.log.Error("forged entry found", "appid", appid, "kind", kind, "entry", entry, "advice", forgedAdvice)
	r.events.publish(a, kind, messages.EventForged, messages.Event{
		Message: "the " + entry + " in the bucket was not stored by a worker", Advice: forgedAdvice,
	})
}

// foreign notes an entry that is sealed with another AppSecret, and returns whether a worker may have stored it: not
// if WeChat has just accepted this worker's AppSecret in spite of such an entry. Then the entry is forged. It does not
// block.
func (r *refresher) foreign(appid string, kind messages.Kind, entry string) bool {
	if r.memory.isRefuted(messages.Key(appid, kind)) {
		r.forged(appid, kind, entry)
		return false
	}
	r.log.Warn("entry found that was stored with another AppSecret", "appid", appid, "kind", kind, "entry", entry)
	r.accountRefused(appid) // the AppSecret may have been changed: it is read again
	return true
}
