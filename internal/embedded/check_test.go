package embedded_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wxkeeper/wxkeeper/internal/embedded"
)

// Check returns the errors of Start, and leaves nothing behind: no directory, no lock, no open port.
func TestCheckReturnsTheErrorsOfStartAndLeavesNothing(t *testing.T) {
	t.Parallel()
	above := t.TempDir()
	dir := filepath.Join(above, "not", "there")
	cfg := embedded.Config{Listen: "127.0.0.1:0", DataDir: dir}
	if err := cfg.Check(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(above); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}

	lax := t.TempDir() // a directory of wxkeeper: Start changes its mode, Check does not
	start(t, embedded.Config{DataDir: lax}).Shutdown()
	chmod(t, lax, 0o755)
	before, err := os.ReadDir(lax)
	if err != nil {
		t.Fatal(err)
	}
	if err := (embedded.Config{Listen: "127.0.0.1:0", DataDir: lax}).Check(); err != nil {
		t.Error(err)
	}
	after, err := os.ReadDir(lax)
	if err != nil {
		t.Fatal(err)
	}
	if len(after) != len(before) {
		t.Errorf("files before %v, after %v", before, after)
	}
	fi, err := os.Stat(lax)
	if err != nil {
		t.Fatal(err)
	}
	if got := fi.Mode().Perm(); got != 0o755 {
		t.Errorf("the mode was changed to %04o", got)
	}

	file := filepath.Join(t.TempDir(), "file")
	foreign := t.TempDir()
	for _, f := range []string{file, filepath.Join(foreign, "photo.jpg")} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	chmod(t, foreign, 0o755)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	running := start(t, embedded.Config{DataDir: lax})
	for _, tt := range []struct {
		cfg   embedded.Config
		texts []string
	}{
		{embedded.Config{Listen: "0.0.0.0:0", DataDir: dir, Open: true}, []string{"WXKEEPER_NATS_OPEN"}},
		{embedded.Config{Listen: l.Addr().String(), DataDir: dir},
			[]string{"another process listens on " + l.Addr().String()}},
		{embedded.Config{Listen: "127.0.0.1:0", DataDir: file}, []string{"WXKEEPER_DATA_DIR", "not a directory"}},
		{embedded.Config{Listen: "127.0.0.1:0", DataDir: filepath.Join(file, "below")}, []string{"WXKEEPER_DATA_DIR"}},
		{embedded.Config{Listen: "127.0.0.1:0", DataDir: foreign}, []string{"WXKEEPER_DATA_DIR", "not wxkeeper's"}},
		{embedded.Config{Listen: "127.0.0.1:0", DataDir: lax}, []string{"in use by another wxkeeper", running.URL()}},
	} {
		err := tt.cfg.Check()
		if err == nil {
			t.Errorf("%+v: Check finds nothing", tt.cfg)
			continue
		}
		for _, text := range tt.texts {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%+v: %q lacks %q", tt.cfg, err, text)
			}
		}
		if s, err := embedded.Start(t.Context(), tt.cfg); err == nil {
			s.Shutdown()
			t.Errorf("%+v: Start succeeds", tt.cfg)
		}
	}
	if os.Geteuid() != 0 { // root may write everywhere
		closed := t.TempDir()
		chmod(t, closed, 0o500)
		if err := (embedded.Config{Listen: "127.0.0.1:0", DataDir: closed}).Check(); err == nil ||
			!strings.Contains(err.Error(), "cannot write") {
			t.Errorf("a directory that cannot be written: %v", err)
		}
	}
}
