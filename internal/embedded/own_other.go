//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package embedded

import (
	"io/fs"
	"os"
)

// There is no embedded server on this operating system, and so no data directory: see flock.

func openOwn(file string, _ int, _ bool) (*os.File, error) {
	return nil, &fs.PathError{Op: "open", Path: file, Err: fs.ErrNotExist}
}

func createOwn(string) (*os.File, error) { return nil, errUnsupported }

func mine(os.FileInfo, bool) bool { return true }

func ofRoot(os.FileInfo) bool { return false }
