package permissions

import (
	"fmt"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// Accounts returns a block of nats-server's configuration with two NATS accounts: WX for workers and JetStream,
// and APPS for services and operators, which sees only what WX exports. A reply to a user of APPS never leaves
// APPS, whatever its subject. name is the credential bucket, domain its
// JetStream domain ("": none); users are the users of APPS.
func Accounts(prefix, name, domain string, users []string) (string, error) {
	for _, u := range users {
		if err := checkUser(u); err != nil {
			return "", err
		}
		if password(u) == password(string(Worker)) {
			return "", fmt.Errorf("the user %q has the name of the workers' user, which is in the account WX: "+
				"choose another name", u)
		}
	}
	if err := checkDistinct(users); err != nil {
		return "", err
	}
	n := names{prefix, name, domain}
	services := inDomain(domain, []group{
		{"requests of services: their subjects have the AppID, so that a permission can limit a user to accounts",
			n.forAccounts(allAccounts, messages.SubjectCodeResolve, messages.SubjectCredentialGet,
				messages.SubjectCredentialRefresh, messages.SubjectJSSDKSign, messages.SubjectCardSign)},
		{"further requests of operators", append(n.endpoint(messages.SubjectStatus),
			n.subject(messages.SubjectCredentialRefresh))},
		{"direct gets (list direct)", []string{bucket.DirectGetAPI(name, bucket.AllKeys)}},
	})
	several := []group{{"nats micro (list micro): every worker answers", discovery}}
	streams := []group{
		{"hints that a record has changed, and events", []string{messages.PublishedSubject(prefix, "*", "*"), n.events()}},
	}
	var b strings.Builder
	b.WriteString("# Two NATS accounts. In nats-server.conf, include the files of the users that this block names, " +
		"and paste\n# the block after them: an included file does not see the users of another included file.\n" +
		"accounts: {\n")
	b.WriteString("  # workers, JetStream, the buckets\n  WX: {\n    jetstream: enabled\n")
	b.WriteString("    users: [" + refer([]string{string(Worker)}) + "]\n    exports: [\n")
	write(&b, services, "{ service: %q, accounts: [APPS] }")
	write(&b, several, "{ service: %q, response: stream, accounts: [APPS] }")
	write(&b, streams, "{ stream: %q, accounts: [APPS] }")
	b.WriteString("    ]\n  }\n  # services and operators: each user also needs its own list\n")
	b.WriteString("  APPS: {\n    users: [" + refer(users) + "]\n    imports: [\n")
	write(&b, append(services, several...), "{ service: { account: WX, subject: %q } }")
	write(&b, streams, "{ stream: { account: WX, subject: %q } }")
	b.WriteString("    ]\n  }\n}\n")
	return b.String(), nil
}

// refer returns a list of references to users.
func refer(users []string) string {
	var refs []string
	for _, u := range users {
		refs = append(refs, "$"+variable(u))
	}
	return strings.Join(refs, ", ")
}
