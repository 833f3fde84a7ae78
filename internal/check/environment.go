package check

import (
	"fmt"
	"io/fs"
	"strings"
)

// Environ is what the reader of the environment has found.
type Environ struct {
	Wrong     []error // variables with which a worker would not start; each error names its variable
	NoAccount bool    // no variable speaks of an account
	Unknown   []Unknown
	OpenFiles []OpenFile
}

// Unknown is a variable that looks like one of wxkeeper's and is none.
type Unknown struct{ Name, Nearest string }

// OpenFile is a file with a secret that other users of this machine can read.
type OpenFile struct {
	Variable, Path string
	Mode           fs.FileMode
}

func (r *run) environment() {
	e := r.Environ
	for _, err := range e.Wrong {
		r.say(Fail, Environment, err.Error(), "")
	}
	for _, u := range e.Unknown {
		advice := "wxkeeper env lists the variables"
		if u.Nearest != "" {
			advice = "perhaps " + u.Nearest + " was meant; " + advice
		}
		r.say(Warn, Environment, u.Name+" is not known and has no effect", advice)
	}
	for _, f := range e.OpenFiles {
		r.say(Warn, Environment, fmt.Sprintf("%s: %s can be read by other users of this machine (mode %04o)", f.Variable, f.Path, f.Mode), "chmod 600")
	}
	if e.NoAccount {
		r.say(Warn, Environment, "no account is configured: NATS alone is checked", "set the accounts of the worker: see wxkeeper env")
	}
	if len(e.Wrong) > 0 || e.NoAccount {
		return
	}
	r.say(OK, Environment, strings.Join([]string{count(len(r.Accounts), "account"), "every variable can be used"}, ", "), "")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
