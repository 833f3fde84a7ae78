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
	Worker    Role = "worker"
	Requester Role = "requester"
	Resolver  Role = "resolver"
	Signer    Role = "signer"
	Operator  Role = "operator"
	Direct    Role = "direct"
	Watcher   Role = "watcher"
	Reader    Role = "reader"
	Micro     Role = "micro"
)

// Roles lists all roles, in the order in which they are shown.
var Roles = []Role{Worker, Requester, Resolver, Signer, Operator, Direct, Watcher, Reader, Micro}

// ofAccount are the roles whose users are limited to given accounts.
var ofAccount = []Role{Requester, Resolver, Signer, Direct, Watcher}

// trusted is what a role with the right to send a request to JetStream, or to another responder that answers to
// any reply subject, has in one NATS account. NATS checks no permission for a reply subject, so such a user can
// direct a reply to every subject of the account, also to the API of JetStream (docs/security.md). In the account
// APPS ([Accounts]) a reply goes nowhere else.
const (
	trusted       = "; trusted with the whole NATS account"
	trustedButFor = trusted + ", except in APPS"
)

var meanings = map[Role]string{
	Worker:    "does everything that `wxkeeper run` does" + trusted,
	Requester: "asks workers for everything that a service needs of the given accounts",
	Resolver:  "only resolves code tickets of the given accounts",
	Signer:    "only signs web pages and cards of the given accounts",
	Operator:  "sees states and events of all accounts, and reports credentials; reads no credential",
	Direct:    "reads credentials of the given accounts by direct gets" + trustedButFor,
	Watcher:   "follows the credentials of one account by a watch" + trusted,
	Reader:    "follows the credentials of all accounts by a watch" + trusted,
	Micro:     "runs `nats micro`" + trustedButFor,
}

// Meaning describes in half a sentence what a role does, and whether it is trusted with the whole NATS account.
func (r Role) Meaning() string { return meanings[r] }

// OfAccount reports whether a user of this role is limited to given accounts.
func (r Role) OfAccount() bool { return slices.Contains(ofAccount, r) }

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
type names struct{ prefix, bucket, domain string }

// inDomain adds to each subject of JetStream the subject by which it is reached in a domain. A user needs both: a
// server of the domain maps the second to the first before it checks permissions, and other servers do not map it.
func inDomain(domain string, groups []group) (all []group) {
	for _, g := range groups {
		all = append(all, g)
		var more []string
		for _, subject := range g.subjects {
			if s := bucket.InDomain(domain, subject); s != subject {
				more = append(more, s)
			}
		}
		if len(more) > 0 {
			all = append(all, group{"the same, through a server outside of the domain " + domain, more})
		}
	}
	return all
}

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

// AllAccounts is used in place of AppIDs for a user of all accounts.
const AllAccounts = "*"

var allAccounts = []string{AllAccounts}

// role returns the list of one role, without the user's inbox.
func (n names) role(r Role, appids []string) list {
	switch r {
	case Worker:
		return n.worker()
	case Requester:
		return n.requester(appids)
	case Resolver:
		return list{publish: []group{n.resolve(appids)}}
	case Signer:
		return list{publish: []group{n.sign(appids)}}
	case Operator:
		return n.operator()
	case Direct:
		return n.direct(appids)
	case Watcher:
		return list{publish: append(n.watch(n.bucket, appids, false), n.report(appids))}
	case Reader:
		reports := group{purposeReports, n.endpoint(messages.SubjectCredentialRefresh)}
		return list{publish: append(n.watch(n.bucket, allAccounts, true), reports)}
	case Micro:
		return list{publish: []group{{"find services and read their statistics", discovery}}}
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
		{"find streams that store requests or tokens", []string{bucket.StreamNamesAPI}},
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

func (n names) resolve(appids []string) group {
	return group{"resolve code tickets", n.forAccounts(appids, messages.SubjectCodeResolve)}
}

func (n names) sign(appids []string) group {
	return group{"sign web pages and cards", n.forAccounts(appids, messages.SubjectJSSDKSign, messages.SubjectCardSign)}
}

const purposeReports = "report a credential that WeChat refuses"

func (n names) report(appids []string) group {
	return group{purposeReports, n.forAccounts(appids, messages.SubjectCredentialRefresh)}
}

// published are the subjects on which the server republishes the records of some accounts.
func (n names) published(appids []string) group {
	var subjects []string
	for _, id := range appids {
		subjects = append(subjects, messages.PublishedSubject(n.prefix, id, "*"))
	}
	return group{"receive a hint when a record changes", subjects}
}

// requester has no subject of JetStream and no subject of a bucket: workers answer its requests, and they drop
// requests whose reply would go to JetStream, into a bucket or to a service.
func (n names) requester(appids []string) list {
	return list{
		publish: []group{
			{"read credentials", n.forAccounts(appids, messages.SubjectCredentialGet)},
			n.report(appids), n.resolve(appids), n.sign(appids),
		},
		subscribe: []group{n.published(appids)},
	}
}

func (n names) direct(appids []string) list {
	var get []string
	for _, id := range appids {
		get = append(get, bucket.DirectGetAPI(n.bucket, bucket.AccountKeys(id)))
	}
	return list{
		publish:   []group{{"read records", get}, n.report(appids)},
		subscribe: []group{n.published(appids)},
	}
}

func (n names) operator() list {
	return list{
		publish: []group{
			{"see the states of all credentials", n.endpoint(messages.SubjectStatus)},
			{"report a credential, or have one refreshed", n.endpoint(messages.SubjectCredentialRefresh)},
		},
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
