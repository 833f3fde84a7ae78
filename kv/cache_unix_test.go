//go:build unix

package kv

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
)

func TestPipeInTheFilesPlaceHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "credentials.json")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	go func() {
		_, _ = NewReader(nil, ReaderConfig{CacheFile: file, Source: scripted{}, OnError: func(err error) { told <- err }})
	}()
	select {
	case err := <-told:
		if !strings.Contains(err.Error(), "not a regular file") {
			t.Error(err)
		}
	case <-testContext(t).Done():
		t.Error("NewReader waits for somebody who writes")
		if f, err := os.OpenFile(file, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			f.Close() // it ends
		}
	}
}

func TestFileOfAnotherUserIsNotUsed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "credentials.json")
	writeFile(t, file, messages.DefaultBucket, 0o600, credential(1, time.Hour))
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkPrivate(info); err != nil {
		t.Errorf("one's own: %v", err)
	}
	if err := checkPrivate(of{info, os.Geteuid() + 1}); err == nil || !strings.Contains(err.Error(), "another user") {
		t.Errorf("another's: %v", err)
	}
}

// of is a file of another user, which only root could make.
type of struct {
	fs.FileInfo
	uid int
}

func (o of) Sys() any { return &syscall.Stat_t{Uid: uint32(o.uid)} }
