//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package embedded

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// openOwn opens a file of the data directory. It follows no symbolic link in the last part of the path, and refuses
// everything but a regular file of this user with one name: another user could have put a link to a file of this user
// there, to have wxkeeper overwrite it, or a file of his own, to know the token. With asRoot, root may open the files
// of other users.
func openOwn(file string, flag int, asRoot bool) (*os.File, error) {
	// Without O_NONBLOCK, opening a named pipe would wait for its other end.
	f, err := os.OpenFile(file, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	switch {
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.EMLINK): // EMLINK: FreeBSD
		return nil, fmt.Errorf("%s is a symbolic link: delete it", file)
	case err != nil:
		return nil, describe(file, err)
	}
	if err := checkOwn(f, file, asRoot); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func checkOwn(f *os.File, file string, asRoot bool) error {
	fi, err := f.Stat()
	if err != nil {
		return describe(file, err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !fi.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file: delete it", file)
	case st.Nlink > 1:
		return fmt.Errorf("%s has a second name (a hard link): delete it", file)
	case !mine(fi, asRoot):
		return fmt.Errorf("%s belongs to another user (uid %d): delete it", file, st.Uid)
	}
	return nil
}

// createOwn creates a file that must not exist.
func createOwn(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, describe(file, err)
	}
	return f, nil
}

// mine reports whether a file belongs to this user. With asRoot, every file counts as root's.
func mine(fi os.FileInfo, asRoot bool) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	me := os.Geteuid()
	return ok && (int(st.Uid) == me || asRoot && me == 0)
}

// ofRoot reports whether a file belongs to root.
func ofRoot(fi os.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && st.Uid == 0
}
