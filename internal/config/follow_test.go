package config

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds waits for events that must come; it is not a claim about speed.
const patience = 30 * time.Second

// notes is a log that a test can read while it is written.
type notes struct {
	mu      sync.Mutex
	b       strings.Builder
	written chan struct{} // tells that there is more to read
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case n.written <- struct{}{}:
	default:
	}
	return n.b.Write(p)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
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
	log, asked := &notes{written: make(chan struct{}, 1)}, make(chan string)
	applied := make(chan []Account, 4) // a look may come by itself while this test is about to ask
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Follow(ctx, have, asked, func(as []Account) error {
			if len(as) == 3 {
				return errors.New("three are refused")
			}
			applied <- as
			return nil
		}, slog.New(slog.NewTextHandler(log, nil)))
	}()
	await := func(want string) {
		t.Helper()
		select {
		case as := <-applied:
			if got := fmt.Sprint(as); !strings.Contains(got, want) {
				t.Errorf("applied %s, want %s", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("never applied; the log says %s", log)
		}
	}
	said := func(what string) {
		t.Helper()
		for end := time.After(patience); !strings.Contains(log.String(), what); {
			select {
			case <-log.written:
			case <-end:
				t.Fatalf("the log does not say %q: %s", what, log)
			}
		}
	}
	write(`[{"appid":"wx1","secret":"CANARY0123456789"},{"appid":"wx2","secret":"CANARY9876543210"}]`)
	await("wx2") // by itself
	write(`[{"appid":"wx1","secret":"CANARY01234`)
	asked <- "SIGHUP"
	asked <- "SIGHUP"
	said("this is not JSON")
	write(`[{"appid":"wx1","secret":"a"},{"appid":"wx2","secret":"b"},{"appid":"wx3","secret":"c"}]`)
	asked <- "SIGHUP"
	said("three are refused")
	write(`[{"appid":"wx4","secret":"CANARY0123456789"}]`)
	asked <- "refused"
	await("wx4")
	cancel()
	<-done
	if n := strings.Count(log.String(), "this is not JSON"); n != 1 {
		t.Errorf("the same fault is said %d times", n)
	}
	if strings.Contains(log.String(), "CANARY") {
		t.Errorf("a secret shows: %s", log)
	}
}

// A numbered account's secret file is followed like that of the single account.
func TestFollowLooksAtTheSecretFilesOfNumberedAccounts(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("CANARY-old"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(map[string]string{
		"WECHAT_ACCOUNTS_0_APPID": "wx0", "WECHAT_ACCOUNTS_0_SECRET": "CANARY-0", "WECHAT_ACCOUNTS_1_APPID": "wx1", "WECHAT_ACCOUNTS_1_SECRET_FILE": file,
	})
	if err != nil {
		t.Fatal(err)
	}
	before := c.marks()
	if err := os.WriteFile(file, []byte("CANARY-newer"), 0o600); err != nil {
		t.Fatal(err)
	}
	if reflect.DeepEqual(before, c.marks()) {
		t.Error("the change leaves no mark")
	}
	if as, err := c.Accounts(); err != nil || as[1].Secret != "CANARY-newer" {
		t.Errorf("read again: %v, %v", as, err)
	}
}
