package permissions

import (
	"fmt"
	"slices"
	"strings"
)

// Role is what a NATS user is there for.
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

// Roles are all roles, in the order in which they are shown.
var Roles = []Role{Worker, Reader, Watcher, Direct, Resolver, Signer, Operator}

// Meaning says in half a sentence what a role does.
func (r Role) Meaning() string {
	switch r {
	case Worker:
		return "all that `wxkeeper run` does"
	case Reader:
		return "follows the credentials of all accounts"
	case Watcher:
		return "follows those of one account, by a watch of the bucket"
	case Direct:
		return "follows those of one account without JetStream consumers"
	case Resolver:
		return "may only resolve code tickets of one account"
	case Signer:
		return "may only sign web pages and cards of one account"
	case Operator:
		return "the verbs of wxkeeper, `nats micro`, and events"
	}
	return ""
}

// OfAccount reports whether a user of this role is one of certain accounts.
func (r Role) OfAccount() bool { return slices.Contains([]Role{Watcher, Direct, Resolver, Signer}, r) }

// group is some subjects that serve one purpose.
type group struct {
	why      string
	subjects []string
}

// list is what a user may do.
type list struct {
	publish, subscribe []group
	answers            bool // it may publish one reply to each request that it gets
}

// names are the names of an installation.
type names struct{ prefix, bucket string }

func (n names) subject(rest string) string { return n.prefix + "." + rest }

// endpoint is the subject of a request, and the one that has the account at its end.
func (n names) endpoint(rest string) []string {
	return []string{n.subject(rest), n.subject(rest) + ".*"}
}

// of are the subjects of some requests for the accounts alone.
func (n names) of(appids []string, rest ...string) (subjects []string) {
	for _, id := range appids {
		for _, r := range rest {
			subjects = append(subjects, n.subject(r)+"."+id)
		}
	}
	return subjects
}

// all has every account in place of one.
var all = []string{"*"}

// roleOf is the list of one role, without the user's inbox.
func (n names) roleOf(r Role, appids []string) list {
	switch r {
	case Worker:
		return n.worker()
	case Reader:
		return list{publish: append(n.watch(n.bucket, all, true), n.reports(n.endpoint("credential.refresh")))}
	case Watcher:
		return list{publish: append(n.watch(n.bucket, appids, false), n.reports(n.of(appids, "credential.refresh")))}
	case Direct:
		return n.direct(appids)
	case Resolver:
		return list{publish: []group{{"resolve code tickets", n.of(appids, "code.resolve")}}}
	case Signer:
		return list{publish: []group{{"sign web pages and cards", n.of(appids, "jssdk.sign", "card.sign")}}}
	case Operator:
		return n.operator()
	}
	return list{}
}

// requests are what workers answer.
var requests = []string{"code.resolve", "credential.get", "credential.refresh", "jssdk.sign", "card.sign", "status"}

// discovery is where `nats micro` asks for services. Narrower ones would be none: who may subscribe to $SRV.* may
// subscribe to $SRV.> too.
var discovery = []string{"$SRV.>"}

func (n names) worker() list {
	ledger := n.bucket + "_ledger"
	both := func(before string) []string { return []string{before + "KV_" + n.bucket, before + "KV_" + ledger} }
	var endpoints []string
	for _, r := range requests {
		endpoints = append(endpoints, n.endpoint(r)...)
	}
	publish := []group{
		{"make the buckets where they are missing; nats.go asks for INFO before", append([]string{"$JS.API.INFO"}, both("$JS.API.STREAM.CREATE.")...)},
		{"check their settings; notice that one is lost, made anew or purged", both("$JS.API.STREAM.INFO.")},
		{"read records, ledger and leases at the leader: a replica may be late", both("$JS.API.STREAM.MSG.GET.")},
		{"take a lease where one was given back: nats.go reads what is left of it", []string{"$JS.API.DIRECT.GET.KV_" + n.bucket + ".$KV." + n.bucket + ".lease.*.*"}},
		{"write leases, records, and the ledger", []string{"$KV." + n.bucket + ".lease.*.*", "$KV." + n.bucket + ".*.*", "$KV." + ledger + ".*.*"}},
	}
	publish = append(publish, n.watch(n.bucket, all, false)...)
	publish = append(publish, n.watch(ledger, all, false)...)
	publish = append(publish, group{"tell what happens", []string{n.subject("event.*.*.*")}})
	return list{
		publish: publish,
		subscribe: []group{
			{"answer requests", endpoints},
			{"be found by `nats micro`", discovery},
		},
		answers: true,
	}
}

// watch is what a watch of some accounts in a bucket needs; whole: any watch of it, which asks for the stream itself, too.
func (n names) watch(bucket string, appids []string, whole bool) []group {
	stream := "KV_" + bucket
	var groups []group
	var create []string
	if whole {
		groups = append(groups, group{"notice that the bucket is lost, made anew or purged", []string{"$JS.API.STREAM.INFO." + stream}})
		create = append(create, "$JS.API.CONSUMER.CREATE."+stream+".*") // a watch of several accounts has its filters in the body
	}
	for _, id := range appids {
		create = append(create, "$JS.API.CONSUMER.CREATE."+stream+".*.$KV."+bucket+"."+id+".*")
	}
	return append(groups,
		group{"watch " + bucket, append(create, "$JS.API.CONSUMER.MSG.NEXT."+stream+".*")},
		group{"notice that a message of the watch was lost", []string{"$JS.API.CONSUMER.INFO." + stream + ".*"}},
		group{"clean up; without it the server does so itself half a minute later", []string{"$JS.API.CONSUMER.DELETE." + stream + ".*"}},
	)
}

func (n names) reports(subjects []string) group {
	return group{"report a credential that WeChat refuses", subjects}
}

func (n names) direct(appids []string) list {
	var get, published []string
	for _, id := range appids {
		get = append(get, "$JS.API.DIRECT.GET.KV_"+n.bucket+".$KV."+n.bucket+"."+id+".*")
		published = append(published, n.subject("published."+id+".*"))
	}
	return list{
		publish:   []group{{"read what is in the bucket", get}, n.reports(n.of(appids, "credential.refresh"))},
		subscribe: []group{{"hear each change", published}},
	}
}

func (n names) operator() list {
	var asks []string
	for _, r := range []string{"status", "credential.get", "credential.refresh", "code.resolve"} {
		asks = append(asks, n.endpoint(r)...)
	}
	return list{
		publish: append([]group{
			{"status, get, refresh, resolve", asks},
			{"nats micro", discovery},
		}, n.watch(n.bucket, all, true)...),
		subscribe: []group{{"hear of trouble", []string{n.subject("event.>")}}},
	}
}

// united is a list that allows what any of the two does, each subject once.
func (l list) united(m list) list {
	return list{publish: unite(l.publish, m.publish), subscribe: unite(l.subscribe, m.subscribe), answers: l.answers || m.answers}
}

func unite(a, b []group) []group {
	there := func(subject string) bool {
		return slices.ContainsFunc(a, func(g group) bool { return slices.Contains(g.subjects, subject) })
	}
	both := slices.Clone(a)
	for _, g := range b {
		if rest := slices.DeleteFunc(slices.Clone(g.subjects), there); len(rest) > 0 {
			both = append(both, group{g.why, rest})
		}
	}
	return both
}

// meanings says what some roles do.
func meanings(roles []Role, appids []string) string {
	var parts []string
	for _, r := range roles {
		parts = append(parts, fmt.Sprintf("%s (%s)", r, r.Meaning()))
	}
	text := strings.Join(parts, ", ")
	if len(appids) > 0 {
		text += ", of " + strings.Join(appids, ", ")
	}
	return text
}
