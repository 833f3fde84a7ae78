package embedded

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// prepareDir creates the directory with mode 0700, or sets this mode on an existing directory, because the
// store contains access tokens in the clear. It refuses a directory with files of other programs: to change
// its mode could break them (WXKEEPER_DATA_DIR=/tmp).
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return setting.Errorf(dirVariable, "create the directory: %w", err)
	}
	fi, err := checkOwner(dir)
	if err != nil {
		return err
	}
	if err := checkForeign(dir, fi.Mode()); err != nil || fi.Mode().Perm()&0o077 == 0 {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // 0700 is what a directory needs
		return setting.Errorf(dirVariable, "%s has mode %04o and other users must not read it: %w", dir,
			fi.Mode().Perm(), err)
	}
	return nil
}

// checkOwner refuses a directory that does not belong to this user: its owner could read and replace everything in
// it. That holds for root too. It also refuses a symbolic link that another user has made, because that user chose
// the directory. It returns what the directory is. Its error is fs.ErrNotExist if there is none.
func checkOwner(dir string) (os.FileInfo, error) {
	link, err := os.Lstat(dir)
	if err != nil {
		return nil, setting.Errorf(dirVariable, "%w", err)
	}
	fi, err := os.Stat(dir)
	switch {
	case err != nil:
		return nil, setting.Errorf(dirVariable, "%w", err)
	case !fi.IsDir():
		return nil, setting.Errorf(dirVariable, "%s is not a directory", dir)
	case !mine(fi, false):
		return nil, setting.Errorf(dirVariable, "%s belongs to another user: set it to a directory of this user, "+
			"for example %s", dir, filepath.Join(dir, "wxkeeper"))
	case link.Mode()&fs.ModeSymlink != 0 && !mine(link, false) && !ofRoot(link):
		return nil, setting.Errorf(dirVariable, "%s is a symbolic link that another user has made: delete it", dir)
	}
	return fi, nil
}

// checkForeign returns an error if the directory has something that another user has put there (nats-server would
// follow a link to another store), or if other users can read the directory and it has files of other programs.
func checkForeign(dir string, mode os.FileMode) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return setting.Errorf(dirVariable, "%w", err)
	}
	ours := len(entries) == 0 || mode.Perm()&0o077 == 0
	for _, e := range entries {
		fi, err := e.Info() // of a link itself
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return setting.Errorf(dirVariable, "%w", err)
		}
		if !mine(fi, false) && !ofRoot(fi) { // a volume has lost+found of root
			return setting.Errorf(dirVariable, "%s belongs to another user: delete it", filepath.Join(dir, e.Name()))
		}
		ours = ours || e.Name() == lockName
	}
	if !ours {
		return setting.Errorf(dirVariable,
			"%s has mode %04o and files that are not wxkeeper's: set it to another directory, for example %s",
			dir, mode.Perm(), filepath.Join(dir, "wxkeeper"))
	}
	return nil
}

// checkDir returns why dir cannot be the data directory.
func checkDir(dir string) error {
	fi, err := checkOwner(dir)
	if errors.Is(err, fs.ErrNotExist) {
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
	if err != nil {
		return err
	}
	switch _, locked, err := readOwner(dir, false); {
	case err != nil:
		return err
	case locked: // before the other checks: a running server has made them
		return directoryInUse(dir)
	}
	if err := checkForeign(dir, fi.Mode()); err != nil {
		return err
	}
	for _, name := range []string{consumerTokenName, workerTokenName} {
		if _, err := readToken(filepath.Join(dir, name), false); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := tryWriting(dir); err != nil {
		return setting.Errorf(dirVariable, "this user cannot write there: %w", err)
	}
	return nil
}

// tryWriting creates a directory in dir and removes it.
func tryWriting(dir string) error {
	made, err := os.MkdirTemp(dir, ".wxkeeper-check-")
	if err != nil {
		return err
	}
	return os.Remove(made)
}
