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
)

// patience bounds everything but the tearing down; it is not a claim about speed.
const patience = 6 * time.Minute

// image is what all fleets of this run are made from, so that no image of the user's is replaced.
var image = "wxkeeper-e2e:" + strings.ToLower(rand.Text())

// TestMain removes the image, if it was made.
func TestMain(m *testing.M) {
	code := m.Run()
	if exec.Command("docker", "image", "inspect", image).Run() == nil {
		if out, err := exec.Command("docker", "image", "rm", image).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "the image was not removed: %v\n%s", err, out)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// fleet is one project of docker-compose.yml, of a name of its own.
type fleet struct {
	t       *testing.T
	ctx     context.Context
	project string
	env     []string
	natsURL string // as clients of this machine use it
	control string // URL of the simulated WeChat's control API
}

// newFleet names a fleet that ends with the test: its containers, networks and volumes are removed by its name.
func newFleet(t *testing.T, settings ...string) *fleet {
	t.Helper()
	ctx, interrupted := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(interrupted)
	ctx, cancel := context.WithTimeout(ctx, patience)
	t.Cleanup(cancel)
	f := &fleet{t: t, ctx: ctx, project: "wxkeeper-e2e-" + strings.ToLower(rand.Text()[:10])}

	// What docker needs of the environment, and none of the settings that docker-compose.yml would take from it.
	for _, v := range new(exec.Cmd).Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !slices.ContainsFunc([]string{"WECHAT_", "WXKEEPER_", "NATS_", "COMPOSE_"}, func(p string) bool { return strings.HasPrefix(name, p) }) {
			f.env = append(f.env, v)
		}
	}
	f.env = append(f.env, "WXKEEPER_IMAGE="+image, "SECRETS_DIR="+t.TempDir())
	var urls []string
	for i := range 3 {
		port := freePort(t)
		f.env = append(f.env, fmt.Sprintf("NATS_PORT_%d=%d", i+1, port))
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	port := freePort(t)
	f.env = append(f.env, fmt.Sprintf("SIMULATOR_PORT=%d", port))
	f.env = append(f.env, settings...)
	f.natsURL, f.control = strings.Join(urls, ","), fmt.Sprintf("http://127.0.0.1:%d", port)
	if err := built(ctx, f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.remove)
	return f
}

var building sync.Mutex

// built makes the image, if it is not there yet, from the Dockerfile as it is. Without an engine it fails, and so does
// the test: none is ever left out.
func built(ctx context.Context, f *fleet) error {
	building.Lock()
	defer building.Unlock()
	if exec.CommandContext(ctx, "docker", "image", "inspect", image).Run() == nil {
		return nil
	}
	if out, err := f.command(ctx, "build", "worker").CombinedOutput(); err != nil {
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

// command is docker compose on the real file. The file .env of the user is none of our business.
func (f *fleet) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", append([]string{"compose", "--progress=plain", "--env-file=" + os.DevNull, "-p", f.project}, args...)...)
	cmd.Dir, cmd.Env = "../..", f.env
	return cmd
}

// try runs docker compose, and returns what it has written to both outputs.
func (f *fleet) try(args ...string) (string, error) {
	out, err := f.command(f.ctx, args...).CombinedOutput()
	return string(out), err
}

func (f *fleet) compose(args ...string) string {
	f.t.Helper()
	cmd := f.command(f.ctx, args...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		f.t.Fatalf("docker compose %s: %v\n%s%s", strings.Join(args, " "), err, out, &errs)
	}
	return string(out)
}

// up brings the fleet to this number of workers, starts what was killed, and waits until all are healthy.
func (f *fleet) up(workers int) {
	f.t.Helper()
	f.compose("--profile=demo", "up", "--detach", "--wait", "--no-recreate", "--no-build", fmt.Sprintf("--scale=worker=%d", workers))
}

// remove removes the fleet whatever has happened to it, by its name, and looks whether anything is left.
func (f *fleet) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if f.t.Failed() {
		logs, _ := f.command(ctx, "--profile=demo", "logs", "--no-color", "--timestamps", "--tail=60").CombinedOutput()
		f.t.Logf("%s", logs)
	}
	if out, err := f.command(ctx, "--profile=demo", "down", "--volumes", "--remove-orphans", "--timeout=30").CombinedOutput(); err != nil {
		f.t.Errorf("docker compose down: %v\n%s", err, out)
	}
	label := "label=com.docker.compose.project=" + f.project
	for _, list := range [][]string{{"ps", "--all", "--quiet"}, {"volume", "ls", "--quiet"}, {"network", "ls", "--quiet"}} {
		out, err := exec.CommandContext(ctx, "docker", append(list, "--filter", label)...).Output()
		if err != nil || len(out) > 0 {
			f.t.Errorf("left over: docker %s: %s%v", strings.Join(list, " "), out, err)
		}
	}
}

// container is a container as `docker compose ps` tells of it.
type container struct {
	ID, Name, State, Health string
	ExitCode                int
}

// containers are those of a service, those that have ended included.
func (f *fleet) containers(service string) (list []container) {
	f.t.Helper()
	for d := json.NewDecoder(strings.NewReader(f.compose("--profile=demo", "ps", "--all", "--format=json", service))); ; {
		var c container
		if err := d.Decode(&c); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			f.t.Fatal(err)
		}
		list = append(list, c)
	}
}

// running counts the healthy containers of a service.
func (f *fleet) running(service string) (n int) {
	f.t.Helper()
	for _, c := range f.containers(service) {
		if c.State == "running" && c.Health == "healthy" {
			n++
		}
	}
	return n
}

// kill is docker kill: no signal that could be handled, and no restart.
func (f *fleet) kill(c container) {
	f.t.Helper()
	if out, err := exec.CommandContext(f.ctx, "docker", "kill", c.Name).CombinedOutput(); err != nil {
		f.t.Fatalf("docker kill: %v\n%s", err, out)
	}
}

// connect connects a client of this machine.
func (f *fleet) connect(user, password string) *nats.Conn {
	f.t.Helper()
	nc, err := nats.Connect(f.natsURL, nats.UserInfo(user, password), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond),
		nats.Timeout(2*time.Second), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(nc.Close)
	return nc
}

// request is the real nats command: what it writes to its standard output, and to the other.
func (f *fleet) request(user, password, subject, body string) (reply, said string) {
	f.t.Helper()
	command, err := filepath.Abs("../../bin/nats")
	if err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.CommandContext(f.ctx, command, "req", "--timeout=10s", subject, body)
	home := f.t.TempDir()
	cmd.Env = []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home, "NO_COLOR=1", "NATS_URL=" + f.natsURL, "NATS_USER=" + user, "NATS_PASSWORD=" + password}
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		f.t.Fatalf("nats req: %v (is it there? `make tools`)\n%s%s", err, out, &errs)
	}
	return string(out), errs.String()
}

var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// ask calls the control API of the simulated WeChat: GET without a body, else POST.
func (f *fleet) ask(path string, body, answer any) {
	f.t.Helper()
	method, reader := http.MethodGet, io.Reader(http.NoBody)
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			f.t.Fatal(err)
		}
		method, reader = http.MethodPost, strings.NewReader(string(b))
	}
	req, err := http.NewRequestWithContext(f.ctx, method, f.control+path, reader)
	if err != nil {
		f.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		f.t.Fatalf("%s %s: %s", method, path, resp.Status)
	}
	if answer != nil {
		if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
			f.t.Fatal(err)
		}
	}
}

// calls are the counters of an account in the simulated WeChat, by endpoint.
func (f *fleet) calls(appid string) map[string]counters {
	f.t.Helper()
	var all struct {
		Accounts map[string]map[string]counters `json:"accounts"`
	}
	f.ask("/calls", nil, &all)
	return all.Accounts[appid]
}

type counters struct {
	Calls, Minted int
	MaxConcurrent int         `json:"max_concurrent"`
	Errcodes      map[int]int `json:"errcodes"`
}

// until asks again until it is so.
func (f *fleet) until(what string, so func() bool) {
	f.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-f.ctx.Done():
			f.t.Fatalf("in vain: %s", what)
		case <-tick.C:
		}
	}
}
