//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wxkeeper/wxkeeper/internal/permissions"
)

// patience limits a test that hangs, without the removal of its stack. It says nothing about speed.
const patience = 12 * time.Minute

// image is the image of all stacks of this run. Its name is random, so that no image of the user is replaced.
var image = "wxkeeper-e2e:" + strings.ToLower(rand.Text())

// The build arguments of the image.
const (
	version = "1.2.3-e2e"
	commit  = "0123456789abcdef0123456789abcdef01234567"
)

// TestMain removes the image, if a test has built it.
func TestMain(m *testing.M) {
	code := m.Run()
	if exec.Command("docker", "image", "inspect", image).Run() == nil {
		if out, err := exec.Command("docker", "image", "rm", image).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "remove the image: %v\n%s", err, out)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// stack is a project of docker-compose.yml with a name of its own.
type stack struct {
	t          *testing.T
	ctx        context.Context
	project    string
	env        []string
	natsURL    string // for clients on this machine
	controlURL string // the control API of the simulated WeChat
}

// newStack returns a stack that is not started. It is removed by its name at the end of the test: its containers,
// networks and volumes.
func newStack(t *testing.T, settings ...string) *stack {
	t.Helper()
	ctx, interrupted := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(interrupted)
	ctx, cancel := context.WithTimeout(ctx, patience)
	t.Cleanup(cancel)
	s := &stack{t: t, ctx: ctx, project: "wxkeeper-e2e-" + strings.ToLower(rand.Text()[:10])}

	// The environment that docker needs, without the settings that docker-compose.yml would read from it. The images
	// are those of this machine.
	settingsOfCompose := []string{"WECHAT_", "WXKEEPER_", "NATS_", "COMPOSE_"}
	for _, v := range new(exec.Cmd).Environ() {
		isSetting := slices.ContainsFunc(settingsOfCompose, func(prefix string) bool { return strings.HasPrefix(v, prefix) })
		if !isSetting || strings.HasPrefix(v, "NATS_IMAGE=") {
			s.env = append(s.env, v)
		}
	}
	s.env = append(s.env, "WXKEEPER_IMAGE="+image, "WXKEEPER_VERSION="+version, "WXKEEPER_COMMIT="+commit,
		"SECRETS_DIR="+t.TempDir())
	var urls []string
	for i := range 3 {
		port := freePort(t)
		s.env = append(s.env, fmt.Sprintf("NATS_PORT_%d=%d", i+1, port))
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	port := freePort(t)
	s.env = append(s.env, fmt.Sprintf("SIMULATOR_PORT=%d", port))
	s.env = append(s.env, settings...)
	s.natsURL, s.controlURL = strings.Join(urls, ","), fmt.Sprintf("http://127.0.0.1:%d", port)
	if err := s.buildImage(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.remove)
	return s
}

var building sync.Mutex

// buildImage builds the image from the Dockerfile, unless another test has built it. Without a Docker engine it
// fails, and so does the test: no test is skipped.
func (s *stack) buildImage(ctx context.Context) error {
	building.Lock()
	defer building.Unlock()
	if exec.CommandContext(ctx, "docker", "image", "inspect", image).Run() == nil {
		return nil
	}
	if out, err := s.command(ctx, "build", "worker").CombinedOutput(); err != nil {
		return fmt.Errorf("docker compose build: %w\n%s", err, out)
	}
	return nil
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// command returns a command of docker compose on docker-compose.yml, without the file .env of the user.
func (s *stack) command(ctx context.Context, args ...string) *exec.Cmd {
	all := []string{"compose", "--progress=plain", "--env-file=" + os.DevNull, "-p", s.project}
	cmd := exec.CommandContext(ctx, "docker", append(all, args...)...)
	cmd.Dir, cmd.Env = "../..", s.env
	return cmd
}

// try runs docker compose, and returns what it wrote to standard output and standard error.
func (s *stack) try(args ...string) (string, error) {
	out, err := s.command(s.ctx, args...).CombinedOutput()
	return string(out), err
}

// compose runs docker compose, which must succeed, and returns its standard output.
func (s *stack) compose(args ...string) string {
	s.t.Helper()
	cmd := s.command(s.ctx, args...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("docker compose %s: %v\n%s%s", strings.Join(args, " "), err, out, &errs)
	}
	return string(out)
}

// up scales to a number of workers, starts again what was killed, and waits until every container is healthy.
func (s *stack) up(workers int) {
	s.t.Helper()
	s.compose("--profile=demo", "up", "--detach", "--wait", "--no-recreate", "--no-build",
		fmt.Sprintf("--scale=worker=%d", workers))
}

// remove removes the stack, also after a failed or interrupted test, and checks that nothing is left.
func (s *stack) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if s.t.Failed() {
		logs, _ := s.command(ctx, "--profile=demo", "logs", "--no-color", "--timestamps", "--tail=60").CombinedOutput()
		s.t.Logf("%s", logs)
	}
	down := s.command(ctx, "--profile=demo", "down", "--volumes", "--remove-orphans", "--timeout=30")
	if out, err := down.CombinedOutput(); err != nil {
		s.t.Errorf("docker compose down: %v\n%s", err, out)
	}
	label := "label=com.docker.compose.project=" + s.project
	for _, list := range [][]string{{"ps", "--all"}, {"volume", "ls"}, {"network", "ls"}} {
		out, err := exec.CommandContext(ctx, "docker", append(list, "--quiet", "--filter", label)...).Output()
		if err != nil || len(out) > 0 {
			s.t.Errorf("left over: docker %s: %s%v", strings.Join(list, " "), out, err)
		}
	}
}

// container is a line of `docker compose ps`.
type container struct {
	ID, Name, State, Health string
	ExitCode                int
}

// containers returns the containers of a service, with those that have exited.
func (s *stack) containers(service string) (list []container) {
	s.t.Helper()
	lines := s.compose("--profile=demo", "ps", "--all", "--format=json", service)
	for d := json.NewDecoder(strings.NewReader(lines)); ; {
		var c container
		if err := d.Decode(&c); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			s.t.Fatal(err)
		}
		list = append(list, c)
	}
}

// healthy counts the healthy containers of a service.
func (s *stack) healthy(service string) (n int) {
	s.t.Helper()
	for _, c := range s.containers(service) {
		if c.State == "running" && c.Health == "healthy" {
			n++
		}
	}
	return n
}

// kill kills a container with a signal that it cannot handle. Docker does not restart it.
func (s *stack) kill(c container) {
	s.t.Helper()
	if out, err := exec.CommandContext(s.ctx, "docker", "kill", c.Name).CombinedOutput(); err != nil {
		s.t.Fatalf("docker kill: %v\n%s", err, out)
	}
}

// connect connects a client on this machine as one of the users of deploy/nats.
func (s *stack) connect(user, password string) *nats.Conn {
	s.t.Helper()
	nc, err := nats.Connect(s.natsURL, nats.UserInfo(user, password), nats.CustomInboxPrefix(permissions.Inbox(user)),
		nats.Timeout(10*time.Second), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(nc.Close)
	return nc
}

// request runs `nats req`, and returns what it prints: the reply to standard output, the headers to standard error.
func (s *stack) request(user, password, subject, body string) (reply, headers string) {
	s.t.Helper()
	command, err := filepath.Abs("../../bin/nats")
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.ctx, command, "--inbox-prefix="+permissions.Inbox(user), "req", "--timeout=60s",
		subject, body)
	home := s.t.TempDir()
	cmd.Env = []string{
		"HOME=" + home, "XDG_CONFIG_HOME=" + home, "NO_COLOR=1",
		"NATS_URL=" + s.natsURL, "NATS_USER=" + user, "NATS_PASSWORD=" + password,
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("nats req: %v (`make tools` builds the command)\n%s%s", err, out, &errs)
	}
	return string(out), errs.String()
}

var client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}

// control calls the control API of the simulated WeChat: with GET if body is nil, else with POST.
func (s *stack) control(path string, body, answer any) {
	s.t.Helper()
	method, reader := http.MethodGet, io.Reader(http.NoBody)
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		method, reader = http.MethodPost, strings.NewReader(string(b))
	}
	req, err := http.NewRequestWithContext(s.ctx, method, s.controlURL+path, reader)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s %s: %s", method, path, resp.Status)
	}
	if answer != nil {
		if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
			s.t.Fatal(err)
		}
	}
}

// calls returns the counters of an account in the simulated WeChat, by endpoint.
func (s *stack) calls(appid string) map[string]counters {
	s.t.Helper()
	var all struct {
		Accounts map[string]map[string]counters `json:"accounts"`
	}
	s.control("/calls", nil, &all)
	return all.Accounts[appid]
}

type counters struct {
	Calls, Minted int
	MaxConcurrent int         `json:"max_concurrent"`
	Errcodes      map[int]int `json:"errcodes"`
}

// eventually waits until a condition is true.
func (s *stack) eventually(what string, condition func() bool) {
	s.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-s.ctx.Done():
			s.t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}
