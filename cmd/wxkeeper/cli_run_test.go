//go:build cli

package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRunPrintsWhyItCannotStart(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	base := vars{"WECHAT_APPID": appid, "WECHAT_SECRET": secret, "WECHAT_API_URL": "http://127.0.0.1:1",
		"WXKEEPER_HTTP_ADDR": "none", "WXKEEPER_NATS_LISTEN": "127.0.0.1:0"}
	for _, tt := range []struct {
		name, want string
		env        vars
	}{
		{"HTTP address in use", "another process listens on " + l.Addr().String() + ": set WXKEEPER_HTTP_ADDR",
			vars{"WXKEEPER_HTTP_ADDR": l.Addr().String()}},
		{"HTTP address of another machine", "WXKEEPER_HTTP_ADDR", vars{"WXKEEPER_HTTP_ADDR": "192.0.2.1:80"}},
		{"NATS address in use", "NATS_URL=nats://" + l.Addr().String(),
			vars{"WXKEEPER_NATS_LISTEN": l.Addr().String()}},
	} {
		r := call(t, base.with(tt.env), "", wxkeeper(t), "run")
		if r.code != exitFailure || r.out != "" {
			t.Errorf("%s: exit code %d, standard output %q", tt.name, r.code, r.out)
		}
		if strings.Count(r.err, "\n") != 1 || !strings.HasPrefix(r.err, "wxkeeper: ") ||
			!strings.Contains(r.err, tt.want) {
			t.Errorf("%s: want one line with %q: %q", tt.name, tt.want, r.err)
		}
	}
	sim := call(t, nil, "", wxkeeper(t), "simulate", "--listen="+l.Addr().String())
	if sim.code != 1 || !strings.HasPrefix(sim.err, "wxkeeper: --listen: ") {
		t.Errorf("simulate: %+v", sim)
	}
}

// If nats.go closes the connection permanently, the worker must end, so that a supervisor starts it again.
func TestRunEndsWithItsConnection(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	serving := make(chan struct{})
	go func() {
		defer close(serving)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprint(c, `INFO {"server_id":"x","server_name":"x","version":"2.15.2","proto":1,"headers":true,"max_payload":1048576,"jetstream":true}`+"\r\n")
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			if strings.Contains(string(buf[:n]), "PING\r\n") {
				fmt.Fprint(c, "PONG\r\n")
			}
			if strings.Contains(string(buf[:n]), "$JS.API.") { // the worker is running
				fmt.Fprint(c, "-ERR 'This Server Wants Nobody'\r\n")
			}
		}
	}()
	k := start(t, vars{
		"WECHAT_APPID": appid, "WECHAT_SECRET": secret, "WECHAT_API_URL": "http://127.0.0.1:1",
		"WXKEEPER_HTTP_ADDR": "none", "NATS_URL": "nats://" + l.Addr().String(),
	}, wxkeeper(t), "run")
	if code := k.wait(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	lines := strings.Split(strings.TrimSpace(k.stderr.String()), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "wxkeeper: the NATS connection was closed") ||
		!strings.Contains(last, "This Server Wants Nobody") {
		t.Errorf("the last line is %q", last)
	}
	<-serving
}

// While NATS is away, a worker waits for it: it is alive, not ready, and stops at a signal.
func TestRunWaitsForNATS(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close() // the address is free now; a fixed one, because a worker logs the address only after its start
	k := start(t, vars{
		"WECHAT_APPID": appid, "WECHAT_SECRET": secret, "WECHAT_API_URL": "http://127.0.0.1:1",
		"WXKEEPER_HTTP_ADDR": addr, "NATS_URL": "nats://127.0.0.1:1",
	}, wxkeeper(t), "run")
	k.find(t, k.stderr, `^\{[^\n]*"msg":"wxkeeper starts","version":"[^"]+","accounts":1,"http":"http://`+addr+`","nats":"nats://127.0.0.1:1"\}\n`)
	k.find(t, k.stderr, `"msg":"NATS cannot be reached, trying again","url":"nats://127.0.0.1:1","error":"connection refused","advice":"nothing listens there`)
	if got := fetch(t, http.MethodGet, "http://"+addr+"/healthz", ""); got != "ok\n" {
		t.Errorf("/healthz: %q", got)
	}
	if got := fetch(t, http.MethodGet, "http://"+addr+"/readyz", ""); !strings.Contains(got,
		"NATS is not connected yet") {
		t.Errorf("/readyz: %q", got)
	}
	if r := call(t, vars{"WXKEEPER_HTTP_ADDR": addr}, "", wxkeeper(t), "health"); r.code != 1 ||
		!strings.Contains(r.err, "503 starting: NATS is not connected yet") {
		t.Errorf("health: %+v", r)
	}
	if code := k.stop(t, syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(k.stderr.String(), `"msg":"wxkeeper stopped before NATS was reached"`) {
		t.Errorf("the stop is not logged:\n%s", k.stderr)
	}
}

func TestRunWarnsOfProbableMistakes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	k := start(t, vars{
		"WECHAT_APPID": appid, "WECHAT_SECRET_FILE": file, "WECHAT_API_URL": "http://127.0.0.1:1",
		"WXKEEPER_HTTP_ADDR": "none", "NATS_URL": "nats://127.0.0.1:1",
		"WXKEEPER_DATADIR": "elsewhere", "WECHAT_PAY_KEY": canary,
	}, wxkeeper(t), "run")
	k.find(t, k.stderr, `"level":"WARN","msg":"unknown variable has no effect, see wxkeeper env","variable":"WECHAT_PAY_KEY"\}`)
	k.find(t, k.stderr, `"variable":"WXKEEPER_DATADIR","nearest":"WXKEEPER_DATA_DIR"\}`)
	k.find(t, k.stderr, `"level":"WARN","msg":"other users of this machine can read a file with a secret: chmod 600","variable":"WECHAT_SECRET_FILE","file":"`+file+`","mode":"0644"\}`)
	if code := k.stop(t, syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if strings.Contains(k.stderr.String(), canary) {
		t.Errorf("the log shows the value of a variable:\n%s", k.stderr)
	}
}

// `wxkeeper demo | head`: when the reader ends, the demo ends too and removes its files.
func TestDemoEndsWithItsReader(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(testContext(t), wxkeeper(t), "demo", "--life=6s", "--listen=127.0.0.1:0")
	cmd.Env = vars{}.environ(t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dir := ""
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		if g := regexp.MustCompile(`data in (.*) \(removed at the end\)`).FindStringSubmatch(lines.Text()); g != nil {
			dir = g[1]
		}
	}
	if dir == "" {
		t.Fatal("the demo does not name its directory")
	}
	_ = out.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

// The first signal requests a clean stop, which waits for requests in flight. The second ends the process at once.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--account="+appid+":"+secret)
	k := run(t, sim.account(t).with(vars{"WXKEEPER_RESOLVE_TIMEOUT": "60s", "WECHAT_HTTP_TIMEOUT": "10s"}))
	k.awaitFresh(t)
	sim.post(t, "/faults", map[string]any{"endpoint": "tickettocode", "hang": true})
	asking := start(t, k.client(t), wxkeeper(t), "resolve", "--timeout=60s", sampleOpenID, sampleTicket)
	for ctx := testContext(t); sim.calls(t, appid)["tickettocode"] == 0; {
		select {
		case <-ctx.Done():
			t.Fatal("the resolution did not reach WeChat")
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err := k.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	k.find(t, k.stderr, `"msg":"worker stopping"`)
	if code := k.stop(t, syscall.SIGTERM); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	if code := asking.stop(t, syscall.SIGINT); code != exitInterrupted ||
		!strings.Contains(asking.stderr.String(), "interrupted") {
		t.Errorf("an interrupted request: exit code %d", code)
	}
	// The stop of the simulation is clean although a call hangs, or its client has just gone.
	if code := sim.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("the simulation: exit code %d", code)
	}
}

// A changed accounts file is read without a restart, after SIGHUP and after a change; a broken file changes nothing.
func TestAccountsFileIsReadAgain(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--account="+appid+":"+secret, "--account=wx-second:"+secret)
	file := filepath.Join(t.TempDir(), "accounts.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first := `{"appid":"` + appid + `","secret":"` + secret + `"}`
	second := `{"appid":"wx-second","secret":"` + secret + `","tickets":[]}`
	write("[" + first + "]")
	k := run(t, vars{"WECHAT_API_URL": sim.api, "WECHAT_ACCOUNTS_FILE": file})
	write("[" + first + ",")
	if err := k.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	k.find(t, k.stderr, `the previous accounts stay in use`)
	write("[" + first + "," + second + "]")
	k.find(t, k.stderr, `accounts read again`)
	k.find(t, k.stderr, `credential published.*wx-second`)
	if code := k.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A worker removes the secret from its environment at its start, and still has it when it reads its accounts again.
func TestSecretOfTheEnvironmentOutlivesAReload(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--account="+appid+":"+secret)
	k := run(t, vars{"WECHAT_API_URL": sim.api, "WECHAT_APPID": appid, "WECHAT_SECRET": secret,
		"WXKEEPER_LOG_LEVEL": "debug"})
	if err := k.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	k.find(t, k.stderr, `"msg":"accounts read again, nothing has changed","why":"SIGHUP"`)
	if runtime.GOOS == "linux" {
		// Only root may read it now.
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", k.cmd.Process.Pid))
		if root := os.Geteuid() == 0; root != (err == nil) || strings.Contains(string(environ), secret) {
			t.Errorf("the environment of the process can be read, %v, or has the secret", err)
		}
	}
	if code := k.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
