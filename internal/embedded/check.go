package embedded

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// Check says why Start would refuse, or would fail, as far as that can be known without starting anything. It leaves
// nothing behind: no directory, no lock, no open port.
func (c Config) Check() error {
	host, port, err := c.validate()
	if err != nil {
		return err
	}
	if err := checkDir(c.DataDir); err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return taken(c.Listen, host, port)
	} else if err != nil {
		return fmt.Errorf("WXKEEPER_NATS_LISTEN: %w", err)
	}
	return l.Close()
}

// checkDir says why a directory cannot be the data directory.
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
			return fmt.Errorf("WXKEEPER_DATA_DIR: %s is not there and cannot be made: %w", dir, err)
		}
		return nil
	}
	switch {
	case err != nil:
		return fmt.Errorf("WXKEEPER_DATA_DIR: %w", err)
	case !fi.IsDir():
		return fmt.Errorf("WXKEEPER_DATA_DIR: %s is not a directory", dir)
	}
	if isLocked(dir) { // before the rest, which a running server has seen to
		return inUse(dir)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		if err := refuseForeign(dir, fi.Mode()); err != nil {
			return err
		}
		// The mode that it has: whether this user may close it, which Start does.
		if err := os.Chmod(dir, fi.Mode()&(os.ModePerm|os.ModeSetuid|os.ModeSetgid|os.ModeSticky)); err != nil {
			return notClosable(dir, fi.Mode(), err)
		}
	}
	if err := tryWriting(dir); err != nil {
		return fmt.Errorf("WXKEEPER_DATA_DIR: this user cannot write there: %w", err)
	}
	return nil
}

// isLocked says whether another process has the directory. Only a lock that is there is tried.
func isLocked(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	if err := flock(f); err != nil {
		return errors.Is(err, errLocked)
	}
	_ = funlock(f) // closing does it too
	return false
}

// tryWriting makes a directory, which is the least that can be removed by its name alone, and removes it.
func tryWriting(dir string) error {
	made, err := os.MkdirTemp(dir, ".wxkeeper-check-")
	if err != nil {
		return err
	}
	return os.Remove(made)
}
