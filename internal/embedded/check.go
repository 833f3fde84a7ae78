package embedded

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// Check returns the error with which Start would fail, as far as it is known without starting a server. It
// leaves nothing behind: no directory, no lock, no open port.
func (c Config) Check() error {
	if _, _, err := c.validate(); err != nil {
		return err
	}
	if err := checkDir(c.DataDir); err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return addressInUse(c.Listen)
	case err != nil:
		return setting.Errorf(listenVariable, "%w", err)
	}
	return l.Close()
}

// checkDir returns why dir cannot be the data directory.
func checkDir(dir string) error {
	fi, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		above := filepath.Dir(dir)
		for ; above != filepath.Dir(above); above = filepath.Dir(above) {
			if _, err := os.Stat(above); !errors.Is(err, os.ErrNotExist) {
				break
			}
		}
		if err := tryWriting(above); err != nil {
			return setting.Errorf(dirVariable, "%s does not exist and cannot be created: %w", dir, err)
		}
		return nil
	}
	switch {
	case err != nil:
		return setting.Errorf(dirVariable, "%w", err)
	case !fi.IsDir():
		return setting.Errorf(dirVariable, "%s is not a directory", dir)
	}
	if isLocked(dir) { // before the other checks: a running server has made them
		return directoryInUse(dir)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		if err := checkForeign(dir, fi.Mode()); err != nil {
			return err
		}
		// Setting the mode that it has shows whether this user may set another, as Start does.
		if err := os.Chmod(dir, fi.Mode()&(os.ModePerm|os.ModeSetuid|os.ModeSetgid|os.ModeSticky)); err != nil {
			return notClosable(dir, fi.Mode(), err)
		}
	}
	if err := tryWriting(dir); err != nil {
		return setting.Errorf(dirVariable, "this user cannot write there: %w", err)
	}
	return nil
}

// isLocked reports whether another process has locked the directory. It creates no lock file.
func isLocked(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	if err := flock(f); err != nil {
		return errors.Is(err, errLocked)
	}
	_ = funlock(f) // Close unlocks it too
	return false
}

// tryWriting creates a directory in dir and removes it.
func tryWriting(dir string) error {
	made, err := os.MkdirTemp(dir, ".wxkeeper-check-")
	if err != nil {
		return err
	}
	return os.Remove(made)
}
