package check

import (
	"context"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// perCredential is room for one credential in each bucket, in bytes: record and lease, or ledger entry. Most values are
// much shorter than messages.MaxValueSize.
const perCredential = 4 << 10

// need is the estimated size of each bucket with the configured accounts.
func (r *run) need() int64 {
	credentials := 1
	for _, a := range r.Accounts {
		credentials += 1 + len(a.Tickets)
	}
	return int64(credentials) * perCredential
}

// quota is what the NATS account may have for buckets with some replicas.
type quota struct {
	max, used, maxStream int64 // bytes; negative: no limit
	streams, maxStreams  int
	maxBytesRequired     bool
	copies               int64 // how often the account counts each byte of a bucket
}

// quotaFor returns the limits for buckets with some replicas; ok is false if the account has none for this number.
func (r *run) quotaFor(info *jetstream.AccountInfo, replicas int) (q quota, ok bool) {
	tier, copies := info.Tier, int64(replicas)
	if len(info.Tiers) > 0 {
		tier, ok = info.Tiers[fmt.Sprintf("R%d", replicas)]
		if copies = 1; !ok { // the limits of a tier are for the bytes of one replica
			return q, false
		}
	}
	q = quota{
		max: tier.Limits.MaxStore, used: int64(max(tier.Store, tier.ReservedStore)),
		maxStream: tier.Limits.StoreMaxStreamBytes, streams: tier.Streams, maxStreams: tier.Limits.MaxStreams,
		maxBytesRequired: tier.Limits.MaxBytesRequired,
		copies:           copies,
	}
	if r.Memory {
		q.max, q.maxStream = tier.Limits.MaxMemory, tier.Limits.MemoryMaxStreamBytes
		q.used = int64(max(tier.Memory, tier.ReservedMemory))
	}
	return q, true
}

// checkLimits compares what the NATS account may have with what the buckets need, and reports whether that is enough.
// Whether the servers themselves have room is not visible to an account.
func (r *run) checkLimits(ctx context.Context, states []store.BucketState) (enough bool) {
	if !r.mayPublish(bucket.InfoAPI) {
		return true // the permission is a finding already
	}
	before := len(r.findings)
	if info, err := r.store.Account(ctx); err != nil {
		r.add(Fail, Buckets, err.Error(), r.adviceFor(err))
	} else {
		r.compareLimits(info, states)
	}
	return !slices.ContainsFunc(r.findings[before:], func(f Finding) bool { return f.Level == Fail })
}

func (r *run) compareLimits(info *jetstream.AccountInfo, states []store.BucketState) {
	fail := func(code jetstream.ErrorCode, what string) {
		r.add(Fail, Buckets, what, r.adviceFor(&jetstream.APIError{ErrorCode: code}))
	}
	if info.API.Level < 1 {
		r.add(Fail, Buckets, "JetStream is of a nats-server that cannot expire leases and records",
			r.adviceFor(jetstream.ErrLimitMarkerTTLNotSupported))
		return
	}
	wants := states[0].Wants
	q, ok := r.quotaFor(info, wants)
	if !ok && r.Replicas == 0 {
		wants = 1 // as the worker does
		q, ok = r.quotaFor(info, wants)
	}
	if !ok {
		fail(10120, "the NATS account has no limits for buckets with "+count(wants, "replica"))
		return
	}
	storage, exhausted := "file", jetstream.ErrorCode(10047)
	if r.Memory {
		storage, exhausted = "memory", 10028
	}
	missing, adds := 0, int64(0)
	for _, b := range states {
		largest := b.MaxBytes
		if !b.Exists {
			missing++
			largest = r.MaxBytes
			adds += max(largest, r.need()) * q.copies
		} else if b.MaxBytes == 0 { // a largest size is reserved already
			adds += max(0, r.need()-int64(b.Bytes)) * q.copies
		}
		if largest > 0 && largest < r.need() {
			r.add(Warn, Buckets, fmt.Sprintf("bucket %s may have %d bytes, and the accounts need about %d: a full bucket "+
				"refuses every refresh", b.Name, largest, r.need()), r.enlarge(b))
		}
	}
	what := "the NATS account "
	if missing > 0 {
		what = "the missing buckets cannot be created: " + what
	}
	switch {
	case missing > 0 && q.maxBytesRequired && r.MaxBytes == 0:
		fail(10113, what+"demands a largest size of each stream")
	case missing > 0 && q.maxStream > 0 && r.MaxBytes > q.maxStream:
		fail(10122, what+fmt.Sprintf("allows streams of %d bytes, and WXKEEPER_BUCKET_MAX_BYTES is %d", q.maxStream,
			r.MaxBytes))
	case missing > 0 && q.maxStreams > 0 && q.streams+missing > q.maxStreams:
		fail(10027, what+fmt.Sprintf("has %d of %s", q.streams, count(q.maxStreams, "stream")))
	case q.max == 0 && missing > 0:
		fail(exhausted, what+"has no "+storage+" storage")
	case q.max >= 0 && q.used+adds > q.max:
		fail(exhausted, what+fmt.Sprintf("has %d of %d bytes of %s storage in use, and the buckets need about %d more",
			q.used, q.max, storage, adds))
	}
}

// enlarge is the advice for a bucket that is too small.
func (r *run) enlarge(b store.BucketState) string {
	if !b.Exists {
		return "set a higher WXKEEPER_BUCKET_MAX_BYTES"
	}
	return fmt.Sprintf("nats stream edit %s --max-bytes %d", bucket.Stream(b.Name), 2*r.need())
}
