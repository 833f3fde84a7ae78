//go:build unix

package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// exitLimit is how long a process may take to exit after a signal. It is for processes that hang.
const exitLimit = 2 * time.Minute

// process is a program of the stack that can be ended and started again; it runs once at a time.
type process struct {
	name string
	dir  string // of its logs
	file string
	args []string
	env  []string

	mu      sync.Mutex
	current *instance // nil: it does not run
	starts  int
	frozen  bool
}

// instance is one run of a process.
type instance struct {
	cmd    *exec.Cmd
	began  time.Time
	exited chan struct{}
	http   chan string // receives once the URL of its pages
	ended  bool        // chaos has sent a signal that ends it
	killed bool        // one of these signals was SIGKILL
}

var (
	httpInLog = regexp.MustCompile(`"msg":"wxkeeper started".*"http":"([^"]+)"`)
	crash     = regexp.MustCompile(`^panic:|^fatal error:|DATA RACE|"msg":"panic`)
)

// start starts the process, unless it runs. It calls fail if the process exits without a signal of chaos, or panics.
func (p *process) start(fail func(string)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil {
		return nil
	}
	p.starts++
	p.frozen = false
	log, err := os.Create(filepath.Join(p.dir, fmt.Sprintf("%s.%03d.log", p.name, p.starts)))
	if err != nil {
		return err
	}
	cmd := exec.Command(p.file, p.args...) //nolint:gosec // the binaries of the command line
	cmd.Env = p.env
	cmd.Dir = p.dir
	out, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	cmd.Stdout = cmd.Stderr
	if err := cmd.Start(); err != nil {
		log.Close()
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	in := &instance{cmd: cmd, began: time.Now(), exited: make(chan struct{}), http: make(chan string, 1)}
	p.current = in
	go func() {
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadString('\n')
			_, _ = log.WriteString(line)
			if g := httpInLog.FindStringSubmatch(line); g != nil {
				select {
				case in.http <- g[1]:
				default:
				}
			}
			if crash.MatchString(line) {
				fail(fmt.Sprintf("%s: %s", p.name, strings.TrimSpace(line)))
			}
			if err != nil {
				break
			}
		}
		err := cmd.Wait()
		log.Close()
		p.mu.Lock()
		expected := in.ended
		p.mu.Unlock()
		if !expected {
			fail(fmt.Sprintf("%s exited without a signal: %v", p.name, err))
		}
		close(in.exited)
	}()
	return nil
}

// end sends a signal that ends the process, and returns after its exit. It returns an error if the process does not
// exit within exitLimit, or exits with an error after SIGTERM.
func (p *process) end(s syscall.Signal) error {
	p.mu.Lock()
	in := p.current
	if in == nil {
		p.mu.Unlock()
		return nil
	}
	in.ended, in.killed = true, in.killed || s == syscall.SIGKILL
	p.mu.Unlock()
	if err := in.cmd.Process.Signal(s); err != nil {
		return err
	}
	if s != syscall.SIGKILL {
		p.thaw()
	}
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.current == in { // another fault may have ended it, and started the next instance
			p.current = nil
		}
	}()
	select {
	case <-in.exited:
		p.mu.Lock()
		defer p.mu.Unlock()
		if in.killed { // another fault killed it while it was stopping
			return nil
		}
		const startup = 3 * time.Second // until a new process handles signals
		code := in.cmd.ProcessState.ExitCode()
		if s == syscall.SIGTERM && code != 0 && p.graceful() && time.Since(in.began) > startup {
			return fmt.Errorf("%s: exit code %d after SIGTERM", p.name, code)
		}
		return nil
	case <-time.After(exitLimit):
		_ = in.cmd.Process.Kill()
		<-in.exited
		return fmt.Errorf("%s did not exit within %s after %s", p.name, exitLimit, s)
	}
}

// graceful returns whether SIGTERM must give exit code 0. nats-server returns another one.
func (p *process) graceful() bool { return !strings.HasPrefix(p.name, "nats") }

func (p *process) freeze() { p.signal(syscall.SIGSTOP, true) }
func (p *process) thaw()   { p.signal(syscall.SIGCONT, false) }

func (p *process) signal(s syscall.Signal, frozen bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil && p.frozen != frozen {
		_ = p.current.cmd.Process.Signal(s)
		p.frozen = frozen
	}
}

// pageURL returns the URL of the pages that the process serves. It waits until the process has logged the URL.
func (p *process) pageURL(within time.Duration) (string, error) {
	p.mu.Lock()
	in := p.current
	p.mu.Unlock()
	if in == nil {
		return "", fmt.Errorf("%s does not run", p.name)
	}
	select {
	case url := <-in.http:
		in.http <- url
		return url, nil
	case <-time.After(within):
		return "", fmt.Errorf("%s has not started within %s", p.name, within)
	}
}
