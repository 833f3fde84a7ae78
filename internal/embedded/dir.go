package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// lockName is the file that carries the lock, and says who holds it. It also marks a directory as ours.
const lockName = "wxkeeper.lock"

// errLocked is returned by lockDir when another process, or another Server of this one, has the directory.
var errLocked = errors.New("locked by another process")

// prepareDir makes the directory, or closes an existing one to other users: the store holds access tokens in the clear.
// A directory with somebody else's files in it is not closed but refused, because its mode is somebody else's business:
// WXKEEPER_DATA_DIR=/tmp must not make /tmp useless.
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("WXKEEPER_DATA_DIR: making the directory: %w", err)
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("WXKEEPER_DATA_DIR: %w", err)
	}
	if fi.Mode().Perm()&0o077 == 0 {
		return nil
	}
	if err := refuseForeign(dir, fi.Mode()); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // 0700 is what a directory needs
		return notClosable(dir, fi.Mode(), err)
	}
	return nil
}

// refuseForeign refuses an open directory with somebody else's files in it.
func refuseForeign(dir string, mode os.FileMode) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("WXKEEPER_DATA_DIR: %w", err)
	}
	if len(entries) == 0 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, lockName)); err != nil {
		return fmt.Errorf("WXKEEPER_DATA_DIR: %s has mode %04o and files that are not wxkeeper's: name a directory of its own, for example %s",
			dir, mode.Perm(), filepath.Join(dir, "wxkeeper"))
	}
	return nil
}

func notClosable(dir string, mode os.FileMode, err error) error {
	return fmt.Errorf("WXKEEPER_DATA_DIR: %s has mode %04o and must be closed to others (chmod 700), or name a directory below it, for example %s: %w",
		dir, mode.Perm(), filepath.Join(dir, "wxkeeper"), err)
}

// dirLock is held as long as its file is open: the kernel releases it when the process dies, however it dies.
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
	_ = f.Truncate(0) // what a holder that was killed has left: its URL is not ours
	return &dirLock{f}, nil
}

// holder is what the lock file says of the process that holds the lock.
type holder struct {
	PID int    `json:"pid"`
	URL string `json:"url"` // for clients on this machine; it carries no credentials
}

// tell writes down who holds the lock, for those who come later.
func (l *dirLock) tell(h holder) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	_, err = l.f.WriteAt(append(b, '\n'), 0)
	return err
}

// readHolder reads who holds the lock of a directory: nothing where the holder has not yet said it.
func readHolder(dir string) (h holder) {
	b, err := os.ReadFile(filepath.Join(dir, lockName))
	if err != nil || json.Unmarshal(b, &h) != nil {
		return holder{}
	}
	return h
}

// release leaves the file where it is: to remove it would let two processes lock two files of one name.
func (l *dirLock) release() {
	_ = l.f.Truncate(0)
	_ = funlock(l.f) // Close does it too, but not while a process that is just being started shares the open file
	_ = l.f.Close()
}
