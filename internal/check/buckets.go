package check

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// lagging is how long to wait before a replica that lags behind is inspected again: every write makes replicas
// lag for a moment.
const lagging = 2 * time.Second

// inspect inspects both buckets, and once more if a replica lags behind.
func (r *run) inspect(ctx context.Context) ([]store.BucketState, error) {
	credentials, ledgers, err := r.store.Inspect(ctx)
	if err == nil && len(credentials.Behind)+len(ledgers.Behind) > 0 {
		select {
		case <-time.After(lagging):
			credentials, ledgers, err = r.store.Inspect(ctx)
		case <-ctx.Done():
		}
	}
	return []store.BucketState{credentials, ledgers}, err
}

// checkBuckets checks the settings and the health of the buckets, and that they accept a write.
func (r *run) checkBuckets(ctx context.Context, states []store.BucketState) {
	r.readable = r.mayAsk("MSG.GET")
	usable := true
	var missing []store.BucketState
	r.checkOverlap(ctx)
	for _, b := range states {
		switch {
		case b.Wrong != nil:
			r.checkWrong(b.Wrong)
		case !b.Exists:
			missing = append(missing, b)
		default:
			r.checkHealth(b)
		}
		usable = usable && b.Exists && b.Wrong == nil
		r.readable = r.readable && b.Exists
	}
	if r.checkLimits(ctx, states) {
		for _, b := range missing {
			r.checkMissing(b)
		}
	}
	if usable {
		r.tryBuckets(ctx)
	}
}

// checkWrong makes a finding of settings with which a worker does not start.
func (r *run) checkWrong(err error) {
	if refusal, ok := errors.AsType[*store.Refusal](err); ok {
		r.add(Fail, Buckets, refusal.Err.Error(), refusal.Advice)
		return
	}
	r.add(Fail, Buckets, err.Error(), "")
}

// checkOverlap looks for streams that store requests or tokens.
func (r *run) checkOverlap(ctx context.Context) {
	streams, err := r.store.Overlapping(ctx)
	if err != nil || len(streams) == 0 {
		return // the permission is tried with the others
	}
	r.add(Fail, Buckets, "the stream "+strings.Join(streams, ", ")+" stores requests or tokens: openids and tokens are "+
		"kept on disk, and JetStream answers a request before a worker does", worker.OverlapAdvice)
}

// checkMissing checks whether the first worker could create a bucket. Its permissions, and the limits of the NATS
// account, are checked before. Whether the servers can store the replicas is only guessed from their number.
func (r *run) checkMissing(b store.BucketState) {
	replicas := count(b.Wants, "replica")
	const advice = "start as many NATS servers with JetStream, or set WXKEEPER_REPLICAS"
	servers := len(r.nc.Servers())
	switch missing := "bucket " + b.Name + " does not exist yet"; {
	case r.JSDomain != "" && b.Wants > 1 && r.Replicas == 0: // the connected server may not be one of the domain
		r.add(OK, Buckets, missing+": the first worker creates it, with "+replicas+" if the domain has a cluster", "")
	case servers >= b.Wants || r.JSDomain != "":
		r.add(OK, Buckets, missing+": the first worker creates it, with "+replicas, "")
	case r.nc.ConnectedClusterName() == "":
		r.add(Fail, Buckets, missing+" and cannot be created: it needs "+replicas+
			", and this NATS server is not in a cluster", advice)
	case r.Replicas == 0: // as the worker does
		r.add(Warn, Buckets, missing+": the cluster announces "+count(servers, "server")+", and "+replicas+" need as "+
			"many. If no more come within half a minute, the first worker creates it with 1 replica: the loss of one "+
			"server can stop every refresh", advice)
	default:
		r.add(Warn, Buckets, missing+" and may not be created: it needs "+replicas+", and the cluster announces "+
			count(servers, "server"), advice)
	}
}

func (r *run) checkHealth(b store.BucketState) {
	clustered, healthy := b.Cluster != "", true
	add := func(level Level, what, advice string) {
		healthy = false
		r.add(level, Buckets, "bucket "+b.Name+" "+what, advice)
	}
	if clustered && b.Leader == "" {
		add(Fail, "has no leader: it can be neither read nor written",
			"start the NATS servers that store it: nats server report jetstream")
	}
	if b.Replicas < b.Wants || r.Replicas > 0 && b.Replicas != b.Wants {
		what := fmt.Sprintf("has %s, and WXKEEPER_REPLICAS asks for %d", count(b.Replicas, "replica"), b.Wants)
		if r.Replicas == 0 {
			what = "has " + count(b.Replicas, "replica") +
				" in a cluster: the loss of one server can stop every refresh"
		}
		add(Warn, what, fmt.Sprintf("workers do not change an existing bucket; change it yourself: "+
			"nats stream edit KV_%s --replicas %d", b.Name, b.Wants))
	}
	if len(b.Behind) > 0 {
		add(Warn, "has replicas that lag behind: "+strings.Join(b.Behind, ", "),
			"look at those servers (nats server report jetstream): the loss of one more may stop every refresh")
	}
	if healthy {
		what := "bucket " + b.Name + " has the settings that workers need, " + count(b.Replicas, "replica")
		if clustered {
			what += ", leader " + b.Leader
		}
		r.add(OK, Buckets, what, "")
	}
}

// tryBuckets does what a worker does, with the keys of an account that does not exist. A lease that cannot be
// given back expires.
func (r *run) tryBuckets(ctx context.Context) {
	for _, subject := range []string{bucket.Subject(r.Bucket, trialLease), bucket.DirectGetAPI(r.Bucket, trialLease)} {
		if !r.mayPublish(subject) {
			return
		}
	}
	l, err := r.store.Acquire(ctx, trialAppID, messages.AccessToken, time.Second)
	switch {
	case err == nil:
		l.Release(ctx)
	case !errors.Is(err, store.ErrLeaseHeld): // another check may hold it
		what := "a trial lease, of an account that does not exist, could not be taken: " + err.Error()
		r.add(Fail, Buckets, what, cmp.Or(r.adviceFor(err), adviceJetStream))
		return
	}
	for _, name := range []string{r.Bucket, r.ledger()} {
		if err := r.tryConsumer(ctx, name); err != nil {
			r.add(Fail, Buckets, fmt.Sprintf("bucket %s cannot be watched: %v", name, err),
				cmp.Or(r.adviceFor(err), adviceJetStream))
			return
		}
	}
	r.add(OK, Buckets, "JetStream accepts writes: a trial lease was taken and given back, "+
		"a consumer was created and deleted", "")
}

const adviceJetStream = "look at JetStream on the NATS servers, its limits and its disk: nats server report jetstream"

// tryConsumer creates a consumer as a worker does, of a key that nobody writes.
func (r *run) tryConsumer(ctx context.Context, of string) error {
	for denied := range r.denied {
		if strings.HasPrefix(denied.Subject, bucket.API+"CONSUMER.") &&
			strings.Contains(denied.Subject, "."+bucket.Stream(of)+".") {
			return nil // the missing permission is a finding already
		}
	}
	js, err := bucket.JetStream(r.nc.Conn, r.JSDomain)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	name := rand.Text()
	_, err = js.CreateConsumer(ctx, bucket.Stream(of), jetstream.ConsumerConfig{
		Name: name, FilterSubject: bucket.Subject(of, trialKey), DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: 5 * time.Second,
	})
	if err != nil {
		return err
	}
	return js.DeleteConsumer(ctx, bucket.Stream(of), name)
}
