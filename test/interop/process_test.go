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

// patience bounds waits for events that must come; it is not a claim about speed.
const patience = 60 * time.Second

// program is a running example.
type program struct {
	t     *testing.T
	stdin io.WriteCloser
	ended chan struct{}
	err   error // how it ended

	mu      sync.Mutex
	text    bytes.Buffer  // what it has written, to standard output and error
	changed chan struct{} // closed at the next write
	read    int           // how much of it find has used up; of the test's goroutine
}

func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
	return p.text.Write(b)
}

func (p *program) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// begin starts a program, which ends with its test at the latest.
func begin(t *testing.T, command []string, args ...string) *program {
	t.Helper()
	cmd := exec.Command(command[0], append(command[1:], args...)...)
	cmd.Env = append(cmd.Environ(), "NATS_USER="+service, "NATS_PASSWORD="+passphrase, "NATS_INBOX_PREFIX="+permissions.Inbox(service))
	p := &program{t: t, ended: make(chan struct{}), changed: make(chan struct{})}
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
		defer close(p.ended)
		p.err = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-p.ended
		if t.Failed() || strings.Contains(p.String(), "DATA RACE") {
			t.Errorf("%s %s wrote:\n%s", strings.Join(command, " "), strings.Join(args, " "), p)
		}
	})
	return p
}

// says types a line.
func (p *program) says(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

// find waits for a match of a line, after the last one that was found, and returns its groups.
func (p *program) find(pattern string) []string {
	p.t.Helper()
	return p.await(pattern, &p.read)
}

// has waits for a match anywhere: of lines that may come in any order.
func (p *program) has(pattern string) []string {
	p.t.Helper()
	return p.await(pattern, new(int))
}

// await waits for a match after from, which it moves behind it.
func (p *program) await(pattern string, from *int) []string {
	p.t.Helper()
	re := regexp.MustCompile("(?m)^" + pattern + "$")
	end := time.After(patience)
	for {
		p.mu.Lock()
		text, changed := p.text.String()[*from:], p.changed
		p.mu.Unlock()
		if at := re.FindStringIndex(text); at != nil {
			*from += at[1]
			return re.FindStringSubmatch(text)
		}
		select {
		case <-changed:
		case <-end:
			p.t.Fatalf("%q did not come", pattern)
		}
	}
}

// asks types a line and waits for the answer.
func (p *program) asks(line, answer string) {
	p.t.Helper()
	p.says(line)
	p.find(answer)
}

// ends closes the standard input: that is how a program is told to stop.
func (p *program) ends() {
	p.t.Helper()
	_ = p.stdin.Close()
	select {
	case <-p.ended:
		if p.err != nil {
			p.t.Errorf("it ends with %v", p.err)
		}
	case <-time.After(patience):
		p.t.Fatal("it does not end")
	}
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
