package e2e

import (
	"os"
	"regexp"
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

// found is the first group of a match, which must be there.
func found(t *testing.T, file, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(read(t, file))
	if m == nil {
		t.Fatalf("%s has no %s", file, pattern)
	}
	return m[1]
}

// The server that the tests embed is the one that runs beside the workers.
func TestComposeRunsTheNATSServerOfGoMod(t *testing.T) {
	t.Parallel()
	want := "nats:" + found(t, "go.mod", `github\.com/nats-io/nats-server/v2 v(\S+)`) + "-alpine"
	images := regexp.MustCompile(`image: (nats:\S*)`).FindAllStringSubmatch(read(t, "docker-compose.yml"), -1)
	if len(images) == 0 {
		t.Fatal("docker-compose.yml has no image of NATS")
	}
	for _, m := range images {
		if m[1] != want {
			t.Errorf("docker-compose.yml has %s, go.mod says %s", m[1], want)
		}
	}
}

// A patch level, so that a build is the same tomorrow; of the Go of go.mod or of a patch after it.
func TestDockerfileBuildsWithTheGoOfGoMod(t *testing.T) {
	t.Parallel()
	language := found(t, "go.mod", `(?m)^go (\d+\.\d+)`)
	least := found(t, "go.mod", `(?m)^go \d+\.\d+\.(\d+)`)
	image := found(t, "Dockerfile", `(?m)^FROM golang:(\S+)-alpine AS`)
	patch, ok := strings.CutPrefix(image, language+".")
	if !ok || !regexp.MustCompile(`^\d+$`).MatchString(patch) || len(patch) < len(least) || len(patch) == len(least) && patch < least {
		t.Errorf("the Dockerfile builds with Go %s, go.mod says %s.%s", image, language, least)
	}
	for _, from := range regexp.MustCompile(`(?m)^FROM (\S+)`).FindAllStringSubmatch(read(t, "Dockerfile"), -1) {
		if from[1] != "scratch" && from[1] != "golang:"+image+"-alpine" {
			t.Errorf("a base image that nobody compares: %s", from[1])
		}
	}
}

// Whoever sets a variable in .env has it in the worker; what is missing is what the compose file decides itself.
func TestWorkersOfComposeGetEveryVariable(t *testing.T) {
	t.Parallel()
	decided := map[string]string{
		"NATS_URL": "", "NATS_USER": "", "NATS_PASSWORD": "", "WXKEEPER_HTTP_ADDR": "",
		"NATS_CREDS": "one user and password", "NATS_NKEY": "the same", "NATS_TOKEN": "the same",
		"NATS_CA": "no TLS inside one machine", "NATS_CERT": "the same", "NATS_KEY": "the same",
		"NATS_INBOX_PREFIX":    "one user has all inboxes",
		"WXKEEPER_NATS_LISTEN": "no embedded server", "WXKEEPER_DATA_DIR": "the same",
	}
	worker, compose := read(t, "deploy/worker.env"), read(t, "docker-compose.yml")
	for _, row := range config.Table() {
		if strings.HasPrefix(row.Name, "WECHAT_ACCOUNTS_0_") { // without end: many accounts are those of WECHAT_ACCOUNTS_FILE here
			continue
		}
		why, ok := decided[row.Name]
		switch passed := strings.Contains(worker, "\n"+row.Name+"=${"+row.Name+":-}\n"); {
		case ok && passed:
			t.Errorf("%s is decided in docker-compose.yml, and yet in deploy/worker.env", row.Name)
		case ok && why == "" && !strings.Contains(compose, "\n      "+row.Name+": "):
			t.Errorf("%s is not set in docker-compose.yml", row.Name)
		case !ok && !passed:
			t.Errorf("deploy/worker.env does not pass %s", row.Name)
		}
	}
}

// Nothing is open to the network of the machine, and nothing keeps a second worker from starting.
func TestComposePublishesOnTheLoopbackAlone(t *testing.T) {
	t.Parallel()
	compose := read(t, "docker-compose.yml")
	ports := regexp.MustCompile(`(?m)^ +ports: (.*)$`).FindAllStringSubmatch(compose, -1)
	if len(ports) != 4 || strings.Count(compose, "ports:") != len(ports) {
		t.Errorf("%d lines of ports, want those of three nodes and of the simulator", len(ports))
	}
	for _, m := range ports {
		if !regexp.MustCompile(`^\["127\.0\.0\.1:\$\{\w+:-\d+\}:\d+"\]$`).MatchString(m[1]) {
			t.Errorf("ports: %s", m[1])
		}
	}
	_, worker, _ := strings.Cut(compose, "\n  worker:")
	worker, _, _ = strings.Cut(worker, "\n  account-configured:")
	if strings.Contains(worker, "ports:") || strings.Contains(compose, "container_name:") || strings.Contains(compose, "network_mode:") {
		t.Error("a fixed name or port: a second worker could not start")
	}
}
