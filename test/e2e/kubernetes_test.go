package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"go.yaml.in/yaml/v4"

	"github.com/wxkeeper/wxkeeper/internal/permissions"
	"github.com/wxkeeper/wxkeeper/messages"
)

const valuesFile = "deploy/kubernetes/nats-values.yaml"

// values are the values of the official Helm chart of NATS that this repository sets.
type values struct {
	Config struct {
		Cluster   struct{ Merge map[string]any }
		JetStream struct{ Merge map[string]any } `yaml:"jetstream"`
		Merge     map[string]any
	}
	Container struct {
		Image struct{ Tag string }
		Env   map[string]any
	}
}

func readValues(t *testing.T) values {
	t.Helper()
	var v values
	if err := yaml.Unmarshal([]byte(read(t, valuesFile)), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// usersFile is the file users.conf that the commands of docs/deploy.md print.
func usersFile(t *testing.T) string {
	t.Helper()
	var file strings.Builder
	for _, r := range []permissions.Request{
		{Roles: []permissions.Role{permissions.Worker}},
		{Roles: []permissions.Role{permissions.Requester}, User: "service", AppIDs: []string{permissions.AllAccounts}},
		{Roles: []permissions.Role{permissions.Operator}},
	} {
		r.Prefix, r.Bucket = messages.DefaultPrefix, messages.DefaultBucket
		text, err := permissions.User(r)
		if err != nil {
			t.Fatal(err)
		}
		file.WriteString(text)
	}
	text, err := permissions.Accounts(messages.DefaultPrefix, messages.DefaultBucket, "", []string{"service", "operator"})
	if err != nil {
		t.Fatal(err)
	}
	file.WriteString(text)
	return file.String()
}

// render makes the configuration of a node as the chart does: it merges the values into its own, writes JSON, removes
// the quotes of "<< … >>", and makes an include of a key that ends with $include.
func render(t *testing.T, v values) string {
	t.Helper()
	config := map[string]any{
		"port": 4222, "http_port": 8222, "server_name": "<< $SERVER_NAME >>",
		"cluster":   map[string]any{"name": "nats", "port": 6222, "no_advertise": true},
		"jetstream": map[string]any{"store_dir": t.TempDir(), "max_memory_store": 0, "max_file_store": "<< 2Gi >>"},
	}
	for from, to := range map[*map[string]any]any{
		&v.Config.Cluster.Merge: config["cluster"], &v.Config.JetStream.Merge: config["jetstream"], &v.Config.Merge: config,
	} {
		for key, value := range *from {
			to.(map[string]any)[key] = value
		}
	}
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(config); err != nil {
		t.Fatal(err)
	}
	included := regexp.MustCompile(`".*\$include": "(.*)",?`).ReplaceAllString(text.String(), "include $1;")
	return regexp.MustCompile(`"<<\s+(.*?)\s+>>"`).ReplaceAllString(included, "$1")
}

// What nats-server makes of deploy/kubernetes/nats-values.yaml, with passwords that are digits: users, accounts and
// routes with passwords.
func TestValuesOfHelmMakeTheTwoAccounts(t *testing.T) {
	v := readValues(t)
	t.Setenv("SERVER_NAME", "nats-0")
	for name, value := range v.Container.Env {
		text, ok := value.(string)
		if !ok {
			continue // a password of the Secret, which the others name as $(NAME)
		}
		text = regexp.MustCompile(`\$\((\w+)\)`).ReplaceAllStringFunc(text, func(ref string) string {
			source := ref[2 : len(ref)-1]
			if _, secret := v.Container.Env[source].(map[string]any); !secret || source >= name {
				t.Errorf("%s has %s, which is not a variable that comes before", name, ref)
			}
			return "123"
		})
		t.Setenv(name, text)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"nats.conf": render(t, v), "users.conf": usersFile(t)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o, err := server.ProcessConfigFile(filepath.Join(dir, "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	checkUsers(t, o)
	if o.Cluster.Username != "node" || o.Cluster.Password != "123" || len(o.Routes) != 3 {
		t.Errorf("the routes: %d, user %q", len(o.Routes), o.Cluster.Username)
	}
	for _, route := range o.Routes {
		if password, _ := route.User.Password(); password != o.Cluster.Password {
			t.Errorf("a route without the password of the nodes: %s", route.Host)
		}
	}
	if o.JetStreamLimits.DefaultMaxConsumers != 10000 {
		t.Errorf("%d consumers for one stream", o.JetStreamLimits.DefaultMaxConsumers)
	}
}

// The commands of docs/deploy.md print what TestValuesOfHelmMakeTheTwoAccounts tests.
func TestDocumentPrintsTheUsersOfKubernetes(t *testing.T) {
	t.Parallel()
	want := `wxkeeper permissions worker > users.conf
wxkeeper permissions requester --appid '*' --user service >> users.conf
wxkeeper permissions operator >> users.conf
wxkeeper permissions accounts --user service --user operator >> users.conf
`
	if !strings.Contains(read(t, "docs/deploy.md"), want) {
		t.Errorf("docs/deploy.md does not have\n%s", want)
	}
}

// The server of Kubernetes has the version of the server that the tests embed.
func TestKubernetesRunsTheNATSServerOfGoMod(t *testing.T) {
	t.Parallel()
	want := find(t, "go.mod", `github\.com/nats-io/nats-server/v2 v(\S+)`) + "-alpine"
	if got := readValues(t).Container.Image.Tag; got != want {
		t.Errorf("%s has %s, go.mod has %s", valuesFile, got, want)
	}
}
