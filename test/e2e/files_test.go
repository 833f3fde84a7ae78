package e2e

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/wxkeeper/wxkeeper/internal/config"
)

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile("../../" + file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// find returns the first group of the first match. The file must have a match.
func find(t *testing.T, file, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(read(t, file))
	if m == nil {
		t.Fatalf("%s has no match of %s", file, pattern)
	}
	return m[1]
}

// composeFiles are the files of Compose: the first includes the second.
var composeFiles = []string{"docker-compose.yml", "deploy/nats/compose.yml"}

// digest is the end of the name of a pinned image.
const digest = `@sha256:[0-9a-f]{64}`

// The server beside the workers has the version of the server that the tests embed.
func TestComposeRunsTheNATSServerOfGoMod(t *testing.T) {
	t.Parallel()
	want := "nats:" + find(t, "go.mod", `github\.com/nats-io/nats-server/v2 v(\S+)`) + "-alpine"
	for _, file := range composeFiles {
		got := find(t, file, `image: \$\{NATS_IMAGE:-(nats:[^@}]*)(?:`+digest+`)?\}`)
		if got != want {
			t.Errorf("%s has %s, go.mod has %s", file, got, want)
		}
		for _, m := range regexp.MustCompile(`image: (.*)`).FindAllStringSubmatch(read(t, file), -1) {
			if !regexp.MustCompile(`^(\$\{NATS_IMAGE:-|&image |\*image)`).MatchString(m[1]) {
				t.Errorf("an image that no test compares: %s", m[1])
			}
		}
	}
}

// The image of Go has a patch level, so that a later build is the same. It is the version in go.mod, or a later
// patch.
func TestDockerfileBuildsWithTheGoOfGoMod(t *testing.T) {
	t.Parallel()
	language := find(t, "go.mod", `(?m)^go (\d+\.\d+)`)
	least := find(t, "go.mod", `(?m)^go \d+\.\d+\.(\d+)`)
	image := find(t, "Dockerfile", `(?m)^ARG GO_IMAGE=golang:([^\s@]+)-alpine(?:`+digest+`)?$`)
	if patch, ok := strings.CutPrefix(image, language+"."); !ok || number(t, patch) < number(t, least) {
		t.Errorf("the Dockerfile builds with Go %s, go.mod has %s.%s", image, language, least)
	}
	for _, from := range regexp.MustCompile(`(?m)^FROM (\S+)`).FindAllStringSubmatch(read(t, "Dockerfile"), -1) {
		if from[1] != "scratch" && from[1] != "${GO_IMAGE}" {
			t.Errorf("a base image without a pinned version: %s", from[1])
		}
	}
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A worker has every variable that .env sets, except those that docker-compose.yml sets itself.
func TestComposePassesEveryVariableToWorkers(t *testing.T) {
	t.Parallel()
	const (
		compose  = "docker-compose.yml sets it"
		password = "the NATS user of workers has a password"
		noTLS    = "no TLS inside one machine"
		noServer = "no embedded server"
		image    = "the image has the public authorities, and files of the machine are not in the container"
	)
	decided := map[string]string{ // why deploy/worker.env does not pass the variable
		"NATS_URL": compose, "NATS_USER": compose, "NATS_PASSWORD": compose, "WXKEEPER_HTTP_ADDR": compose,
		"NATS_INBOX_PREFIX": compose,
		"NATS_CREDS":        password, "NATS_NKEY": password, "NATS_TOKEN": password,
		"SSL_CERT_FILE": image, "SSL_CERT_DIR": image,
		"NATS_CA": noTLS, "NATS_CERT": noTLS, "NATS_KEY": noTLS, "NATS_TLS_FIRST": noTLS,
		"WXKEEPER_JS_DOMAIN":   "the nodes are the whole NATS system",
		"WXKEEPER_NATS_LISTEN": noServer, "WXKEEPER_NATS_OPEN": noServer, "WXKEEPER_DATA_DIR": noServer,
	}
	passedFile, composeFile := read(t, "deploy/worker.env"), read(t, "docker-compose.yml")
	for _, row := range config.Table() {
		if strings.HasPrefix(row.Name, "WECHAT_ACCOUNTS_0_") { // numbered without end: use WECHAT_ACCOUNTS_FILE instead
			continue
		}
		why, ok := decided[row.Name]
		switch passed := strings.Contains(passedFile, "\n"+row.Name+"=${"+row.Name+":-}\n"); {
		case ok && passed:
			t.Errorf("deploy/worker.env passes %s, but: %s", row.Name, why)
		case why == compose && !strings.Contains(composeFile, "\n      "+row.Name+": "):
			t.Errorf("docker-compose.yml does not set %s", row.Name)
		case !ok && !passed:
			t.Errorf("deploy/worker.env does not pass %s", row.Name)
		}
	}
}

// No port is open to the network of the machine, and no fixed name or port prevents a second worker.
func TestComposePublishesOnlyOnTheLoopback(t *testing.T) {
	t.Parallel()
	compose := read(t, composeFiles[0]) + read(t, composeFiles[1])
	ports := regexp.MustCompile(`(?m)^ +ports: (.*)$`).FindAllStringSubmatch(compose, -1)
	if len(ports) != 4 || strings.Count(compose, "ports:") != len(ports) {
		t.Errorf("%d lines of ports, want one for each of three nodes and one for the simulator", len(ports))
	}
	for _, m := range ports {
		if !regexp.MustCompile(`^\["127\.0\.0\.1:\$\{\w+:-\d+\}:\d+"\]$`).MatchString(m[1]) {
			t.Errorf("ports: %s", m[1])
		}
	}
	_, worker, _ := strings.Cut(compose, "\n  worker:")
	worker, _, _ = strings.Cut(worker, "\n  operator:")
	if strings.Contains(worker, "ports:") {
		t.Error("the worker has a fixed port: a second worker could not start")
	}
	for _, fixed := range []string{"container_name:", "network_mode:"} {
		if strings.Contains(compose, fixed) {
			t.Errorf("docker-compose.yml has a %s a second worker could not start", fixed)
		}
	}
}
