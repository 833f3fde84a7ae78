package check

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/internal/seal"
	"github.com/wxkeeper/wxkeeper/messages"
)

// trialAppID is the account of the keys that are tried. It does not exist, and nobody watches its keys.
const trialAppID = "wxkeeper-check"

// keys are the keys of an account, and of the trial lease, which protects nothing: its key need not be secret.
func (r *run) keys(appid string) []seal.Key {
	if appid == trialAppID {
		return []seal.Key{seal.New(trialAppID, trialAppID)}
	}
	for _, a := range r.Accounts {
		if a.AppID == appid {
			return []seal.Key{seal.New(appid, a.Secret.Reveal())}
		}
	}
	return nil
}

const trialKey = trialAppID + ".access_token"

// trialLease is the key of the lease of trialKey.
var trialLease = bucket.LeaseKey(trialAppID, messages.AccessToken)

// flushWait limits the wait until the server has read all trials.
const flushWait = 10 * time.Second

type use natsconn.Use

// trial is a use that a worker makes of a subject, tried without effect.
type trial struct {
	use
	grant    string // the subject as a list of permissions has it
	purpose  string // what does not work without the permission
	body     string
	optional bool // a worker serves without the permission
}

// makeTrials returns the uses of a worker. An event cannot be tried, because subscribers would take it for a
// real one. A reply cannot be tried, because the permission may come from allow_responses, which allows only
// replies to requests. These permissions are not checked.
func (r *run) makeTrials() []trial {
	id := rand.Text() // of a consumer and of a service that do not exist
	lease := func(key string) string { return bucket.Subject(r.Bucket, key) }
	directGet := func(key string) string { return bucket.DirectGetAPI(r.Bucket, key) }
	list := []trial{
		{use: use{true, r.nc.NewInbox()}, grant: r.inboxes(), purpose: "receiving replies"},
		{use: use{false, bucket.InfoAPI}, purpose: "creating the buckets"},
		{
			use: use{false, bucket.Subject(r.Bucket, trialKey)}, grant: bucket.Subject(r.Bucket, bucket.AllKeys),
			purpose: "publishing credentials",
		},
		{use: use{false, lease(trialLease)}, grant: lease(bucket.AllLeases), purpose: "taking leases"},
		{use: use{false, directGet(trialLease)}, grant: directGet(bucket.AllLeases), purpose: "taking leases"},
		{
			use: use{false, bucket.Subject(r.ledger(), trialKey)}, grant: bucket.Subject(r.ledger(), bucket.AllKeys),
			purpose: "writing the ledger",
		},
		{use: r.ping(), optional: true},
		{use: use{false, bucket.StreamNamesAPI}, purpose: "finding streams that store requests or tokens", optional: true},
	}
	for _, name := range []string{r.Bucket, r.ledger()} {
		streams := func(verb, body, purpose string) {
			list = append(list, trial{use: use{false, bucket.StreamAPI(verb, name)}, body: body, purpose: purpose})
		}
		consumers := func(verb, filter, body, purpose string) {
			subject := bucket.ConsumerAPI(verb, name) + "."
			list = append(list, trial{
				use: use{false, subject + id + filter}, grant: subject + "*" + filter,
				body: body, purpose: purpose, optional: verb == "DELETE",
			})
		}
		streams("INFO", "", "opening the bucket")
		// The server refuses {} before it does anything: it is not the configuration of the stream in the
		// subject.
		streams("CREATE", "{}", "creating the bucket")
		streams("MSG.GET", `{"last_by_subj":"`+bucket.Subject(name, trialKey)+`"}`, "reading from the leader")
		// {} is refused, as above
		consumers("CREATE", "."+bucket.Subject(name, bucket.AllKeys), "{}", "watching the bucket")
		consumers("MSG.NEXT", "", "", "watching the bucket")
		consumers("INFO", "", "", "watching the bucket")
		consumers("DELETE", "", "", "deleting consumers that are no longer used")
	}
	for _, subject := range messages.Subjects {
		for _, account := range []string{"", ".*"} {
			list = append(list, trial{use: use{true, r.SubjectPrefix + "." + subject + account},
				purpose: "answering requests"})
		}
	}
	for _, verb := range []string{"PING", "INFO", "STATS"} {
		all := "$SRV." + verb
		service := all + "." + r.SubjectPrefix
		for _, t := range []trial{
			{use: use{true, all}}, {use: use{true, service}},
			{use: use{true, service + "." + id}, grant: service + ".*"},
		} {
			t.purpose, t.optional = "being found by nats micro", true
			list = append(list, t)
		}
	}
	for i := range list {
		list[i].grant = cmp.Or(list[i].grant, list[i].Subject)
	}
	return list
}

func (r *run) ledger() string { return bucket.LedgerOf(r.Bucket) }

// ping asks all workers for their names. The check uses it; a worker does not.
func (r *run) ping() use { return use{false, "$SRV.PING." + r.SubjectPrefix} }

// inboxes is the permission for the inboxes of this connection.
func (r *run) inboxes() string {
	prefix, _, _ := strings.Cut(r.nc.NewInbox(), ".")
	return prefix + ".>"
}

// try makes all trials on a connection of their own, and sets r.trials and r.denied. The server does not answer
// a request that it does not allow: it only reports a permission violation asynchronously. So try waits for no
// answer. It waits for the server's answer to a flush, which comes after all violations.
func (r *run) try(ctx context.Context) error {
	r.trials, r.denied = r.makeTrials(), make(map[use]bool)
	closed := make(chan struct{})
	c := r.NATS
	c.FailFast = true
	nc, err := natsconn.Connect(ctx, c,
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if denied, ok := natsconn.Denied(err); ok {
				denied.Subject = bucket.WithoutDomain(r.JSDomain, denied.Subject) // a server of the domain names it so
				r.denied[use(denied)] = true
			}
		}),
		nats.NoReconnect(),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	if err != nil {
		return err
	}
	err = send(ctx, nc.Conn, r.JSDomain, r.trials)
	nc.Close()
	<-closed // nats.go runs the handlers one after another, and this one last
	return err
}

func send(ctx context.Context, nc *nats.Conn, domain string, list []trial) error {
	inbox := nc.NewInbox() // without a subscription
	for _, t := range list {
		var err error
		if t.Subscribe {
			// The subscription ends before the server handles another message. It is outside the queue group,
			// because inside it would take requests from a worker. So a user that may only subscribe in the
			// queue group gets a finding, although it could serve.
			var sub *nats.Subscription
			if sub, err = nc.SubscribeSync(t.Subject); err == nil {
				err = sub.Unsubscribe()
			}
		} else {
			m := &nats.Msg{Subject: bucket.InDomain(domain, t.Subject), Reply: inbox, Data: []byte(t.body)}
			if bucket.IsSubject(t.Subject) {
				// No stream has this name, so no stream stores the message.
				m.Header = nats.Header{jetstream.ExpectedStreamHeader: {trialAppID}}
			}
			err = nc.PublishMsg(m)
		}
		if err != nil {
			return fmt.Errorf("try %s: %w", t.Subject, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, flushWait)
	defer cancel()
	return nc.FlushWithContext(ctx)
}

// mayPublish reports whether this user may publish to a subject that was tried.
func (r *run) mayPublish(subject string) bool { return !r.denied[use{false, subject}] }

// getsReplies reports whether this user can receive replies.
func (r *run) getsReplies() bool {
	return slices.ContainsFunc(r.trials, func(t trial) bool {
		return t.Subscribe && t.grant == r.inboxes() && !r.denied[t.use]
	})
}

// mayAsk reports whether this user may send requests with a verb about the streams of both buckets, and can receive
// the replies. INFO inspects a bucket, MSG.GET reads records and ledger entries from the leader.
func (r *run) mayAsk(verb string) bool {
	return r.getsReplies() && r.mayPublish(bucket.StreamAPI(verb, r.Bucket)) &&
		r.mayPublish(bucket.StreamAPI(verb, r.ledger()))
}

const advicePermissions = "wxkeeper permissions worker prints what the NATS user of a worker needs"

func (r *run) checkPermissions() {
	all := true
	for _, t := range r.trials {
		if !r.denied[t.use] || t.use == r.ping() {
			continue
		}
		all = false
		level, advice := Fail, advicePermissions
		if t.optional {
			level = Warn
		}
		if t.grant == r.inboxes() {
			advice = natsconn.InboxAdvice
		}
		grant := use{t.Subscribe, bucket.InDomain(r.JSDomain, t.grant)}
		r.add(level, Permissions, "this NATS user may not "+natsconn.Use(grant).String()+
			", which a worker needs for "+t.purpose, advice)
	}
	if all {
		what := fmt.Sprintf("this NATS user may use every subject of a worker that can be tried (%d); "+
			"not tried: %s.event.>, and replies", len(r.trials), r.SubjectPrefix)
		r.add(OK, Permissions, what, "")
	}
}
