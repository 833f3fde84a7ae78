package check

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/internal/natsconn"
	"github.com/wxkeeper/wxkeeper/messages"
)

// probeAppID is the account of the keys that are tried: it does not exist, and nobody watches it.
const probeAppID = "wxkeeper-check"

// flushWait bounds the wait for the server to have read all probes.
const flushWait = 10 * time.Second

const probeKey = probeAppID + ".access_token"

// A use of a subject: publishing to it and subscribing to it are granted apart.
type use struct {
	subscribe bool
	subject   string
}

// A probe is one use that a worker makes of a subject, tried without effect.
type probe struct {
	use
	grant    string // the subject as it stands in a list of permissions
	lacking  string // what does not work without it
	body     string
	optional bool // a worker serves without it
}

// probes are the uses of a worker. An event cannot be tried, because whoever listens would take it for one; nor can a reply,
// which may be granted by allow_responses alone: their permissions are not checked.
func (r *run) probes() []probe {
	id := rand.Text() // of a consumer, and of a service, that does not exist
	creds, leases := "$KV."+r.Bucket+".", "$KV."+r.Bucket+".lease."
	direct := "$JS.API.DIRECT.GET.KV_" + r.Bucket + "."
	list := []probe{
		{use: use{true, r.nc.NewInbox()}, grant: r.inboxes(), lacking: "getting replies"},
		{use: use{false, "$JS.API.INFO"}, lacking: "making the buckets"},
		{use: use{false, creds + probeKey}, grant: creds + "*.*", lacking: "publishing credentials"},
		{use: use{false, leases + probeKey}, grant: leases + "*.*", lacking: "taking leases"},
		{use: use{false, direct + leases + probeKey}, grant: direct + leases + "*.*", lacking: "taking leases"},
		{use: use{false, "$KV." + r.ledger() + "." + probeKey}, grant: "$KV." + r.ledger() + ".*.*", lacking: "writing the ledger"},
		{use: r.ping(), optional: true},
	}
	for _, bucket := range []string{r.Bucket, r.ledger()} {
		stream, keys := "KV_"+bucket, "$KV."+bucket+".*.*"
		streams := func(verb, body, lacking string) {
			list = append(list, probe{use: use{false, "$JS.API.STREAM." + verb + "." + stream}, body: body, lacking: lacking})
		}
		consumers := func(verb, filter, body, lacking string) {
			subject := "$JS.API.CONSUMER." + verb + "." + stream + "."
			list = append(list, probe{use: use{false, subject + id + filter}, grant: subject + "*" + filter, body: body, lacking: lacking, optional: verb == "DELETE"})
		}
		streams("INFO", "", "opening the bucket")
		streams("CREATE", "{}", "making the bucket") // {} is not the stream of the subject: the server refuses it before it looks further
		streams("MSG.GET", `{"last_by_subj":"$KV.`+bucket+"."+probeKey+`"}`, "reading from the leader")
		consumers("CREATE", "."+keys, "{}", "watching the bucket") // refused like that
		consumers("MSG.NEXT", "", "", "watching the bucket")
		consumers("INFO", "", "", "watching the bucket")
		consumers("DELETE", "", "", "removing consumers that are not used any more")
	}
	for _, subject := range messages.Subjects {
		for _, of := range []string{"", ".*"} {
			list = append(list, probe{use: use{true, r.SubjectPrefix + "." + subject + of}, lacking: "answering requests"})
		}
	}
	for _, verb := range []string{"PING", "INFO", "STATS"} {
		all := "$SRV." + verb
		service := all + "." + r.SubjectPrefix
		for _, p := range []probe{{use: use{true, all}}, {use: use{true, service}}, {use: use{true, service + "." + id}, grant: service + ".*"}} {
			p.lacking, p.optional = "being seen by nats micro", true
			list = append(list, p)
		}
	}
	for i := range list {
		if list[i].grant == "" {
			list[i].grant = list[i].subject
		}
	}
	return list
}

func (r *run) ledger() string { return r.Bucket + "_ledger" }

// ping asks all workers for their names. It is no use of a worker itself.
func (r *run) ping() use { return use{false, "$SRV.PING." + r.SubjectPrefix} }

// inboxes is the permission for the inboxes of this connection.
func (r *run) inboxes() string {
	prefix, _, _ := strings.Cut(r.nc.NewInbox(), ".")
	return prefix + ".>"
}

// probe tries all subjects on a connection of its own, and fills in r.tried and r.denied. The server says nothing to a
// request that it does not allow, only a word aside; so nothing is waited for but these words, which come before the
// answer to the flush.
func (r *run) probe(ctx context.Context) error {
	r.tried, r.denied = r.probes(), make(map[use]bool)
	closed := make(chan struct{})
	c := r.NATS
	c.FailFast = true
	nc, err := natsconn.Connect(ctx, c,
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if no, ok := natsconn.ViolationOf(err); ok {
				r.denied[use{no.Subscribe, no.Subject}] = true
			}
		}),
		nats.NoReconnect(),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	if err != nil {
		return err
	}
	err = send(ctx, nc.Conn, r.tried)
	nc.Close()
	<-closed // the handlers run one after another: this is the last of them
	return err
}

func send(ctx context.Context, nc *nats.Conn, list []probe) error {
	inbox := nc.NewInbox() // nobody listens there
	for _, p := range list {
		var err error
		if p.subscribe {
			// It ends before the server reads on. It is not in the queue group, in which it would take a request from a
			// worker; so a user who may listen in the queue group alone is told to lack it.
			var sub *nats.Subscription
			if sub, err = nc.SubscribeSync(p.subject); err == nil {
				err = sub.Unsubscribe()
			}
		} else {
			m := &nats.Msg{Subject: p.subject, Reply: inbox, Data: []byte(p.body)}
			if strings.HasPrefix(p.subject, "$KV.") {
				m.Header = nats.Header{jetstream.ExpectedStreamHeader: {probeAppID}} // there is none of that name: no stream stores it
			}
			err = nc.PublishMsg(m)
		}
		if err != nil {
			return fmt.Errorf("trying %s: %w", p.subject, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, flushWait)
	defer cancel()
	return nc.FlushWithContext(ctx)
}

// may says whether this user may publish to a subject that was tried.
func (r *run) may(subject string) bool { return !r.denied[use{false, subject}] }

// hears says whether this user can get replies.
func (r *run) hears() bool {
	for _, p := range r.tried {
		if p.subscribe && p.grant == r.inboxes() {
			return !r.denied[p.use]
		}
	}
	return false
}

func (r *run) mayInspect() bool {
	return r.hears() && r.may("$JS.API.STREAM.INFO.KV_"+r.Bucket) && r.may("$JS.API.STREAM.INFO.KV_"+r.ledger())
}

// mayRead: the records and the ledger, from the leader.
func (r *run) mayRead() bool {
	return r.hears() && r.may("$JS.API.STREAM.MSG.GET.KV_"+r.Bucket) && r.may("$JS.API.STREAM.MSG.GET.KV_"+r.ledger())
}

const advicePermissions = "wxkeeper permissions worker prints what the NATS user of a worker needs"

func (r *run) permissions() {
	all := true
	for _, p := range r.tried {
		if !r.denied[p.use] || p.use == r.ping() {
			continue
		}
		all = false
		verb, level, advice := "publish to ", Fail, advicePermissions
		if p.subscribe {
			verb = "subscribe to "
		}
		if p.optional {
			level = Warn
		}
		if p.grant == r.inboxes() {
			advice = natsconn.InboxAdvice
		}
		r.say(level, Permissions, "this NATS user may not "+verb+p.grant+", which a worker needs for "+p.lacking, advice)
	}
	if all {
		r.say(OK, Permissions, fmt.Sprintf("this NATS user may use every subject of a worker that can be tried (%d); not tried: %s.event.>, and replies",
			len(r.tried), r.SubjectPrefix), "")
	}
}
