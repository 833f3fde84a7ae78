package natstest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// StartAccounts starts a server with a NATS account for each element of jetstream: its key is the name of the account,
// its value the content of the block jetstream in the account's configuration, or "" if the account has no JetStream.
// As returns the option of the user of an account.
func StartAccounts(tb testing.TB, jetstream map[string]string) *Server {
	tb.Helper()
	var conf strings.Builder
	for name, limits := range jetstream {
		if limits != "" {
			limits = "jetstream: { " + limits + " }, "
		}
		fmt.Fprintf(&conf, "%q: { %susers: [{ user: %q, password: %q }] }\n", name, limits, name, accountPassword)
	}
	return Start(tb, func(o *server.Options) {
		if err := o.ProcessConfigString("accounts: {\n" + conf.String() + "}\n"); err != nil {
			tb.Fatal(err)
		}
	})
}

const accountPassword = "only-for-this-test"

// As is the option of the user of an account of [StartAccounts].
func As(account string) nats.Option { return nats.UserInfo(account, accountPassword) }
