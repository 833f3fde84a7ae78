package permissions

import (
	"slices"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// Role is what a NATS user is for.
type Role string

// The roles.
const (
	Worker   Role = "worker"
	Reader   Role = "reader"
	Watcher  Role = "watcher"
	Direct   Role = "direct"
	Resolver Role = "resolver"
	Signer   Role = "signer"
	Operator Role = "operator"
)

// Roles lists all roles, in the order in which they are shown.
var Roles = []Role{Worker, Reader, Watcher, Direct, Resolver, Signer, Operator}

var meanings = map[Role]string{
	Worker:   "does everything that `wxkeeper run` does",
	Reader:   "follows the credentials of all accounts",
	Watcher:  "follows the credentials of one account, by a watch of the bucket",
	Direct:   "follows the credentials of the given accounts, without JetStream consumers",
	Resolver: "only resolves code tickets of the given accounts",
	Signer:   "only signs web pages and cards of the given accounts",
	Operator: "runs the verbs of wxkeeper and `nats micro`, and receives events",
}

// Meaning describes in half a sentence what a role does.
func (r Role) Meaning() string { return meanings[r] }

// OfAccount reports whether a user of this role is limited to given accounts.
func (r Role) OfAccount() bool { return slices.Contains([]Role{Watcher, Direct, Resolver, Signer}, r) }

// group is a group of subjects that serve one purpose.
type group struct {
	purpose  string // a comment in the configuration
	subjects []string
}

// list is what a user may do.
type list struct {
	publish, subscribe []group
	answers            bool // the user may publish one reply to each request that it receives
}

// names are the configured names of an installation.
type names struct{ prefix, bucket string }

func (n names) subject(rest string) string { return n.prefix + "." + rest }

// events is the subject of all events.
func (n names) events() string { return n.subject("event.>") }

// endpoint returns both subjects of a request: with the AppID in the body, and with any AppID in the subject.
func (n names) endpoint(request string) []string {
	return []string{n.subject(request), n.subject(request) + ".*"}
}

// forAccounts returns the subjects of some requests that have one of some AppIDs in them.
func (n names) forAccounts(appids []string, requests ...string) (subjects []string) {
	for _, id := range appids {
		for _, r := range requests {
			subjects = append(subjects, n.subject(r)+"."+id)
		}
	}
	return subjects
}

// allAccounts is used in place of a list of AppIDs.
var allAccounts = []string{"*"}

// role returns the list of one role, without the user's inbox.
func (n names) role(r Role, appids []string) list {
	switch r {
	case Worker:
		return n.worker()
	case Reader:
		reports := group{purposeReports, n.endpoint(messages.SubjectCredentialRefresh)}
		return list{publish: append(n.watch(n.bucket, allAccounts, true), reports)}
	case Watcher:
		reports := group{purposeReports, n.forAccounts(appids, messages.SubjectCredentialRefresh)}
		return list{publish: append(n.watch(n.bucket, appids, false), reports)}
	case Direct:
		return n.direct(appids)
	case Resolver:
		return list{publish: []group{{"resolve code tickets", n.forAccounts(appids, messages.SubjectCodeResolve)}}}
	case Signer:
		requests := n.forAccounts(appids, messages.SubjectJSSDKSign, messages.SubjectCardSign)
		return list{publish: []group{{"sign web pages and cards", requests}}}
	case Operator:
		return n.operator()
	}
	return list{}
}

// discovery is where `nats micro` asks for services. Several narrower subjects are not safer: a user that may
// subscribe to $SRV.* may subscribe to $SRV.> too.
var discovery = []string{"$SRV.>"}

func (n names) worker() list {
	ledger := bucket.LedgerOf(n.bucket)
	both := func(verb string) []string {
		return []string{bucket.StreamAPI(verb, n.bucket), bucket.StreamAPI(verb, ledger)}
	}
	var endpoints []string
	for _, r := range messages.Subjects {
		endpoints = append(endpoints, n.endpoint(r)...)
	}
	publish := []group{
		{"create the buckets if they are missing; nats.go asks for INFO first",
			append([]string{bucket.InfoAPI}, both("CREATE")...)},
		{"check the buckets' settings; detect that a bucket was lost, recreated or purged", both("INFO")},
		{"read records, ledger entries and leases from the leader: a replica may lag behind", both("MSG.GET")},
		{"take a lease that was given back: nats.go reads the marker that is left of it",
			[]string{bucket.DirectGetAPI(n.bucket, bucket.AllLeases)}},
		{"write leases, records and ledger entries",
			[]string{
				bucket.Subject(n.bucket, bucket.AllLeases), bucket.Subject(n.bucket, bucket.AllKeys),
				bucket.Subject(ledger, bucket.AllKeys),
			}},
	}
	events := []group{{"publish events", []string{messages.EventSubject(n.prefix, "*", "*", "*")}}}
	publish = slices.Concat(publish, n.watch(n.bucket, allAccounts, false), n.watch(ledger, allAccounts, false), events)
	return list{
		publish:   publish,
		subscribe: []group{{"answer requests", endpoints}, {"be found by `nats micro`", discovery}},
		answers:   true,
	}
}

// watch returns what a watch of a bucket needs. whole allows any watch of the bucket, and questions about its
// stream.
func (n names) watch(name string, appids []string, whole bool) []group {
	anyConsumer := func(verb string) string { return bucket.ConsumerAPI(verb, name) + ".*" }
	var groups []group
	var create []string
	if whole {
		groups = append(groups, group{
			"detect that the bucket was lost, recreated or purged", []string{bucket.StreamAPI("INFO", name)},
		})
		// A watch of several accounts has its filters in the body of the request, where no permission can see
		// them.
		create = append(create, anyConsumer("CREATE"))
	}
	for _, id := range appids {
		create = append(create, anyConsumer("CREATE")+"."+bucket.Subject(name, bucket.AccountKeys(id)))
	}
	return append(groups,
		group{"watch the bucket " + name, append(create, anyConsumer("MSG.NEXT"))},
		group{"detect that a message of the watch was lost", []string{anyConsumer("INFO")}},
		group{"delete the consumer at the end; otherwise the server deletes it half a minute later",
			[]string{anyConsumer("DELETE")}},
	)
}

const purposeReports = "report a credential that WeChat refuses"

func (n names) direct(appids []string) list {
	var get, published []string
	for _, id := range appids {
		get = append(get, bucket.DirectGetAPI(n.bucket, bucket.AccountKeys(id)))
		published = append(published, messages.PublishedSubject(n.prefix, id, "*"))
	}
	reports := n.forAccounts(appids, messages.SubjectCredentialRefresh)
	return list{
		publish:   []group{{"read records", get}, {purposeReports, reports}},
		subscribe: []group{{"receive changes of records", published}},
	}
}

func (n names) operator() list {
	var requests []string
	for _, r := range []string{
		messages.SubjectStatus, messages.SubjectCredentialGet, messages.SubjectCredentialRefresh,
		messages.SubjectCodeResolve,
	} {
		requests = append(requests, n.endpoint(r)...)
	}
	return list{
		publish: append([]group{
			{"wxkeeper status, get, refresh and resolve", requests},
			{"nats micro", discovery},
		}, n.watch(n.bucket, allAccounts, true)...),
		subscribe: []group{{"receive events", []string{n.events()}}},
	}
}

// union returns a list that allows everything that either list allows, and has each subject once.
func (l list) union(m list) list {
	return list{
		publish:   union(l.publish, m.publish),
		subscribe: union(l.subscribe, m.subscribe),
		answers:   l.answers || m.answers,
	}
}

func union(a, b []group) []group {
	inA := func(subject string) bool {
		return slices.ContainsFunc(a, func(g group) bool { return slices.Contains(g.subjects, subject) })
	}
	both := slices.Clone(a)
	for _, g := range b {
		if rest := slices.DeleteFunc(slices.Clone(g.subjects), inA); len(rest) > 0 {
			both = append(both, group{g.purpose, rest})
		}
	}
	return both
}
