package check

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/messages"
	"github.com/wxkeeper/wxkeeper/worker/store"
)

// lookAgain is after what time a replica that was behind is looked at again.
const lookAgain = 2 * time.Second

// inspect looks at both buckets, and once more where a replica does not keep up: for a moment, that is so after every write.
func (r *run) inspect(ctx context.Context) ([]store.BucketState, error) {
	credentials, ledgers, err := r.store.Inspect(ctx)
	if err == nil && len(credentials.Behind)+len(ledgers.Behind) > 0 {
		select {
		case <-time.After(lookAgain):
			credentials, ledgers, err = r.store.Inspect(ctx)
		case <-ctx.Done():
		}
	}
	return []store.BucketState{credentials, ledgers}, err
}

// buckets checks the settings and the health of the buckets, and that they take a write.
func (r *run) buckets(ctx context.Context, states []store.BucketState) {
	r.readable = r.mayRead()
	usable := true
	for _, b := range states {
		switch {
		case !b.Exists:
			r.missing(b)
		case b.Wrong != nil:
			r.say(Fail, Buckets, b.Wrong.Error(), "")
		default:
			r.health(b)
		}
		usable = usable && b.Exists && b.Wrong == nil
		r.readable = r.readable && b.Exists
	}
	if usable {
		r.trial(ctx)
	}
}

// missing tells that the first worker makes the bucket: what it may do is known, whether the servers can is a guess.
func (r *run) missing(b store.BucketState) {
	r.say(OK, Buckets, fmt.Sprintf("bucket %s is not there yet: the first worker makes it, with %s", b.Name, count(b.Wants, "replica")), "")
	if servers := len(r.nc.Servers()); servers < b.Wants {
		what := fmt.Sprintf("the cluster tells of %s, and bucket %s is to have %d replicas: making it may fail", count(servers, "server"), b.Name, b.Wants)
		if r.nc.ConnectedClusterName() == "" {
			what = fmt.Sprintf("this NATS server is not in a cluster, and bucket %s is to have %d replicas: making it will fail", b.Name, b.Wants)
		}
		r.say(Warn, Buckets, what, "start as many NATS servers with JetStream, or set WXKEEPER_REPLICAS")
	}
}

func (r *run) health(b store.BucketState) {
	clustered, well := b.Cluster != "", true
	advise := func(level Level, what, advice string) {
		well = false
		r.say(level, Buckets, "bucket "+b.Name+" "+what, advice)
	}
	if clustered && b.Leader == "" {
		advise(Fail, "has no leader: it can be neither read nor written", "start the NATS servers that hold it: nats server report jetstream")
	}
	if b.Replicas < b.Wants || r.Replicas > 0 && b.Replicas != b.Wants {
		what := fmt.Sprintf("has %s, and WXKEEPER_REPLICAS asks for %d", count(b.Replicas, "replica"), b.Wants)
		if r.Replicas == 0 {
			what = fmt.Sprintf("has %s in a cluster: the loss of one server can stop every refresh", count(b.Replicas, "replica"))
		}
		advise(Warn, what, fmt.Sprintf("workers leave a bucket as it is; to change it: nats stream edit KV_%s --replicas %d", b.Name, b.Wants))
	}
	if len(b.Behind) > 0 {
		advise(Warn, "has replicas that do not keep up: "+strings.Join(b.Behind, ", "), "one more loss may stop every refresh: look at those servers, nats server report jetstream")
	}
	if well {
		what := "bucket " + b.Name + " has the settings that workers need, " + count(b.Replicas, "replica")
		if clustered {
			what += ", leader " + b.Leader
		}
		r.say(OK, Buckets, what, "")
	}
}

// trial does what a worker does, with the keys of an account that does not exist. A lease that cannot be given back ends
// by itself.
func (r *run) trial(ctx context.Context) {
	kvs := "$KV." + r.Bucket + ".lease." + probeKey
	for _, subject := range []string{kvs, "$JS.API.DIRECT.GET.KV_" + r.Bucket + "." + kvs} {
		if !r.may(subject) {
			return
		}
	}
	lease, err := r.store.Acquire(ctx, probeAppID, messages.AccessToken, time.Second)
	switch {
	case err == nil:
		lease.Release(ctx)
	case !errors.Is(err, store.ErrLeaseHeld): // by another check
		r.say(Fail, Buckets, "a lease of an account that does not exist, taken as a trial, failed: "+err.Error(), adviceJetStream)
		return
	}
	for _, bucket := range []string{r.Bucket, r.ledger()} {
		if err := r.tryConsumer(ctx, bucket); err != nil {
			r.say(Fail, Buckets, fmt.Sprintf("bucket %s cannot be watched: %v", bucket, err), adviceJetStream)
			return
		}
	}
	r.say(OK, Buckets, "a lease was taken and given back, a consumer made and removed: JetStream takes writes", "")
}

const adviceJetStream = "look at JetStream on the NATS servers, at its limits and its disk: nats server report jetstream"

// tryConsumer makes a consumer as a worker does, of a key that nobody writes.
func (r *run) tryConsumer(ctx context.Context, bucket string) error {
	stream := "KV_" + bucket
	for _, p := range r.tried {
		if strings.HasPrefix(p.subject, "$JS.API.CONSUMER.") && strings.Contains(p.subject, "."+stream+".") && r.denied[p.use] {
			return nil // it was told
		}
	}
	js, err := jetstream.New(r.nc.Conn)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	name := rand.Text()
	_, err = js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
		Name: name, FilterSubject: "$KV." + bucket + "." + probeKey, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: 5 * time.Second,
	})
	if err != nil {
		return err
	}
	return js.DeleteConsumer(ctx, stream, name)
}
