package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/messages"
)

// attack is a NATS server with a worker, a stream of another service, and users that attack them.
type attack struct {
	*guarded
	wechat *workerFixture
	js     jetstream.JetStream // of the admin, in the account of the buckets
	marker *nats.Conn          // a connection of the admin, for requests that are answered after all others
	marks  int                 // requests of the marker that a worker has answered
	hears  *spy                // in the account of the buckets
}

// orders is the stream of another service in the account of the buckets.
const orders = "ORDERS"

// newAttack starts a server, and a worker as the user worker, and waits until the worker has nothing to do.
func newAttack(t *testing.T, conf string) *attack {
	t.Helper()
	g := startGuarded(t, conf)
	root := g.as(admin)
	a := &attack{guarded: g, marker: g.as(admin), hears: g.spy(root)}
	js, err := jetstream.New(root)
	if err != nil {
		t.Fatal(err)
	}
	a.js = js
	a.wechat = g.startWorker(g.as("worker"))
	ask := messages.NewClient(root, names.SubjectPrefix)
	g.eventually("the worker has nothing to do", func() bool {
		s, err := ask.Status(g.context(), messages.StatusRequest{})
		return err == nil && len(s.Credentials) == 4 && !slices.ContainsFunc(s.Credentials,
			func(c messages.CredentialStatus) bool { return c.Reason != messages.ReasonFresh })
	})
	a.addStream(orders)
	a.addWitness("KV_creds", "$KV.creds.*.*")
	a.addWitness("KV_creds_ledger", "$KV.creds_ledger.*.*")
	return a
}

// eventually waits until a condition is true.
func (g *guarded) eventually(what string, condition func() bool) {
	g.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := g.context(); !condition(); {
		select {
		case <-late.Done():
			g.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// addStream creates a stream with three messages, and a consumer that has not acknowledged the first two.
func (a *attack) addStream(name string) {
	a.Helper()
	subject := strings.ToLower(name) + ".new"
	ctx := a.context()
	_, err := a.js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{subject}})
	for range 3 {
		if err == nil {
			_, err = a.js.Publish(ctx, subject, []byte("an order"))
		}
	}
	if err != nil {
		a.Fatal(err)
	}
	a.addWitness(name, subject)
}

func (a *attack) addWitness(stream, subject string) {
	a.Helper()
	c, err := a.js.CreateConsumer(a.context(), stream, jetstream.ConsumerConfig{
		Durable: witness, FilterSubject: subject, AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Hour,
	})
	var batch jetstream.MessageBatch
	if err == nil {
		batch, err = c.FetchNoWait(2)
	}
	if err == nil {
		for range batch.Messages() {
		}
		err = batch.Error()
	}
	if err != nil {
		a.Fatal(err)
	}
}

// rightsOf are the subjects to which the user of a printed list may publish. Wildcards are made concrete.
func rightsOf(text string) (rights []string) {
	publish, _, _ := strings.Cut(text, "    subscribe: {")
	for _, m := range regexp.MustCompile(`(?m)^      "(.*)"$`).FindAllStringSubmatch(publish, -1) {
		rights = append(rights, concrete(m[1])...)
	}
	return rights
}

// concrete returns subjects that are within a pattern: also with a wildcard as a token, which is no wildcard in
// a subject to which a client publishes, but which JetStream reads as one.
func concrete(pattern string) []string {
	for wildcard, values := range map[string][]string{
		"$KV.creds.*.*": {"$KV.creds.wx2.access_token", "$KV.creds.*.>"}, "$SRV.>": {"$SRV.PING", "$SRV.STATS.corp"},
		"$KV.creds.wx1.*": {"$KV.creds.wx1.access_token", "$KV.creds.wx1.nothing", "$KV.creds.wx1.*", "$KV.creds.wx1.>"},
	} {
		if head, ok := strings.CutSuffix(pattern, wildcard); ok {
			var subjects []string
			for _, v := range values {
				subjects = append(subjects, head+v)
			}
			return subjects
		}
	}
	if head, ok := strings.CutSuffix(pattern, ".*"); ok && !strings.HasPrefix(pattern, "$") {
		return []string{head + "." + mine, head + "." + other}
	}
	return []string{strings.ReplaceAll(pattern, "*", "c")}
}

// targets are the subjects to which an attacker would like to direct a reply.
func targets() (subjects []string) {
	for _, stream := range []string{orders, "KV_creds", "KV_creds_ledger"} {
		for _, verb := range strings.Fields(`STREAM.DELETE STREAM.PURGE STREAM.UPDATE STREAM.CREATE STREAM.INFO STREAM.SNAPSHOT
			STREAM.RESTORE STREAM.MSG.DELETE STREAM.MSG.GET STREAM.LEADER.STEPDOWN STREAM.PEER.REMOVE DIRECT.GET
			CONSUMER.CREATE CONSUMER.NAMES CONSUMER.LIST`) {
			subjects = append(subjects, "$JS.API."+verb+"."+stream)
		}
		for _, verb := range strings.Fields(`CREATE DURABLE.CREATE DELETE INFO MSG.NEXT PAUSE UNPIN LEADER.STEPDOWN`) {
			subjects = append(subjects, "$JS.API.CONSUMER."+verb+"."+stream+"."+witness)
		}
		subjects = append(subjects, "$JS.ACK."+stream+"."+witness+".1.1.1.1700000000000000000.1")
	}
	for _, request := range messages.Subjects {
		for _, account := range []string{"", "." + mine, "." + other} {
			subjects = append(subjects, names.SubjectPrefix+"."+request+account)
		}
	}
	return append(subjects, strings.Fields(`
		$JS.API.INFO $JS.API.STREAM.LIST $JS.API.STREAM.NAMES $JS.API.META.LEADER.STEPDOWN $JS.API.SERVER.REMOVE $JS.API.STREAM.CREATE.NEW
		$JS.API.CONSUMER.CREATE.KV_creds.c.$KV.creds.wx2.* $JS.API.DIRECT.GET.KV_creds.$KV.creds.wx2.access_token
		$KV.creds.wx1.access_token $KV.creds.wx2.access_token $KV.creds.wx9.access_token $KV.creds.lease.wx2.access_token
		$KV.creds_ledger.wx2.access_token $KV.creds_ledger.wx1.access_token
		$SRV.PING $SRV.INFO $SRV.STATS $SRV.PING.corp $SYS.REQ.SERVER.PING $SYS.REQ.ACCOUNT.PING.CONNZ $SYS.REQ.USER.INFO
		corp.published.wx1.access_token corp.published.wx2.access_token corp.event.wx2.access_token.refreshed
		_INBOX.victim _INBOX_worker.victim _INBOX_other.victim _R_.victim _GR_.victim.x`)...)
}

// reserved reports whether NATS refuses a message with this reply subject.
func reserved(target string) bool {
	return slices.ContainsFunc([]string{"$JS.", "_R_.", "_GR_."},
		func(prefix string) bool { return strings.HasPrefix(target, prefix) })
}

// dropped reports whether a worker drops a request with this reply subject.
func dropped(reply string) bool {
	return strings.HasPrefix(reply, "$") || strings.HasPrefix(reply, names.SubjectPrefix+".")
}

// record is a record of the other account that no worker wrote.
const record = `{"appid":"wx2","kind":"access_token","value":"forged","obtained_at":"2026-01-02T03:04:05Z",` +
	`"expires_at":"2126-01-02T03:04:05Z","refresh_at":"2126-01-02T03:04:05Z","generation":9000,"source":"token"}`

// bodies are the bodies of the requests on one subject. A request that the user may send for its own account, and
// that would call WeChat for a token, is only sent if nobody will answer it.
func bodies(right string, answered bool) []string {
	all := []string{"", `{}`, record}
	switch {
	case strings.Contains(right, "GET.KV_"):
		return append(all, `{"no_hdr":true}`, `{"seq":1}`, `{"last_by_subj":"$KV.creds.wx2.access_token"}`,
			`{"next_by_subj":"$KV.creds.wx2.access_token"}`, `{"seq":1,"next_by_subj":">","batch":9}`,
			`{"multi_last":["$KV.creds.>"],"batch":9}`)
	case strings.HasPrefix(right, "$"):
		return append(all, `{"batch":1,"no_wait":true}`)
	case strings.Contains(right, "."+messages.SubjectCredentialRefresh):
		stale := []string{`{"appid":"wx1","revision":1}`, `{"appid":"wx2","revision":1}`, `{`}
		if answered {
			return stale
		}
		return append(all, stale...)
	}
	all = append(all, `{"appid":"wx2"}`, `{"appid":"wx1","openid":"o","code_ticket":"t"}`, `{"url":"https://a.example/"}`)
	if !strings.HasSuffix(right, other) {
		all = append(all, `{"appid":"wx2","openid":"o","code_ticket":"t"}`)
	}
	return all
}

// aim sends requests with each right and each target as the reply subject, and waits until the server and the
// worker have done everything that follows. isolated: the user is in the account APPS, where the worker answers
// every request, because it sees another reply subject.
func (a *attack) aim(nc *nats.Conn, rights, targets []string, isolated bool) {
	a.Helper()
	answers := a.answers()
	for _, right := range rights {
		unheard := isolated && !a.imported(right) // APPS does not import the subject
		ours := strings.HasPrefix(right, names.SubjectPrefix+".")
		for _, target := range targets {
			answered := !reserved(target) && (isolated || !dropped(target))
			list := bodies(right, answered)
			switch {
			case unheard:
				list = list[:1]
			case isolated && !a.imported(target): // the reply ends in APPS, whatever it says
				list = list[:min(4, len(list))]
			}
			for _, body := range list {
				if ours && answered {
					answers++
				}
				reply := target
				if strings.HasPrefix(target, "_INBOX") {
					// NATS allows a worker one answer to each reply subject at a time (allow_responses).
					reply += "." + strconv.Itoa(answers)
				}
				if err := nc.PublishRequest(right, reply, []byte(body)); err != nil {
					a.Fatal(err)
				}
			}
			// The server sends a report of the delivery where this header says.
			err := nc.PublishMsg(&nats.Msg{Subject: right, Header: nats.Header{"Nats-Trace-Dest": {target}}})
			if err != nil {
				a.Fatal(err)
			}
		}
	}
	a.settle(nc, answers)
}

// settle waits until the worker has sent a number of answers, and until what follows from them is done.
func (a *attack) settle(nc *nats.Conn, answers int) {
	a.Helper()
	if err := nc.FlushWithContext(a.context()); err != nil {
		a.Fatal(err)
	}
	a.mark()
	a.eventually("the worker has answered", func() bool { return a.answers() >= answers })
	a.mark()
	a.mark()
}

// mark sends requests that are answered after all requests before them: to the stream of the records, and to
// each endpoint of the worker.
func (a *attack) mark() {
	a.Helper()
	subjects := []string{"$JS.API.DIRECT.GET.KV_creds.$KV.creds.wx1.nothing", "$SRV.PING"}
	for _, request := range messages.Subjects {
		subjects = append(subjects, names.SubjectPrefix+"."+request, names.SubjectPrefix+"."+request+".wx9")
	}
	for _, s := range subjects {
		if _, err := a.marker.RequestWithContext(a.context(), s, []byte(`{"appid":"wx9"}`)); err != nil {
			a.Fatalf("%s: %v", s, err)
		}
	}
	a.marks += len(subjects) - 2
}

// answers is the number of requests that the worker has answered, without those of mark.
func (a *attack) answers() (n int) {
	a.Helper()
	m, err := a.marker.RequestWithContext(a.context(), "$SRV.STATS."+names.SubjectPrefix, nil)
	if err != nil {
		a.Fatal(err)
	}
	var stats struct {
		Endpoints []struct{ Data struct{ OK, Errors int } }
	}
	if err := json.Unmarshal(m.Data, &stats); err != nil {
		a.Fatal(err)
	}
	for _, e := range stats.Endpoints {
		n += e.Data.OK + e.Data.Errors
	}
	return n - a.marks
}

// spy receives every message of a NATS account.
type spy struct {
	g   *guarded
	nc  *nats.Conn
	sub *nats.Subscription
}

// spy subscribes to everything that a connection may receive.
func (g *guarded) spy(nc *nats.Conn) *spy {
	g.Helper()
	sub, err := nc.SubscribeSync(">")
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	if err == nil {
		err = nc.FlushWithContext(g.context())
	}
	if err != nil {
		g.Fatal(err)
	}
	return &spy{g, nc, sub}
}

// ofOthers reports whether a message does not come from the attack: it is a request of the admin, which reads the
// state, a request of the worker, or a delivery of the worker's watch.
func ofOthers(m *nats.Msg) bool {
	return !strings.Contains(m.Reply, "victim") && slices.ContainsFunc([]string{"_INBOX.", "_INBOX_worker.", "$JS.ACK.KV_"},
		func(prefix string) bool { return strings.HasPrefix(m.Reply, prefix) })
}

// on returns the messages that have arrived on some subjects since the last call, without those
// of the admin and of the worker.
func (s *spy) on(subjects []string) (list []*nats.Msg) {
	s.g.Helper()
	if err := s.nc.FlushWithContext(s.g.context()); err != nil { // the server has sent all messages before its answer
		s.g.Fatal(err)
	}
	for {
		m, err := s.sub.NextMsg(0)
		if err != nil {
			return list
		}
		subject, _, _ := strings.Cut(m.Subject, "victim.")
		if (slices.Contains(subjects, m.Subject) || slices.Contains(subjects, subject+"victim")) && !ofOthers(m) {
			list = append(list, m)
		}
	}
}
