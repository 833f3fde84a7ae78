package permissions

import (
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// Accounts returns a block of nats-server's configuration with two NATS accounts: one for workers and
// JetStream, and one for consumers, which sees only what the first account exports. name is the credential
// bucket; users are the users of the consumers' account.
func Accounts(prefix, name string, users []string) (string, error) {
	for _, u := range users {
		if err := checkUser(u); err != nil {
			return "", err
		}
	}
	n := names{prefix, name}
	services := []group{
		{"requests with the AppID in the subject: a permission can limit them to accounts", n.forAccounts(allAccounts,
			messages.SubjectCodeResolve, messages.SubjectCredentialRefresh, messages.SubjectJSSDKSign,
			messages.SubjectCardSign)},
		{"read records", []string{bucket.DirectGetAPI(name, bucket.AllKeys)}},
	}
	streams := []group{
		{"receive changes of records, and events", []string{messages.PublishedSubject(prefix, "*", "*"), n.events()}},
	}
	var b strings.Builder
	b.WriteString("# Two NATS accounts. In nats-server.conf, include the files of the users that this block names, " +
		"and paste\n# the block after them: an included file does not see the users of another included file.\n" +
		"accounts: {\n")
	b.WriteString("  # workers, JetStream, the buckets\n  WX: {\n    jetstream: enabled\n")
	b.WriteString("    users: [" + refer([]string{string(Worker)}) + "]\n    exports: [\n")
	write(&b, services, "{ service: %q, accounts: [APPS] }")
	write(&b, streams, "{ stream: %q, accounts: [APPS] }")
	b.WriteString("    ]\n  }\n  # consumers: each user also needs its own permissions (direct, resolver, signer)\n")
	b.WriteString("  APPS: {\n    users: [" + refer(users) + "]\n    imports: [\n")
	write(&b, services, "{ service: { account: WX, subject: %q } }")
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
