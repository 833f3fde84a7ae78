package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// net/http logs the beginning of what a server sends after its answer, to the standard log. A relay that gives a wrong
// length would put a part of an answer there.
func TestNoPartOfAnAnswerReachesTheStandardLog(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				const answer = `{"access_token":"` + canary + `","expires_in":7200}`
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s", len(answer), answer, answer)
				_, _ = io.Copy(io.Discard, conn)
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	script := filepath.Join(t.TempDir(), "check.txtar")
	const lines = "exits 0 wxkeeper check\n! stdout " + canary + "\n! stderr .\n"
	if err := os.WriteFile(script, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Files: []string{script},
		Setup: func(env *testscript.Env) error {
			for name, value := range map[string]string{
				"WECHAT_APPID": "wx1", "WECHAT_SECRET": canary, "WECHAT_API_URL": "http://" + l.Addr().String(),
				"WECHAT_TICKETS":       "none",
				"WXKEEPER_NATS_LISTEN": "127.0.0.1:0", "WXKEEPER_HTTP_ADDR": "none", "GORACE": "atexit_sleep_ms=10",
			} {
				env.Setenv(name, value)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}
