//go:build cli

package main

import (
	"strings"
	"testing"
)

// The nats command finds the workers with the list micro: in one account, and in APPS.
func TestNATSMicroFindsWorkersInOneAccountAndInTwo(t *testing.T) {
	t.Parallel()
	list := permissionsOf(t, "micro")
	for name, conf := range map[string]string{
		"one account":  oneAccount(list, permissionsOf(t, "worker")),
		"two accounts": twoAccounts(t, map[string]string{"micro": list}),
	} {
		g := guardConf(t, conf)
		g.startWorker(g.as("worker"))
		env := vars{"NATS_URL": g.srv.URL(), "NATS_USER": "micro", "NATS_PASSWORD": passphrase}
		for _, args := range []string{"ls", "info corp", "stats corp"} {
			all := append([]string{"micro", "--inbox-prefix=_INBOX_micro"}, strings.Fields(args)...)
			r := call(t, env, "", natsCommand(t), all...)
			if r.code != 0 || !strings.Contains(r.out, "corp") {
				t.Errorf("%s: nats micro %s: exit code %d\n%s%s", name, args, r.code, r.out, r.err)
			}
		}
		g.noViolations()
	}
}
