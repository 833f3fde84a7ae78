//go:build cli

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// fenced matches the blocks of code of a page: their language and their lines.
var fenced = regexp.MustCompile("(?ms)^ *```(sh|console|go)\n(.*?)^ *```")

// readme returns README.md.
func readme(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// onTheDemo are the commands of the README that are for the demo: those of its blocks before the installation, and
// those in the table of what a service does.
func onTheDemo(t *testing.T) (commands []string) {
	t.Helper()
	text := readme(t)
	before, _, _ := strings.Cut(text, "\n## Install\n")
	for _, block := range fenced.FindAllStringSubmatch(before, -1) {
		for line := range strings.Lines(block[2]) {
			line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
			if strings.HasPrefix(line, "nats ") || strings.HasPrefix(line, "go run ./cmd/wxkeeper resolve") {
				commands = append(commands, line)
			}
		}
	}
	_, table, _ := strings.Cut(text, "\n## What a service does\n")
	table, _, _ = strings.Cut(table, "\nIn Go, a few lines")
	for _, span := range regexp.MustCompile("`((?:nats|wxkeeper) [^`]+|TOKEN=[^`]+)`").FindAllStringSubmatch(table, -1) {
		if span[1] != "nats req" { // the text is about the verb
			commands = append(commands, span[1])
		}
	}
	return commands
}

// A shell runs the commands unchanged: those of the README, and those that the demo prints.
func TestCommandsOfTheReadmeWorkOnTheDemo(t *testing.T) {
	t.Parallel()
	demo := start(t, nil, wxkeeper(t), "demo", "--life=1h", "--listen=127.0.0.1:0") // nothing is killed
	url := demo.find(t, demo.stdout, `NATS +(nats://127\.0\.0\.1:\d+)`)[1]
	intro := demo.find(t, demo.stdout, `(?s)Try in a second terminal:\n\n(.*?)\nWhat happens:`)[1]
	demo.find(t, demo.stdout, `resolved +code_ticket`) // the worker answers

	commands := onTheDemo(t)
	if len(commands) < 12 {
		t.Errorf("the README has only %d commands for the demo: %q", len(commands), commands)
	}
	printed := 0
	for line := range strings.Lines(intro) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "NATS_URL=") {
			commands = append(commands, line)
			printed++
		}
	}
	if printed < 5 {
		t.Errorf("the demo prints only %d commands:\n%s", printed, intro)
	}
	dir := t.TempDir()
	if err := os.Symlink(wxkeeper(t), filepath.Join(dir, "wxkeeper")); err != nil {
		t.Fatal(err)
	}
	env := vars{"NATS_URL": url, "PATH": dir + ":" + filepath.Dir(natsCommand(t)) + ":/usr/bin:/bin"}
	for _, command := range commands {
		if strings.Contains(command, "nats sub ") || strings.HasSuffix(command, " watch") { // until a signal
			continue
		}
		r := call(t, env, "", "/bin/bash", "-c", strings.Replace(command, "go run ./cmd/wxkeeper", "wxkeeper", 1))
		refused := strings.Contains(r.err+r.out, "Nats-Service-Error")
		if r.code != 0 || refused != strings.Contains(command, `"wrong"`) {
			t.Errorf("%s: exit code %d\n%s%s", command, r.code, r.err, r.out)
		}
	}
	demo.stop(t, syscall.SIGINT)
}

func TestGoOfTheReadmeCompiles(t *testing.T) {
	t.Parallel()
	text := ""
	for _, block := range fenced.FindAllStringSubmatch(readme(t), -1) {
		if block[1] == "go" {
			text += block[2]
		}
	}
	program := filepath.Join(t.TempDir(), "main.go")
	source := `package main

import (
	"context"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/messages"
)

func main() {}

func service(ctx, startCtx context.Context, url, appid string) error {
` + text + `
	_, _ = resp, value
	return err
}
`
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(root, "examples/readme/main.go"): program,
	}})
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string][]byte{program: []byte(source), program + ".overlay": overlay} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(testContext(t), "go", "build", "-o", os.DevNull, "-overlay", program+".overlay",
		"./examples/readme")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the Go of the README does not compile: %v\n%s", err, out)
	}
}
