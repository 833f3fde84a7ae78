package embedded

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// lockName is the file that is locked and that describes the process that has locked it. A directory that
// contains this file belongs to wxkeeper.
const lockName = "wxkeeper.lock"

// errLocked is returned by lockDir if another process, or another Server of this process, has locked the directory.
var errLocked = errors.New("locked by another process")

// prepareDir creates the directory with mode 0700, or sets this mode on an existing directory, because the
// store contains access tokens in the clear. It refuses a directory with files of other programs: to change
// its mode could break them (WXKEEPER_DATA_DIR=/tmp).
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return setting.Errorf(dirVariable, "create the directory: %w", err)
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return setting.Errorf(dirVariable, "%w", err)
	}
	if fi.Mode().Perm()&0o077 == 0 {
		return nil
	}
	if err := checkForeign(dir, fi.Mode()); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // 0700 is what a directory needs
		return notClosable(dir, fi.Mode(), err)
	}
	return nil
}

// checkForeign returns an error if a directory that other users can read contains files of other programs.
func checkForeign(dir string, mode os.FileMode) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return setting.Errorf(dirVariable, "%w", err)
	}
	if len(entries) == 0 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, lockName)); err != nil {
		return setting.Errorf(dirVariable,
			"%s has mode %04o and files that are not wxkeeper's: set it to another directory, for example %s",
			dir, mode.Perm(), filepath.Join(dir, "wxkeeper"))
	}
	return nil
}

// notClosable is the error for a directory whose mode this user may not change.
func notClosable(dir string, mode os.FileMode, err error) error {
	return setting.Errorf(dirVariable, "%s has mode %04o and other users must not read it: chmod 700, or set the "+
		"variable to a directory below it, for example %s: %w", dir, mode.Perm(), filepath.Join(dir, "wxkeeper"), err)
}

// dirLock is the lock of a directory. It lasts while the file is open: the kernel releases it when the
// process ends, also after a crash.
type dirLock struct{ f *os.File }

func lockDir(dir string) (*dirLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	_ = f.Truncate(0) // a process that was killed has left its own URL here
	return &dirLock{f}, nil
}

// owner is the content of the lock file: the process that has locked the directory.
type owner struct {
	PID int    `json:"pid"`
	URL string `json:"url"` // for clients on this machine; it contains no credentials
}

// write writes the owner into the lock file, for the error of a process that finds the directory locked.
func (l *dirLock) write(o owner) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = l.f.WriteAt(append(b, '\n'), 0)
	return err
}

// readOwner returns the owner of a directory that is locked, or nothing if the owner has not written it yet.
func readOwner(dir string) (o owner) {
	b, err := os.ReadFile(filepath.Join(dir, lockName))
	if err != nil || json.Unmarshal(b, &o) != nil {
		return owner{}
	}
	return o
}

// release unlocks the directory. It does not remove the file: otherwise two processes could lock two files
// with one name.
func (l *dirLock) release() {
	_ = l.f.Truncate(0)
	_ = funlock(l.f) // Close unlocks it too, but not while a child process that is being started shares the open file
	_ = l.f.Close()
}
