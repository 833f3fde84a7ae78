//go:build unix

package kv

import (
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
)

func TestPipeInPlaceOfTheFileDoesNotBlock(t *testing.T) {
	t.Parallel()
	file := cacheFile(t)
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	problems := make(chan error, 1)
	cfg := ReaderConfig{CacheFile: file, Source: scripted{}, OnError: func(err error) { problems <- err }}
	go func() { _, _ = NewReader(nil, cfg) }()
	select {
	case err := <-problems:
		if !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("OnError received %v, want that it is not a regular file", err)
		}
	case <-testContext(t).Done():
		t.Error("NewReader waits for a writer of the pipe")
		if f, err := os.OpenFile(file, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			f.Close() // the goroutine ends
		}
	}
}

func TestFileOfAnotherUserIsNotUsed(t *testing.T) {
	t.Parallel()
	file := cacheFile(t)
	writeFile(t, file, messages.DefaultBucket, 0o600, credential(1, time.Hour))
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkPrivate(info); err != nil {
		t.Errorf("a file of this user: %v", err)
	}
	err = checkPrivate(ownedBy{info, os.Geteuid() + 1})
	if err == nil || !strings.Contains(err.Error(), "another user") {
		t.Errorf("a file of another user: %v, want that it belongs to another user", err)
	}
}

// ownedBy is a file of another user, which only root could create.
type ownedBy struct {
	fs.FileInfo
	uid int
}

func (o ownedBy) Sys() any { return &syscall.Stat_t{Uid: uint32(o.uid)} }
