package proc

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// stopLimit is how long a process may take to exit after SIGTERM. After it comes SIGKILL.
const stopLimit = 20 * time.Second

// Config describes a process.
type Config struct {
	Name string // of its log
	File string // program
	Args []string
	Env  []string
	Dir  string // of its log
	// Line is called with each line of its standard output, from one goroutine. nil: the lines go to the log.
	Line func(string)
}

// Process is a process that runs. Its standard input stays open until Stop, so that a program of ours ends with its
// parent.
type Process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	exited chan struct{}
	end    sync.Once
}

// Start starts a process. Its standard error goes to DIR/NAME.log.
func Start(c Config) (*Process, error) {
	log, err := os.OpenFile(filepath.Join(c.Dir, c.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(c.File, c.Args...) //nolint:gosec // the programs of the command line
	cmd.Env, cmd.Dir, cmd.Stderr = c.Env, c.Dir, log
	if cmd.Env == nil {
		cmd.Env = []string{} // nothing of this process's own environment
	}
	p := &Process{cmd: cmd, exited: make(chan struct{})}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		log.Close()
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if c.Line != nil {
				c.Line(lines.Text())
			} else {
				_, _ = fmt.Fprintln(log, lines.Text())
			}
		}
		_ = cmd.Wait() // callers notice an unexpected exit: the process no longer answers
		log.Close()
		close(p.exited)
	}()
	return p, nil
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the process has exited.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Send writes a line to its standard input.
func (p *Process) Send(line string) error {
	_, err := io.WriteString(p.stdin, line+"\n")
	return err
}

// Kill sends SIGKILL and waits for the exit.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // an error: it has exited
	<-p.exited
}

// Stop closes the standard input, sends SIGTERM and waits for the exit, after stopLimit with SIGKILL.
func (p *Process) Stop() {
	p.end.Do(func() {
		_ = p.stdin.Close()
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.exited:
		case <-time.After(stopLimit):
			p.Kill()
		}
	})
}

// Await calls try until it returns no error, for at most the limit.
func Await(ctx context.Context, what string, limit time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		trying, done := context.WithTimeout(ctx, 5*time.Second)
		err := try(trying)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait %s for %s: %w", limit, what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
