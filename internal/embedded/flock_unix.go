//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package embedded

import (
	"errors"
	"os"
	"syscall"
)

// flock locks f, or returns errLocked at once. nats-server does not lock its store: without this lock two
// servers would start on one directory and destroy the store.
func flock(f *os.File) error { return tryFlock(f, syscall.LOCK_EX) }

// isFlocked reports whether a process holds the lock. For a moment it holds a shared lock itself.
func isFlocked(f *os.File) bool {
	if err := tryFlock(f, syscall.LOCK_SH); err != nil {
		return errors.Is(err, errLocked)
	}
	_ = funlock(f) // Close unlocks it too
	return false
}

func tryFlock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errLocked
		default:
			return err
		}
	}
}

func funlock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }
