package config

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/worker"
)

// patience is the limit for events that must happen: only a test that hangs reaches it.
const patience = 3 * time.Minute

// logText is a log that a test can read while it is written.
type logText struct {
	mu      sync.Mutex
	b       strings.Builder
	written chan struct{} // receives a value when there is more to read
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.written <- struct{}{}:
	default:
	}
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// await waits until text is logged.
func (l *logText) await(t *testing.T, text string) {
	t.Helper()
	for end := time.After(patience); !strings.Contains(l.String(), text); {
		select {
		case <-l.written:
		case <-end:
			t.Fatalf("%q is not logged: %s", text, l)
		}
	}
}

func TestFollowTakesWhatIsRightAndKeepsWhatWasWhereItIsWrong(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "accounts.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`[{"appid":"wx1","secret":"CANARY0123456789"}]`)
	c, err := Load(map[string]string{"WECHAT_ACCOUNTS_FILE": file})
	if err != nil {
		t.Fatal(err)
	}
	have, err := c.Accounts()
	if err != nil {
		t.Fatal(err)
	}
	log, reload := &logText{written: make(chan struct{}, 1)}, make(chan string)
	applied := make(chan []worker.Account, 4) // Follow may look at the file just before the test requests a reload
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Follow(ctx, have, reload, func(as []worker.Account) error {
			if len(as) == 3 {
				return errors.New("three are refused")
			}
			applied <- as
			return nil
		}, slog.New(slog.NewTextHandler(log, nil)))
	}()
	awaitApplied := func(want string) {
		t.Helper()
		select {
		case as := <-applied:
			if got := fmt.Sprint(as); !strings.Contains(got, want) {
				t.Errorf("applied %s, want %s", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%s is not applied; the log: %s", want, log)
		}
	}
	write(`[{"appid":"wx1","secret":"CANARY0123456789"},{"appid":"wx2","secret":"CANARY9876543210"}]`)
	awaitApplied("wx2") // without a request
	write(`[{"appid":"wx1","secret":"CANARY01234`)
	reload <- "SIGHUP"
	reload <- "SIGHUP"
	log.await(t, "this is not JSON")
	write(`[{"appid":"wx1","secret":"a"},{"appid":"wx2","secret":"b"},{"appid":"wx3","secret":"c"}]`)
	reload <- "SIGHUP"
	log.await(t, "three are refused")
	write(`[{"appid":"wx4","secret":"CANARY0123456789"}]`)
	reload <- "refused"
	awaitApplied("wx4")
	cancel()
	<-done
	if n := strings.Count(log.String(), "this is not JSON"); n != 1 {
		t.Errorf("the same error is logged %d times", n)
	}
	if strings.Contains(log.String(), "CANARY") {
		t.Errorf("the log shows a secret: %s", log)
	}
}

// The secret file of a numbered account is followed like the secret file of the single account.
func TestFollowLooksAtTheSecretFilesOfNumberedAccounts(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("CANARY-old"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(map[string]string{
		"WECHAT_ACCOUNTS_0_APPID": "wx0", "WECHAT_ACCOUNTS_0_SECRET": "CANARY-0", "WECHAT_ACCOUNTS_1_APPID": "wx1",
		"WECHAT_ACCOUNTS_1_SECRET_FILE": file,
	})
	if err != nil {
		t.Fatal(err)
	}
	before := c.fileStates()
	if err := os.WriteFile(file, []byte("CANARY-newer"), 0o600); err != nil {
		t.Fatal(err)
	}
	if cmp.Equal(before, c.fileStates(), cmp.AllowUnexported(fileState{})) {
		t.Error("the change is not seen")
	}
	as, err := c.Accounts()
	if err != nil {
		t.Fatal(err)
	}
	if s := as[1].Secret.Reveal(); s != "CANARY-newer" {
		t.Errorf("read again: %q", s)
	}
}
