package e2e

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/wxkeeper/wxkeeper/internal/permissions"
	"github.com/wxkeeper/wxkeeper/messages"
)

// The lists of deploy/nats are what `wxkeeper permissions` prints.
func TestListsOfTheNodesAreThoseThatArePrinted(t *testing.T) {
	t.Parallel()
	for file, r := range map[string]permissions.Request{
		"worker.conf":   {Roles: []permissions.Role{permissions.Worker}},
		"operator.conf": {Roles: []permissions.Role{permissions.Operator}},
		"service.conf": {Roles: []permissions.Role{permissions.Requester}, User: "service",
			AppIDs: []string{permissions.AllAccounts}},
	} {
		r.Prefix, r.Bucket = messages.DefaultPrefix, messages.DefaultBucket
		text, err := permissions.User(r)
		if err != nil || read(t, "deploy/nats/"+file) != text {
			t.Errorf("deploy/nats/%s is not what `wxkeeper permissions` prints (%v)\n%s", file, err, text)
		}
	}
	accounts, err := permissions.Accounts(messages.DefaultPrefix, messages.DefaultBucket, "",
		[]string{"service", "operator"})
	if err != nil || !strings.Contains(read(t, "deploy/nats/nats.conf"), accounts) {
		t.Errorf("deploy/nats/nats.conf does not have what `wxkeeper permissions accounts` prints (%v)\n%s", err, accounts)
	}
}

// What nats-server makes of the configuration of a node, with passwords that are digits.
func TestNodesListenAndAuthenticateAsTheDocumentSays(t *testing.T) {
	t.Setenv("NODE", "nats-1")
	for name, value := range map[string]string{
		"ROUTE_HOST": "route-1", "WORKER_PASSWORD": `"1"`, "SERVICE_PASSWORD": `"2"`,
		"OPERATOR_PASSWORD": `"3"`, "CLUSTER_PASSWORD": `"4"`,
		"ROUTES": `["nats://node:4@route-1:6222", "nats://node:4@route-2:6222"]`,
	} {
		t.Setenv(name, value)
	}
	o, err := server.ProcessConfigFile("../../deploy/nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	if o.HTTPHost != "127.0.0.1" || o.HTTPPort != 8222 {
		t.Errorf("monitoring listens on %s:%d", o.HTTPHost, o.HTTPPort)
	}
	if o.Cluster.Host != "route-1" || o.Cluster.Port != 6222 || o.Cluster.Username != "node" || o.Cluster.Password != "4" {
		t.Errorf("the routes: %s:%d, user %q", o.Cluster.Host, o.Cluster.Port, o.Cluster.Username)
	}
	checkUsers(t, o)
}

// checkUsers checks that o has the three users with lists, each in its NATS account, and admits nobody else.
func checkUsers(t *testing.T, o *server.Options) {
	t.Helper()
	accounts := map[string]string{"worker": "WX", "service": "APPS", "operator": "APPS"}
	if len(o.Users) != len(accounts) || o.NoAuthUser != "" {
		t.Errorf("%d users, and %q for clients without one", len(o.Users), o.NoAuthUser)
	}
	for _, u := range o.Users {
		if u.Account.Name != accounts[u.Username] || u.Permissions == nil || u.Password == "" {
			t.Errorf("the user %s is in the account %s", u.Username, u.Account.Name)
		}
	}
}

// A container beside the nodes must not reach their routes: they are in a network of their own.
func TestOnlyNodesAreInTheNetworkOfTheRoutes(t *testing.T) {
	t.Parallel()
	if strings.Contains(read(t, "docker-compose.yml"), "networks:") {
		t.Error("docker-compose.yml has networks: only the nodes may be in another network than the default")
	}
	nodes := read(t, "deploy/nats/compose.yml")
	if !strings.Contains(nodes, "\n  routes: {internal: true}") {
		t.Error("the network of the routes is not internal")
	}
	if n := strings.Count(nodes, "networks: {default: {}, routes: {aliases: [route-"); n != 3 {
		t.Errorf("%d nodes have a name in the network of the routes", n)
	}
}
