package embedded

import (
	"fmt"
	"strings"
)

// Account is a NATS account of the server.
type Account string

// The accounts. Workers are in the first, with JetStream and the buckets. Everything else is in the second: it sees
// only what the first exports, and cannot use JetStream. So no request of a consumer can have an effect on the buckets,
// whatever its subject and its reply subject are.
const (
	Workers   Account = "WX"
	Consumers Account = "APPS"
)

// Exports are the subjects that consumers see.
type Exports struct {
	Requests []string // each request has one reply
	Surveys  []string // requests to which every worker replies
	Messages []string // what consumers may subscribe to
}

// accounts returns the two accounts as configuration of nats-server.
func (e Exports) accounts() string {
	var exports, imports strings.Builder
	add := func(subjects []string, kind, response string) {
		for _, s := range subjects {
			fmt.Fprintf(&exports, "    { %s: %q%s, accounts: [%s] }\n", kind, s, response, Consumers)
			fmt.Fprintf(&imports, "    { %s: { account: %s, subject: %q } }\n", kind, Workers, s)
		}
	}
	add(e.Requests, "service", "")
	add(e.Surveys, "service", ", response_type: stream")
	add(e.Messages, "stream", "")
	return fmt.Sprintf("accounts: {\n  %s: { jetstream: enabled, exports: [\n%s  ] }\n  %s: { imports: [\n%s  ] }\n}\n",
		Workers, &exports, Consumers, &imports)
}
