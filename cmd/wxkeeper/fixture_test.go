//go:build cli

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// binary builds the binary once, with the race detector, which reports in the output of the process.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wxkeeper-cli-")
	if err != nil {
		return "", err
	}
	cleanups = append(cleanups, func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "wxkeeper")
	if out, err := exec.Command("go", "build", "-race", "-o", file, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return file, nil
})

func wxkeeper(t *testing.T) string {
	t.Helper()
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// natsCommand is the path of the nats command. Without the command the test fails.
func natsCommand(t *testing.T) string {
	t.Helper()
	file, err := filepath.Abs("../../bin/nats")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("the nats command is missing: run `make tools` (%v)", err)
	}
	return file
}

// vars are the environment variables of a process, besides those that every process gets.
type vars map[string]string

func (v vars) environ(home string) []string {
	env := []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home, "TMPDIR=" + os.TempDir(), "NO_COLOR=1",
		"GORACE=atexit_sleep_ms=10"}
	for k, s := range v {
		env = append(env, k+"="+s)
	}
	return env
}

// with returns v with more variables, or other values.
func (v vars) with(more vars) vars {
	all := vars{}
	for _, m := range []vars{v, more} {
		for k, s := range m {
			all[k] = s
		}
	}
	return all
}

// output is what a process has written. A test can wait for more.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed at the next write, or at the end
	ended   bool
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(p)
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await waits until done returns true for everything that was written. It returns false if the output ends before.
func (o *output) await(ctx context.Context, done func(text string) bool) bool {
	for {
		o.mu.Lock()
		text, changed, ended := o.text.String(), o.changed, o.ended
		o.mu.Unlock()
		switch {
		case done(text):
			return true
		case ended:
			return false
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// process is a command that was started. It is killed at the end of the test.
type process struct {
	name           string
	cmd            *exec.Cmd
	stdout, stderr *output
	ended          chan struct{}
}

func start(t *testing.T, env vars, name string, args ...string) *process {
	t.Helper()
	p := &process{name: filepath.Base(name) + " " + strings.Join(args, " "), stdout: newOutput(), stderr: newOutput(),
		ended: make(chan struct{})}
	p.cmd = exec.Command(name, args...)
	p.cmd.Env = env.environ(t.TempDir())
	p.cmd.Dir = t.TempDir()
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		p.stdout.end()
		p.stderr.end()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // an error means that it has ended
		<-p.ended
		if all := p.stdout.String() + p.stderr.String(); strings.Contains(all, "DATA RACE") ||
			strings.Contains(all, "panic:") {
			t.Errorf("%s:\n%s", p.name, all)
		}
		if t.Failed() {
			t.Logf("%s, standard output:\n%s\nstandard error:\n%s", p.name, tail(p.stdout.String()),
				tail(p.stderr.String()))
		}
	})
	return p
}

func tail(s string) string {
	const most = 20_000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}

// find waits for a match in what the process writes, and returns its groups.
func (p *process) find(t *testing.T, out *output, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	var groups []string
	if !out.await(testContext(t), func(text string) bool { groups = re.FindStringSubmatch(text); return groups != nil }) {
		t.Fatalf("%s: the output has no %q", p.name, pattern)
	}
	return groups
}

// stop sends a signal and returns the exit code: -1 if the signal killed the process.
func (p *process) stop(t *testing.T, s os.Signal) int {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	return p.wait(t)
}

func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-testContext(t).Done():
		t.Fatalf("%s does not end", p.name)
		return 0
	}
}

// result is the result of a command that has ended.
type result struct {
	out, err string
	code     int
}

// call runs a command to its end.
func call(t *testing.T, env vars, stdin, name string, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), name, args...)
	cmd.Env = env.environ(t.TempDir())
	cmd.Dir = t.TempDir()
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	r := result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
	if strings.Contains(r.err, "DATA RACE") {
		t.Errorf("%s %v:\n%s", name, args, r.err)
	}
	return r
}

// simulation is a `wxkeeper simulate` process.
type simulation struct {
	*process
	api, control string
}

func simulate(t *testing.T, args ...string) *simulation {
	t.Helper()
	p := start(t, nil, wxkeeper(t), append([]string{"simulate", "--listen=127.0.0.1:0", "--control=127.0.0.1:0"},
		args...)...)
	g := p.find(t, p.stdout, `^simulated WeChat ready: api=(http://127\.0\.0\.1:\d+) control=(http://127\.0\.0\.1:\d+)\n`)
	return &simulation{p, g[1], g[2]}
}

var client = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}

// fetch returns the body of an HTTP answer with any status.
func fetch(t *testing.T, method, url, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), `{"error":`) {
		t.Fatalf("%s %s %s: %s", method, url, body, b)
	}
	return string(b)
}

func (s *simulation) post(t *testing.T, path string, v any) string {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return fetch(t, http.MethodPost, s.control+path, string(body))
}

// calls returns the numbers of calls for an account, by endpoint.
func (s *simulation) calls(t *testing.T, appid string) map[string]int {
	t.Helper()
	var snapshot struct {
		Accounts map[string]map[string]struct{ Calls int }
	}
	if err := json.Unmarshal([]byte(fetch(t, http.MethodGet, s.control+"/calls", "")), &snapshot); err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for endpoint, c := range snapshot.Accounts[appid] {
		n[endpoint] = c.Calls
	}
	return n
}

// workerProcess is a `wxkeeper run` process.
type workerProcess struct {
	*process
	nats string // URL of NATS, or of the embedded server
	http string // URL of the pages
	env  vars   // with which the worker was started
}

// client is the environment of a service, as wxkeeper nats-env prints it.
func (k *workerProcess) client(t *testing.T) vars { t.Helper(); return k.natsEnv(t) }

// another is the environment of another worker.
func (k *workerProcess) another(t *testing.T) vars { t.Helper(); return k.natsEnv(t, "--worker") }

// exported matches a line of the output of wxkeeper nats-env.
var exported = regexp.MustCompile(`(?m)^export (\w+)='(.*)'$`)

func (k *workerProcess) natsEnv(t *testing.T, args ...string) vars {
	t.Helper()
	r := call(t, k.env, "", wxkeeper(t), append([]string{"nats-env"}, args...)...)
	env := vars{}
	for _, m := range exported.FindAllStringSubmatch(r.out, -1) {
		env[m[1]] = m[2]
	}
	if r.code != 0 || r.err != "" || env["NATS_URL"] != k.nats {
		t.Fatalf("nats-env: exit code %d, %s, %s", r.code, env["NATS_URL"], r.err)
	}
	return env
}

// run starts a worker, with an embedded server if env has no NATS_URL, and waits until it answers requests.
func run(t *testing.T, env vars) *workerProcess {
	t.Helper()
	env = vars{"WXKEEPER_NATS_LISTEN": "127.0.0.1:0", "WXKEEPER_HTTP_ADDR": "127.0.0.1:0",
		"WXKEEPER_LOG_FORMAT": "json"}.with(env)
	if env["NATS_URL"] == "" && env["WXKEEPER_DATA_DIR"] == "" {
		env["WXKEEPER_DATA_DIR"] = filepath.Join(t.TempDir(), "data")
	}
	k := &workerProcess{process: start(t, env, wxkeeper(t), "run"), nats: env["NATS_URL"], env: env}
	if k.nats == "" {
		k.nats = k.find(t, k.stderr, `"nats_url":"([^"]+)"`)[1]
	}
	k.http = k.find(t, k.stderr, `"msg":"wxkeeper started".*"http":"([^"]+)"`)[1]
	k.find(t, k.stderr, `"msg":"worker ready"`)
	return k
}

// awaitFresh waits until every credential on the worker's page is fresh.
func (k *workerProcess) awaitFresh(t *testing.T) {
	t.Helper()
	for ctx := testContext(t); ; {
		page := fetch(t, http.MethodGet, k.http+"/", "")
		if strings.Contains(page, "  fresh  ") &&
			!regexp.MustCompile(`  (expired|missing|failing|refreshing)  `).MatchString(page) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not all credentials are fresh:\n%s", page)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sameJSON compares two JSON objects by the values of their fields, and numbers by their digits.
func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var values [2]any
	for i, text := range []string{got, want} {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&values[i]); err != nil {
			t.Fatalf("not JSON: %v: %q", err, text)
		}
	}
	g, w := values[0].(map[string]any), values[1].(map[string]any)
	names := map[string]bool{}
	for name := range g {
		names[name] = true
	}
	for name := range w {
		names[name] = true
	}
	for name := range names {
		if fmt.Sprintf("%T %v", g[name], g[name]) != fmt.Sprintf("%T %v", w[name], w[name]) {
			t.Errorf("field %s: %v, want %v", name, g[name], w[name])
		}
	}
}
