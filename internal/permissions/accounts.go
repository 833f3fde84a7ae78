package permissions

import (
	"fmt"
	"strings"
)

// Accounts is a block of nats-server's configuration: workers and JetStream in one NATS account, consumers in another,
// which sees of the first what is exported and nothing else. users are those of the consumers' account.
func Accounts(prefix, bucket string, users []string) (string, error) {
	for _, u := range users {
		if err := checkUser(u); err != nil {
			return "", err
		}
	}
	n := names{prefix, bucket}
	services := []group{
		{"requests that name their account: a permission can tell them apart", n.of(all, "code.resolve", "credential.refresh", "jssdk.sign", "card.sign")},
		{"read what is in the bucket", []string{"$JS.API.DIRECT.GET.KV_" + bucket + ".$KV." + bucket + ".*.*"}},
	}
	streams := []group{
		{"hear each change, and of trouble", []string{n.subject("published.*.*"), n.subject("event.>")}},
	}
	var b strings.Builder
	b.WriteString("# Isolation by two NATS accounts. nats-server.conf: include the files of the users that it names, and paste this after them;\n" +
		"# an included file does not see the users of another.\naccounts: {\n")
	b.WriteString("  # workers, JetStream, the buckets\n  WX: {\n    jetstream: enabled\n    users: [" + refer([]string{string(Worker)}) + "]\n    exports: [\n")
	entries(&b, "service", services, "{ %s: %q, accounts: [APPS] }")
	entries(&b, "stream", streams, "{ %s: %q, accounts: [APPS] }")
	b.WriteString("    ]\n  }\n  # consumers: each of its users needs permissions too (direct, resolver, signer)\n  APPS: {\n    users: [" + refer(users) + "]\n    imports: [\n")
	entries(&b, "service", services, "{ %s: { account: WX, subject: %q } }")
	entries(&b, "stream", streams, "{ %s: { account: WX, subject: %q } }")
	b.WriteString("    ]\n  }\n}\n")
	return b.String(), nil
}

func refer(users []string) string {
	var refs []string
	for _, u := range users {
		refs = append(refs, "$"+variable(u))
	}
	return strings.Join(refs, ", ")
}

func entries(b *strings.Builder, what string, groups []group, format string) {
	for _, g := range groups {
		fmt.Fprintf(b, "      # %s\n", g.why)
		for _, s := range g.subjects {
			fmt.Fprintf(b, "      "+format+"\n", what, s)
		}
	}
}
