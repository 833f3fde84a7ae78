package config

import (
	"io/fs"
	"os"
	"runtime"
)

// OpenFile is a file with a secret in it that other users of the machine can read.
type OpenFile struct {
	Variable string // that names it, or names the accounts file that names it
	Path     string
	Mode     fs.FileMode
}

// OpenFiles are the files with secrets, as far as they can be read, that the group or others may read too.
func (c *Config) OpenFiles() []OpenFile {
	if runtime.GOOS == "windows" {
		return nil // its modes say nothing of who may read
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
		return open // Accounts tells it
	}
	look("WECHAT_ACCOUNTS_FILE", c.AccountsFile)
	for _, e := range entries {
		look("WECHAT_ACCOUNTS_FILE", e.SecretFile)
	}
	return open
}
