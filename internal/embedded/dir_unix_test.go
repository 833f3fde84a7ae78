//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package embedded_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/internal/embedded"
)

// diary is a file that another program has written.
const diary = "S3CRET: what nobody may read or destroy\n"

func writeFile(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	chmod(t, file, mode)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// readFile returns the content of a file, or "" if there is none.
func readFile(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// Somebody has put something else in the place of a file of the data directory: the server does not start, and what is
// there stays as it is.
func TestFilesThatAreNotOursAreNeitherUsedNorChanged(t *testing.T) {
	t.Parallel()
	written := func(file string) error { return os.WriteFile(file, []byte(diary), 0o600) }
	plants := map[string]func(file, target string) error{
		"a symbolic link": func(file, target string) error {
			return errors.Join(written(target), os.Symlink(target, file))
		},
		"a symbolic link to nothing": func(file, target string) error { return os.Symlink(target, file) },
		"a hard link": func(file, target string) error {
			return errors.Join(written(target), os.Link(target, file))
		},
		"a named pipe": func(file, _ string) error { return syscall.Mkfifo(file, 0o600) },
		"a directory":  func(file, _ string) error { return os.Mkdir(file, 0o700) },
	}
	if os.Geteuid() == 0 { // only root can give a file away
		plants["a file of another user"] = func(file, target string) error {
			return errors.Join(written(file), os.Chown(file, 65534, 65534),
				os.Symlink(file, target)) // so that the test reads it again
		}
	}
	for _, name := range []string{"wxkeeper.lock", "nats.token", "nats.worker.token"} {
		for what, plant := range plants {
			t.Run(name+" is "+what, func(t *testing.T) {
				t.Parallel()
				dir, target := t.TempDir(), filepath.Join(t.TempDir(), "diary")
				chmod(t, dir, 0o700)
				file := filepath.Join(dir, name)
				must(t, plant(file, target))
				before := readFile(t, target)
				cfg := embedded.Config{Listen: "127.0.0.1:0", DataDir: dir}
				if got := refused(t, cfg, file); got != "WXKEEPER_DATA_DIR" {
					t.Errorf("the error is about %q", got)
				}
				if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), file) {
					t.Errorf("Check: %v", err)
				}
				if d := cmp.Diff(before, readFile(t, target)); d != "" {
					t.Errorf("the file was changed: -before +after\n%s", d)
				}
			})
		}
	}
}

func TestBrokenTokenFileIsAnErrorWithAdvice(t *testing.T) {
	t.Parallel()
	token := strings.Repeat("A", 51) + "Q\n"
	for what, tt := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"empty":            {"", 0o600, "has no token of wxkeeper"},
		"cut":              {token[:20], 0o600, "has no token of wxkeeper"},
		"another file":     {"S3CRET\n", 0o600, "has no token of wxkeeper"},
		"two lines":        {token + token, 0o600, "has no token of wxkeeper"},
		"readable by all":  {token, 0o644, "mode 0644"},
		"writable by some": {token, 0o620, "mode 0620"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			chmod(t, dir, 0o700)
			file := filepath.Join(dir, "nats.worker.token")
			writeFile(t, file, tt.text, tt.mode)
			refused(t, embedded.Config{Listen: "127.0.0.1:0", DataDir: dir}, file, tt.want, "delete it")
			if d := cmp.Diff(tt.text, readFile(t, file)); d != "" {
				t.Errorf("the file was changed: -before +after\n%s", d)
			}
		})
	}
}

func TestDirectoryOfAnotherUserIsRefused(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	const nobody = 65534
	theirs := filepath.Join(t.TempDir(), "data")
	must(t, os.Mkdir(theirs, 0o700))
	must(t, os.Chown(theirs, nobody, nobody))
	cfg := embedded.Config{Listen: "127.0.0.1:0", DataDir: theirs}
	refused(t, cfg, "WXKEEPER_DATA_DIR", theirs, "another user")
	if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), "another user") {
		t.Errorf("Check: %v", err)
	}

	// A directory that once was open to others: nats-server would follow the link.
	planted := t.TempDir()
	chmod(t, planted, 0o700)
	store := filepath.Join(planted, "jetstream")
	must(t, os.Symlink(theirs, store))
	must(t, os.Lchown(store, nobody, nobody))
	cfg.DataDir = planted
	refused(t, cfg, "WXKEEPER_DATA_DIR", store, "another user")
	if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), store) {
		t.Errorf("Check: %v", err)
	}

	ours, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(ours, link))
	start(t, embedded.Config{DataDir: link}).Shutdown() // a link of this user
	must(t, os.Lchown(link, nobody, nobody))
	cfg.DataDir = link
	refused(t, cfg, "WXKEEPER_DATA_DIR", link, "symbolic link", "another user")
	if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("Check: %v", err)
	}
}

func TestTokensAreDifferentClosedAndLast(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	read := func() (tokens [2]string) {
		t.Helper()
		for i, name := range []string{"nats.token", "nats.worker.token"} {
			file := filepath.Join(dir, name)
			fi, err := os.Stat(file)
			must(t, err)
			if mode := fi.Mode(); mode != 0o600 {
				t.Errorf("%s has mode %v", name, mode)
			}
			tokens[i] = readFile(t, file)
			if len(tokens[i]) != 53 {
				t.Errorf("%s has %d characters", name, len(tokens[i]))
			}
		}
		return tokens
	}
	start(t, embedded.Config{DataDir: dir}).Shutdown()
	first := read()
	if first[0] == first[1] {
		t.Error("both accounts have one token")
	}
	start(t, embedded.Config{DataDir: dir}).Shutdown()
	if first != read() {
		t.Error("a restart changes the tokens")
	}
	must(t, os.Remove(filepath.Join(dir, "nats.token"))) // to replace it
	start(t, embedded.Config{DataDir: dir}).Shutdown()
	if next := read(); next[0] == first[0] || next[1] != first[1] {
		t.Error("a deleted token was not replaced, or both were")
	}
}

// A token is only for the server that has locked the directory, and not for another process at the same address.
func TestTokenIsFoundOnlyWhileTheServerRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	found := func(account embedded.Account) *embedded.Found {
		t.Helper()
		f, err := embedded.Find(dir, account)
		must(t, err)
		return f
	}
	if f := found(embedded.Consumers); f != nil {
		t.Errorf("found in an empty directory: %+v", f)
	}
	s := start(t, embedded.Config{DataDir: dir})
	for _, account := range []embedded.Account{embedded.Consumers, embedded.Workers} {
		if f := found(account); f == nil || f.URL != s.URL() || f.Token == "" || f.Open || f.Configured {
			t.Errorf("%s: found %+v", account, f)
		}
	}
	lock := filepath.Join(dir, "wxkeeper.lock")
	text := readFile(t, lock)
	s.Shutdown()
	writeFile(t, lock, text, 0o600) // as after kill -9
	if f := found(embedded.Consumers); f != nil {
		t.Errorf("found after the end of the server: %+v", f)
	}

	s = start(t, embedded.Config{DataDir: dir, Open: true})
	if f := found(embedded.Consumers); f == nil || f.URL != s.URL() || !f.Open || f.Token != "" {
		t.Errorf("an open server: found %+v", f)
	}
	if f := found(embedded.Workers); f == nil || f.Token == "" {
		t.Errorf("an open server: found %+v for workers", f)
	}
	must(t, os.Remove(filepath.Join(dir, "nats.worker.token")))
	if f, err := embedded.Find(dir, embedded.Workers); f == nil || err == nil ||
		!strings.Contains(err.Error(), "nats.worker.token is missing") {
		t.Errorf("without the token file: %+v, %v", f, err)
	}
}
