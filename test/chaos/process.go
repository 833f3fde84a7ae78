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

// process is one place in the house, in which one process after another lives.
type process struct {
	name string
	dir  string // of its logs
	file string
	args []string
	env  []string

	mu     sync.Mutex
	life   *life
	lives  int
	frozen bool
}

// life is one of its processes.
type life struct {
	cmd   *exec.Cmd
	began time.Time
	ended chan struct{}
	http  chan string // told once: where it serves its pages
	wants bool        // it was told to end, or killed
	hard  bool        // it was killed
}

var (
	httpInLog = regexp.MustCompile(`"msg":"wxkeeper started".*"http":"([^"]+)"`)
	disaster  = regexp.MustCompile(`^panic:|^fatal error:|DATA RACE|"msg":"panic`)
)

// start starts the process, unless it runs. oops is told of what no process may do: end by itself, panic.
func (p *process) start(oops func(string)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life != nil {
		return nil
	}
	p.lives++
	p.frozen = false
	log, err := os.Create(filepath.Join(p.dir, fmt.Sprintf("%s.%03d.log", p.name, p.lives)))
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
		return fmt.Errorf("%s: %w", p.name, err)
	}
	l := &life{cmd: cmd, began: time.Now(), ended: make(chan struct{}), http: make(chan string, 1)}
	p.life = l
	go func() {
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadString('\n')
			_, _ = log.WriteString(line)
			if g := httpInLog.FindStringSubmatch(line); g != nil {
				select {
				case l.http <- g[1]:
				default:
				}
			}
			if disaster.MatchString(line) {
				oops(fmt.Sprintf("%s: %s", p.name, strings.TrimSpace(line)))
			}
			if err != nil {
				break
			}
		}
		err := cmd.Wait()
		log.Close()
		p.mu.Lock()
		wanted := l.wants
		p.mu.Unlock()
		if !wanted {
			oops(fmt.Sprintf("%s has ended by itself: %v", p.name, err))
		}
		close(l.ended)
	}()
	return nil
}

// end sends a signal that ends the process, and returns when it has ended. One that does not end in time is a finding.
func (p *process) end(s syscall.Signal, within time.Duration) error {
	p.mu.Lock()
	l := p.life
	if l == nil {
		p.mu.Unlock()
		return nil
	}
	l.wants, l.hard = true, l.hard || s == syscall.SIGKILL
	p.mu.Unlock()
	if err := l.cmd.Process.Signal(s); err != nil {
		return err
	}
	if s != syscall.SIGKILL {
		p.thaw()
	}
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.life == l { // otherwise another fault has ended it and started the next
			p.life = nil
		}
	}()
	select {
	case <-l.ended:
		p.mu.Lock()
		defer p.mu.Unlock()
		if l.hard { // by another fault, while it was stopping
			return nil
		}
		// One that has just begun does not yet listen to signals.
		if code := l.cmd.ProcessState.ExitCode(); s == syscall.SIGTERM && code != 0 && p.graceful() && time.Since(l.began) > within/10 {
			return fmt.Errorf("%s: exit code %d after SIGTERM", p.name, code)
		}
		return nil
	case <-time.After(within):
		_ = l.cmd.Process.Kill()
		<-l.ended
		return fmt.Errorf("%s did not end within %s of %s", p.name, within, s)
	}
}

// graceful says whether SIGTERM must end in exit code 0. nats-server has its own way.
func (p *process) graceful() bool { return !strings.HasPrefix(p.name, "nats") }

func (p *process) freeze() { p.signal(syscall.SIGSTOP, true) }
func (p *process) thaw()   { p.signal(syscall.SIGCONT, false) }

func (p *process) signal(s syscall.Signal, frozen bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life != nil && p.frozen != frozen {
		_ = p.life.cmd.Process.Signal(s)
		p.frozen = frozen
	}
}

// page is where the living process serves its pages, as soon as it does.
func (p *process) page(within time.Duration) (string, error) {
	p.mu.Lock()
	l := p.life
	p.mu.Unlock()
	if l == nil {
		return "", fmt.Errorf("%s does not run", p.name)
	}
	select {
	case url := <-l.http:
		l.http <- url
		return url, nil
	case <-time.After(within):
		return "", fmt.Errorf("%s has not started within %s", p.name, within)
	}
}
