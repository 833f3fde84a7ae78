//go:build interop

package interop

import (
	"bytes"
	"context"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/permissions"
)

// hang limits the wait for an event that always comes. It says nothing about speed.
const hang = 3 * time.Minute

// program is a running example.
type program struct {
	t      *testing.T
	stdin  io.WriteCloser
	exited chan struct{}
	err    error // of its exit

	mu       sync.Mutex
	output   bytes.Buffer  // standard output and standard error
	changed  chan struct{} // closed at the next write
	position int           // end of the last match of expect; only the test's goroutine uses it
}

func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
	return p.output.Write(b)
}

func (p *program) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// start starts a program. It is killed at the end of the test, unless it has exited.
func start(t *testing.T, command []string, args ...string) *program {
	t.Helper()
	cmd := exec.Command(command[0], append(command[1:], args...)...)
	cmd.Env = append(cmd.Environ(),
		"NATS_USER="+service, "NATS_PASSWORD="+passphrase, "NATS_INBOX_PREFIX="+permissions.Inbox(service))
	p := &program{t: t, exited: make(chan struct{}), changed: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p, p
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = stdin
	go func() {
		defer close(p.exited)
		p.err = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // an error: it has exited
		<-p.exited
		if t.Failed() || strings.Contains(p.String(), "DATA RACE") {
			t.Errorf("%s %s printed:\n%s", strings.Join(command, " "), strings.Join(args, " "), p)
		}
	})
	return p
}

// send writes a line to standard input.
func (p *program) send(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

// expect waits for a line that matches, after the line that the last call found, and returns the groups of the match.
func (p *program) expect(pattern string) []string {
	p.t.Helper()
	return p.await(pattern, &p.position)
}

// expectAnywhere waits for a line that matches, anywhere in the output: for lines whose order may vary.
func (p *program) expectAnywhere(pattern string) []string {
	p.t.Helper()
	return p.await(pattern, new(int))
}

// await waits for a match after a position, and moves the position to the end of the match.
func (p *program) await(pattern string, position *int) []string {
	p.t.Helper()
	re := regexp.MustCompile("(?m)^" + pattern + "$")
	end := time.After(hang)
	for {
		p.mu.Lock()
		text, changed := p.output.String()[*position:], p.changed
		p.mu.Unlock()
		if at := re.FindStringIndex(text); at != nil {
			*position += at[1]
			return re.FindStringSubmatch(text)
		}
		select {
		case <-changed:
		case <-end:
			p.t.Fatalf("the program does not print %q", pattern)
		}
	}
}

// ask writes a line to standard input, and waits for the answer.
func (p *program) ask(line, answer string) {
	p.t.Helper()
	p.send(line)
	p.expect(answer)
}

// stop closes standard input, which makes the program exit.
func (p *program) stop() {
	p.t.Helper()
	_ = p.stdin.Close()
	select {
	case <-p.exited:
		if p.err != nil {
			p.t.Errorf("the program exits with %v", p.err)
		}
	case <-time.After(hang):
		p.t.Fatal("the program does not exit")
	}
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	t.Cleanup(cancel)
	return ctx
}
