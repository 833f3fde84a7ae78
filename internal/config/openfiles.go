package config

import (
	"io/fs"
	"os"
	"runtime"
)

// OpenFile is a file with a secret that other users of the machine can read.
type OpenFile struct {
	Variable string // the variable that names the file, or that names the accounts file that names it
	Path     string
	Mode     fs.FileMode
}

// OpenFiles returns the files with secrets that their group or all users may read. Files that cannot be read are left
// out.
func (c *Config) OpenFiles() []OpenFile {
	if runtime.GOOS == "windows" {
		return nil // there the mode does not say which users may read a file
	}
	var open []OpenFile
	look := func(variable, path string) {
		if fi, err := os.Stat(path); path != "" && err == nil && fi.Mode().Perm()&0o044 != 0 {
			open = append(open, OpenFile{variable, path, fi.Mode().Perm()})
		}
	}
	look("WECHAT_SECRET_FILE", c.SecretFile)
	for i, e := range c.Numbered {
		look(numbered(i)+"SECRET_FILE", e.SecretFile)
	}
	look("NATS_CREDS", c.NATSCreds)
	look("NATS_NKEY", c.NATSNKey)
	look("NATS_KEY", c.NATSKey)
	if c.AccountsFile == "" {
		return open
	}
	entries, err := readAccounts(c.AccountsFile)
	if err != nil {
		return open // Accounts returns this error
	}
	look(accountsFile, c.AccountsFile)
	for _, e := range entries {
		look(accountsFile, e.SecretFile)
	}
	return open
}
