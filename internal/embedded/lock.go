package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// lockName is the file that is locked and that describes the process that has locked it. A directory that
// contains this file belongs to wxkeeper.
const lockName = "wxkeeper.lock"

// errLocked is returned by lockDir if another process, or another Server of this process, has locked the directory.
var errLocked = errors.New("locked by another process")

// dirLock is the lock of a directory. It lasts while the file is open: the kernel releases it when the
// process ends, also after a crash.
type dirLock struct{ f *os.File }

func lockDir(ctx context.Context, dir string) (*dirLock, error) {
	f, err := openOwn(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, false)
	if err != nil {
		return nil, setting.Errorf(dirVariable, "the lock file %w", err)
	}
	// A verb that asks whether the directory is locked holds the lock for a moment.
	for range 10 {
		if err = flock(f); !errors.Is(err, errLocked) || ctx.Err() != nil {
			break
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	_ = f.Truncate(0) // a process that was killed has left its own URL here
	return &dirLock{f}, nil
}

// owner is the content of the lock file: the process that has locked the directory, and its server.
type owner struct {
	PID       int    `json:"pid"`
	URL       string `json:"url"`       // for clients on this machine; it contains no credentials
	Consumers access `json:"consumers"` // what consumers need
}

// access is what a server demands of consumers.
type access string

const (
	byToken       access = "token"       // the token in consumerTokenName
	byEnvironment access = "environment" // NATS_TOKEN, or NATS_USER and NATS_PASSWORD, of the process
	forAll        access = "open"        // nothing
)

// write writes the owner into the lock file, for processes that find the directory locked.
func (l *dirLock) write(o owner) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = l.f.WriteAt(append(b, '\n'), 0)
	return err
}

// readOwner returns the owner of a directory, and whether the directory is locked. The owner is empty if the process
// has not written it yet.
func readOwner(dir string, asRoot bool) (o owner, locked bool, err error) {
	f, err := openOwn(filepath.Join(dir, lockName), os.O_RDONLY, asRoot)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return owner{}, false, nil
	case err != nil:
		return owner{}, false, setting.Errorf(dirVariable, "the lock file %w", err)
	}
	defer f.Close()
	if !isFlocked(f) {
		return owner{}, false, nil
	}
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil || json.Unmarshal(b, &o) != nil {
		return owner{}, true, nil
	}
	return o, true, nil
}

// directoryInUse is the error for a directory that another server uses. It contains that server's URL, because the
// addresses in this process's environment may be different ones.
func directoryInUse(dir string) error {
	o, _, _ := readOwner(dir, false)
	process, join := "another wxkeeper", "NATS_URL (the first one logs its URL)"
	if o.PID != 0 {
		process = fmt.Sprintf("another wxkeeper (pid %d)", o.PID)
	}
	if o.URL != "" {
		join = "NATS_URL=" + o.URL
	}
	return fmt.Errorf("the data directory %s is in use by %s: a second worker on this machine joins it with %s; "+
		"for a separate server set %s to another directory", dir, process, join, dirVariable)
}

// release unlocks the directory. It does not remove the file: otherwise two processes could lock two files
// with one name.
func (l *dirLock) release() {
	_ = l.f.Truncate(0)
	_ = funlock(l.f) // Close unlocks it too, but not while a child process that is being started shares the open file
	_ = l.f.Close()
}
