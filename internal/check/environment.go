package check

import (
	"context"
	"fmt"

	"github.com/wxkeeper/wxkeeper/internal/config"
)

// Environ is what was found while the environment was read.
type Environ struct {
	Wrong     []error // variables with which a worker would not start; each error names its variable
	NoAccount bool    // no variable names an account
	Unknown   []config.Unknown
	OpenFiles []config.OpenFile
}

func (r *run) checkEnvironment() {
	e := r.Environ
	for _, err := range e.Wrong {
		r.add(Fail, Environment, err.Error(), "")
	}
	for _, u := range e.Unknown {
		advice := "wxkeeper env lists the variables"
		if u.Nearest != "" {
			advice = "perhaps " + u.Nearest + " was meant; " + advice
		}
		r.add(Warn, Environment, u.Name+" is not known and has no effect", advice)
	}
	for _, f := range e.OpenFiles {
		r.add(Warn, Environment,
			fmt.Sprintf("%s: %s can be read by other users of this machine (mode %04o)", f.Variable, f.Path, f.Mode),
			"chmod 600 "+f.Path)
	}
	if e.NoAccount {
		r.add(Fail, Environment, "no account is configured: only NATS is checked",
			"set the accounts of the worker: see wxkeeper env")
	}
	if len(e.Wrong) == 0 && !e.NoAccount {
		r.add(OK, Environment, count(len(r.Accounts), "account")+", every variable can be used", "")
	}
}

// checkPages checks the address at which the worker would serve health, metrics and the status page. A free
// address makes no finding.
func (r *run) checkPages(ctx context.Context) {
	served, err := r.Pages(ctx)
	r.alone = !served
	switch {
	case err != nil:
		r.add(Fail, Environment, "the worker could not serve its pages: "+err.Error(), "")
	case served:
		r.add(OK, Environment, "a worker of this environment runs: it answers at WXKEEPER_HTTP_ADDR", "")
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
