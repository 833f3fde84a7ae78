package check

import (
	"context"
	"fmt"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/config"
)

// Environ is what was found while the environment was read.
type Environ struct {
	Wrong     []error // variables with which a worker would not start; each error names its variable
	NoAccount bool    // no variable names an account
	Unknown   []config.Unknown
	OpenFiles []config.OpenFile
	Routes    []config.Route // of the calls of WeChat; nil: no proxy is configured
	// Certificates are the variables that replace the authorities of the system, as NAME=value.
	Certificates []string
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
	for _, route := range e.Routes {
		r.add(describeRoute(route))
	}
	if e.NoAccount {
		r.add(Fail, Environment, "no account is configured: only NATS is checked",
			"set the accounts of the worker: see wxkeeper env")
	}
	if len(e.Wrong) == 0 && !e.NoAccount {
		what := count(len(r.Accounts), "account") + ", every variable can be used"
		if len(e.Certificates) > 0 {
			what += "; the trusted authorities are those of " + strings.Join(e.Certificates, " and ")
		}
		r.add(OK, Environment, what, "")
	}
}

// describeRoute describes which way the calls of a host of WeChat take. WeChat sees the address of that way, and must
// have it on its white list.
func describeRoute(route config.Route) (level Level, check, what, advice string) {
	calls := "calls of " + route.Host + " go "
	switch {
	case route.Proxy != "":
		return OK, Environment, calls + "through the proxy " + route.Proxy + " (" + route.Variable + ")", ""
	case route.Excepted:
		return OK, Environment, calls + "directly: NO_PROXY, or its being this machine, excepts it from " + route.Variable, ""
	}
	return Warn, Environment, calls + "directly: a proxy is configured, but not for this kind of URL",
		"set " + route.Variable + " if these calls must leave through the proxy"
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
