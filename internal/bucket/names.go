package bucket

import (
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wxkeeper/wxkeeper/messages"
)

// LedgerOf is the name of the ledger's bucket that belongs to a credential bucket.
func LedgerOf(bucket string) string { return bucket + "_ledger" }

// Stream is the name of the JetStream stream of a bucket (NATS ADR-8).
func Stream(bucket string) string { return "KV_" + bucket }

// Subject is the subject on which a key of a bucket is written. key may have wildcards (NATS ADR-8).
func Subject(bucket, key string) string { return keyPrefix(bucket) + key }

// IsSubject reports whether a subject is the subject of a key of any bucket.
func IsSubject(subject string) bool { return strings.HasPrefix(subject, "$KV.") }

func keyPrefix(bucket string) string { return "$KV." + bucket + "." }

// AllKeys matches the keys of all credentials and of all ledger entries, but not those of leases, which have
// three tokens.
const AllKeys = "*.*"

// AccountKeys matches the keys of all credentials of one account.
func AccountKeys(appid string) string { return appid + ".*" }

// LeaseKey is the key of the lease of a credential. It has three tokens, so that a watch of [AllKeys] excludes
// leases.
func LeaseKey(appid string, kind messages.Kind) string { return "lease." + messages.Key(appid, kind) }

// AllLeases matches the keys of all leases.
const AllLeases = "lease." + AllKeys

// Republish is the source and the destination of the stream's republication: the server sends each change of a
// record, but not of a lease, also as a core NATS message (messages.PublishedSubject).
func Republish(bucket, prefix string) (source, destination string) {
	return Subject(bucket, AllKeys), messages.PublishedSubject(prefix, "{{wildcard(1)}}", "{{wildcard(2)}}")
}

// publishedPrefix is the part of messages.PublishedSubject before the key.
func publishedPrefix(prefix string) string {
	return strings.TrimSuffix(messages.PublishedSubject(prefix, "", ""), messages.Key("", ""))
}

// API is the beginning of all subjects of JetStream's API, without a domain: see [InDomain].
const API = "$JS.API."

// JetStream returns a client of the JetStream of a domain; "" is the JetStream that the connected server, or the
// account, has without a domain.
func JetStream(nc *nats.Conn, domain string, opts ...jetstream.JetStreamOpt) (jetstream.JetStream, error) {
	if domain == "" {
		return jetstream.New(nc, opts...)
	}
	return jetstream.NewWithDomain(nc, domain, opts...)
}

// domainAPI is API for a domain.
func domainAPI(domain string) string { return "$JS." + domain + ".API." }

// InDomain returns the subject by which a client reaches a subject of JetStream's API, or a key of a bucket, in a
// domain. A server of another domain passes it on, and a server of this domain maps it to the subject without the
// domain before it checks permissions. Other subjects, and the domain "", are not changed.
func InDomain(domain, subject string) string {
	switch rest, isAPI := strings.CutPrefix(subject, API); {
	case domain == "":
		return subject
	case isAPI:
		return domainAPI(domain) + rest
	case IsSubject(subject):
		return domainAPI(domain) + subject
	default:
		return subject
	}
}

// WithoutDomain is the reverse of [InDomain].
func WithoutDomain(domain, subject string) string {
	rest, ok := strings.CutPrefix(subject, domainAPI(domain))
	switch {
	case !ok || domain == "":
		return subject
	case IsSubject(rest):
		return rest
	default:
		return API + rest
	}
}

// InfoAPI is the subject of JetStream's API for the limits of the NATS account.
const InfoAPI = API + "INFO"

// StreamNamesAPI is the subject of JetStream's API for the names of the streams that store a subject.
const StreamNamesAPI = API + "STREAM.NAMES"

// StreamAPI is the subject of JetStream's API for the stream of a bucket: verb is INFO, CREATE, MSG.GET and so
// on.
func StreamAPI(verb, bucket string) string { return API + "STREAM." + verb + "." + Stream(bucket) }

// ConsumerAPI is the beginning of the subjects of JetStream's API for the consumers of the stream of a bucket:
// verb is CREATE, MSG.NEXT and so on. The name of the consumer follows, after a dot.
func ConsumerAPI(verb, bucket string) string {
	return API + "CONSUMER." + verb + "." + Stream(bucket)
}

// DirectGetAPI is the subject of JetStream's API for a direct get of the last record of a key, from any replica
// (NATS ADR-31). key may have wildcards, for permissions.
func DirectGetAPI(bucket, key string) string {
	return API + "DIRECT.GET." + Stream(bucket) + "." + Subject(bucket, key)
}
